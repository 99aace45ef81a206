"""Tests of grader/values.py beyond those of test_equality.py: the cases for which sympy is not its arithmetic."""

import subprocess
import sys
import time

import mpmath
import pytest

from grader.equality import is_equiv

TOWER = "x^{x^{x^{x^{x^x}}}}"
SYMPY_TOWER = """
from sympy import Pow, Rational
x = tower = Rational(29, 10)
for _ in range(5):
    tower = Pow(x, tower)
print("built", flush=True)
print((tower - x).evalf(57))
"""


def test_sympy_needs_a_bound_that_only_a_value_gives():
    """evalf of x^x^x^x^x^x takes seconds. Whether a power gets too large is known before it is computed only from the
    value of its exponent: the very arithmetic that sympy would replace."""
    pytest.importorskip("sympy")
    start = time.perf_counter()
    assert not is_equiv(TOWER, "x") and time.perf_counter() - start < 1
    with subprocess.Popen([sys.executable, "-c", SYMPY_TOWER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "built\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(timeout=1)
        finally:
            process.kill()


def test_sympy_computes_in_a_context_that_threads_share(monkeypatch):
    """sympy sets the precision of mpmath's one global context while it computes, so that two threads at two precisions
    get each other's. Ours has no context."""
    sympy = pytest.importorskip("sympy")
    before, seen, sinh = mpmath.mp.prec, [], mpmath.sinh
    monkeypatch.setattr(mpmath, "sinh", lambda x: seen.append(mpmath.mp.prec) or sinh(x))
    sympy.sinh(1).evalf(1200)
    assert seen and min(seen) > 3900 and mpmath.mp.prec == before == 53
    seen.clear()
    assert is_equiv(r"-i \sin i", r"\frac{e-e^{-1}}{2}") and not seen
