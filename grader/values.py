"""The value of a tree: a tree and the values of its letters in, a number with its error out.

A number is exact (Fraction) as long as it is rational and small. Otherwise it is a ball, a complex midpoint and a bound
on its error: "these two differ" is then proven, and "these two are equal" means that they cannot be distinguished at
the given precision. All work is bounded before it is done. Sympy can't replace this: its evalf has no bound on powers,
and computes in mpmath's one global context, whose precision threads share (tests/grader/test_values.py).
"""

from fractions import Fraction
from math import ceil, comb, factorial, floor
from typing import NamedTuple
from zlib import crc32

from mpmath import libmp  # sympy's numeric core; its functions of mpf tuples have no context, hence no state

from grader.reading import TRIGONOMETRIC
from grader.spelling import Refused, refuse_if
from grader.trees import Node

MAX_BITS = 50_000  # per exact number
MAX_FACTORIAL = 2500
MAX_TERMS = 100  # per finite sum or product
MAX_PARTS = 500  # nodes of all its terms
MAX_SIZE = 2000  # bits before the point of a value that is no longer exact, so that its units digit is known too
# bits: 50 digits distinguish almost all that differ; two are called equal only if 1200 digits agree
PRECISION, MORE_PRECISION = 190, 4000


class Ball(NamedTuple):
    """A complex number, known to within 2^error: a pair of mpf tuples, the type of mpmath's libmp."""

    pair: tuple
    error: int


class At(NamedTuple):
    """Where an expression is evaluated: values of letters, bits, and whether log is ln and degrees become radians."""

    letters: dict
    precision: int
    natural: bool
    radians: bool = False


_NOTHING = -(10**9)  # the size of an exact zero


def evaluate(node, at):
    """The value of an expression, a Fraction or a Ball. Raises Refused if there is none."""
    if node.kind in _OF_TREES:
        return _OF_TREES[node.kind](node, at)
    refuse_if(node.kind not in _OF_VALUES, f"{node.kind} is no number")
    return _OF_VALUES[node.kind]([evaluate(part, at) for part in node.args], node, at)


def _constant(node, at):
    name = node.value
    if name in at.letters:  # the index of a sum may be called i
        return at.letters[name]
    if name == "i":
        return Ball((libmp.fzero, libmp.fone), _NOTHING)
    refuse_if(name == "infinity", "infinity")
    value = libmp.mpf_pi(at.precision) if name == "pi" else libmp.mpf_e(at.precision)
    return Ball((value, libmp.fzero), 2 - at.precision)


def _product_value(values, _node, at):
    result = values[0]
    for value in values[1:]:
        result = product_of(result, value, at.precision)
    return result


def _apply_value(values, node, at):
    """An unknown function, as a quadratic polynomial that its name determines: f(2x) is f(x+x), but not 2 f(x)."""
    seed = crc32(node.value.encode())
    terms = [Fraction(seed % 991 + 7, 101)]
    for i, value in enumerate(values):
        linear, square = Fraction(seed % (641 + i) + 3, 53), Fraction(seed % (757 + i) + 5, 97)
        squared = product_of(value, value, at.precision)
        terms += [product_of(linear, value, at.precision), product_of(square, squared, at.precision)]
    return sum_of(terms, at.precision)


def _degrees_value(values, _node, at):
    if not at.radians:
        return values[0]
    pi = Ball((libmp.mpf_pi(at.precision), libmp.fzero), 2 - at.precision)
    return product_of(quotient(values[0], Fraction(180), at.precision), pi, at.precision)


def _factorial_value(values, node, _at):
    """n!, or a binomial coefficient."""
    numbers = [_whole(value) for value in values]
    refuse_if(min(numbers) < 0 or numbers[0] > MAX_FACTORIAL, "a factorial")
    return Fraction(factorial(*numbers) if node.kind == "factorial" else comb(*numbers))


def _whole(value):
    """A whole number, exact or indistinguishable from one."""
    number = _nearest(value)
    refuse_if(number.denominator != 1, "not a whole number")
    return number.numerator


def _nearest(value):
    """A Fraction as it is; of a ball the whole number within its error, or else the midpoint."""
    if isinstance(value, Fraction):
        return value
    real = _real(value)
    refuse_if(_size(value.pair) > MAX_SIZE, "too large for a floor")
    numerator, denominator = libmp.to_rational(real)
    number = Fraction(numerator, denominator)
    nearest = Fraction(round(number))
    return nearest if abs(number - nearest) <= Fraction(2) ** max(value.error + 2, -5000) else number


def _abs_value(values, _node, at):
    if isinstance(values[0], Fraction):
        return abs(values[0])
    return Ball((libmp.mpc_abs(values[0].pair, at.precision), libmp.fzero), values[0].error + 1)


def _series_value(node, at):
    """A plain sum; or a finite sum or product over an index, term by term, which may not be nested."""
    if node.kind == "sum" and node.value is None:
        return sum_of([evaluate(term, at) for term in node.args], at.precision)
    first, last = (_whole(evaluate(end, at)) for end in node.args[:2])
    index, body = node.value, node.args[2]
    count, parts = max(last - first + 1, 0), list(body.walk())
    nested = any(part.kind in ("sum", "prod") and part.value for part in parts)
    refuse_if(nested or count > MAX_TERMS or count * len(parts) > MAX_PARTS, "too many terms")
    terms = [evaluate(body, at._replace(letters=at.letters | {index: Fraction(first + k)})) for k in range(count)]
    return sum_of(terms, at.precision) if node.kind == "sum" else _product_value([Fraction(1), *terms], node, at)


def _power_value(node, at):
    """base ^ exponent: exact if it is rational and small; the odd root of a negative number is real."""
    exponent = evaluate(node.args[1], at)
    if node.args[0] == Node("constant", (), "e"):
        return _exponential(exponent, at.precision)
    base = evaluate(node.args[0], at)
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        power = exponent.numerator
        refuse_if(base == 0 and power <= 0, "0^0 or 1/0")
        if _bits(base) * abs(power) <= MAX_BITS:
            return base**power
    is_real = isinstance(base, Fraction) or base.pair[1] == libmp.fzero
    if isinstance(exponent, Fraction) and exponent.denominator % 2 == 1 and is_real and sign_of(base) < 0:
        logarithm = _logarithm(negated(base), at.precision)
        positive = _exponential(product_of(exponent, logarithm, at.precision), at.precision)
        return negated(positive) if exponent.numerator % 2 == 1 else positive
    if _is_zero(base):
        if isinstance(exponent, Fraction) and exponent > 0:
            error = _NOTHING if isinstance(base, Fraction) else int(base.error * min(exponent, 1))
            return Ball((libmp.fzero, libmp.fzero), error)
        raise Refused("a power of 0")
    if exponent == Fraction(1, 2):  # ten times as fast
        ball = _ball(base, at.precision)
        root = libmp.mpc_sqrt(ball.pair, at.precision)
        return _rounded(root, max(ball.error - _size(ball.pair) // 2, _size(root) - at.precision) + 4)
    return _exponential(product_of(exponent, _logarithm(base, at.precision), at.precision), at.precision)


def _function_value(node, at):
    """A named function of mathematics."""
    name, precision = node.value, at.precision
    at = at._replace(radians=name in TRIGONOMETRIC)
    value = evaluate(node.args[0], at)
    if name in ("exp", "cis"):
        imaginary = Ball((libmp.fzero, libmp.fone), _NOTHING)
        return _exponential(value if name == "exp" else product_of(imaginary, value, precision), precision)
    if name in ("ln", "log", "lg"):
        logarithm = _logarithm(value, precision)
        if len(node.args) == 1 and (name == "ln" or (name == "log" and at.natural)):
            return logarithm
        base = evaluate(node.args[1], at) if len(node.args) == 2 else Fraction(10)
        return quotient(logarithm, _logarithm(base, precision), precision)
    if name in _QUOTIENTS:
        parts = (_elementary(part, value, precision) if part else Fraction(1) for part in _QUOTIENTS[name])
        return quotient(*parts, precision)
    return _elementary(name, value, precision)


_OF_TREES = {  # kind -> the value of a tree
    "number": lambda node, _at: node.value,
    "decimal": lambda node, _at: node.value[0],
    "symbol": lambda node, at: at.letters[node.value],
    "constant": _constant,
    "sum": _series_value,
    "prod": _series_value,
    "power": _power_value,
    "function": _function_value,
}
_OF_VALUES = {  # kind -> the value of a tree whose parts have these values
    "product": _product_value,
    "inverse": lambda values, _node, at: quotient(Fraction(1), values[0], at.precision),
    "fraction": lambda values, _node, at: quotient(*values, at.precision),
    "degrees": _degrees_value,
    "factorial": _factorial_value,
    "binomial": _factorial_value,
    "abs": _abs_value,
    "floor": lambda values, _node, _at: Fraction(floor(_nearest(values[0]))),
    "ceiling": lambda values, _node, _at: Fraction(ceil(_nearest(values[0]))),
    "apply": _apply_value,
}
SCALARS = _OF_TREES.keys() | _OF_VALUES.keys()

_QUOTIENTS = {"tan": ("sin", "cos"), "cot": ("cos", "sin"), "sec": ("", "cos"), "csc": ("", "sin")}  # "": one
_ENTIRE = {"sin": libmp.mpc_sin, "cos": libmp.mpc_cos}
_INVERSES = {"arcsin": libmp.mpc_asin, "arccos": libmp.mpc_acos, "arctan": libmp.mpc_atan}


def _elementary(name, value, precision):
    """An entire or inverse function; an inverse one may have the square root of its argument's error, as at ±1."""
    ball = _ball(value, precision)
    size, error = _size(ball.pair), max(ball.error, _size(ball.pair) - precision, -precision)
    refuse_if(size > precision // 2 or error > -20, "an argument too large")
    if name in _ENTIRE:
        refuse_if(_mpf_size(ball.pair[1]) > 12, "an argument too large")
        result = _ENTIRE[name](ball.pair, precision)
        return _rounded(result, error + max(_size(result), 0) + 4)
    if name == "arctan":
        refuse_if(_is_zero(sum_of([product_of(ball, ball, precision), Fraction(1)], precision)), "a pole")
    return _rounded(_INVERSES[name](ball.pair, precision), error // 2 + 4)


def _exponential(value, precision):
    ball = _ball(value, precision)
    size = _size(ball.pair)
    refuse_if(size > 24 or ball.error > -20, "a power too large")
    result = libmp.mpc_exp(ball.pair, precision)
    return _rounded(result, _size(result) + max(ball.error, max(size, 0) - precision) + 4)


def _logarithm(value, precision):
    ball = _ball(value, precision)
    refuse_if(_is_zero(ball), "the logarithm of 0")
    result = libmp.mpc_log(ball.pair, precision)
    return _rounded(result, max(ball.error - _size(ball.pair), _size(result) - precision, -precision) + 4)


def sum_of(values, precision):
    """The sum of values, exact if all are rational."""
    if all(isinstance(value, Fraction) for value in values):
        total = Fraction(0)
        for value in values:
            total += value
            if _bits(total) > MAX_BITS:
                break
        else:
            return total
    total, error = libmp.mpc_zero, _NOTHING
    for value in values:
        ball = _ball(value, precision)
        total = libmp.mpc_add(total, ball.pair, precision, "n")
        error = max(error, ball.error, _size(total) - precision) + 1
    return _rounded(total, error)


def product_of(one, other, precision):
    """A product, exact if both are rational and small."""
    if isinstance(one, Fraction) and isinstance(other, Fraction) and _bits(one) + _bits(other) <= MAX_BITS:
        return one * other
    one, other = _ball(one, precision), _ball(other, precision)
    result = libmp.mpc_mul(one.pair, other.pair, precision, "n")
    errors = (
        _size(one.pair) + other.error,
        _size(other.pair) + one.error,
        one.error + other.error,
        _size(result) - precision,
    )
    return _rounded(result, max(errors) + 3)


def quotient(one, other, precision):
    """A quotient; Refused if the divisor is indistinguishable from 0."""
    refuse_if(_is_zero(other), "a division by 0")
    if isinstance(one, Fraction) and isinstance(other, Fraction) and _bits(one) + _bits(other) <= MAX_BITS:
        return one / other
    one, other = _ball(one, precision), _ball(other, precision)
    result = libmp.mpc_div(one.pair, other.pair, precision, "n")
    size = _size(other.pair)
    errors = one.error - size, _size(one.pair) + other.error - 2 * size, _size(result) - precision
    return _rounded(result, max(errors) + 5)


def negated(value):
    return -value if isinstance(value, Fraction) else Ball(libmp.mpc_neg(value.pair), value.error)


def _ball(value, precision):
    """A Fraction as a ball; a ball as it is."""
    if isinstance(value, Ball):
        return value
    if value == 0:
        return Ball(libmp.mpc_zero, _NOTHING)
    real = libmp.from_rational(value.numerator, value.denominator, precision, "n")
    return Ball((real, libmp.fzero), _mpf_size(real) - precision)


def _rounded(pair, error):
    """A ball; parts indistinguishable from 0 become 0, so that a real number stays real. Refused if too large."""
    refuse_if(_size(pair) > MAX_SIZE, "too large")
    return Ball(tuple(libmp.fzero if _mpf_size(part) <= error else part for part in pair), max(error, _NOTHING))


def _mpf_size(number):
    """The exponent of the power of 2 above |number|."""
    _, mantissa, exponent, bits = number
    if mantissa:
        return exponent + bits
    refuse_if(exponent, "infinite")
    return _NOTHING


def _size(pair):
    return max(map(_mpf_size, pair))


def _is_zero(value):
    """Whether a value is 0 or indistinguishable from it."""
    return value == 0 if isinstance(value, Fraction) else _size(value.pair) <= value.error + 1


def _real(ball):
    refuse_if(ball.pair[1] != libmp.fzero, "not real")
    return ball.pair[0]


def sign_of(value):
    if isinstance(value, Fraction):
        return (value > 0) - (value < 0)
    if _is_zero(value):
        return 0
    return -1 if _real(value)[0] else 1


def agree(one, other, precision):
    """Whether two values are indistinguishable, though both are known to a third of the digits or better."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other = _ball(one, precision), _ball(other, precision)
    error, size = max(one.error, other.error), max(_size(one.pair), _size(other.pair))
    refuse_if(error > max(size, 0) - precision // 3, "known too badly")
    return _size(libmp.mpc_sub(one.pair, other.pair, precision, "n")) <= error + 2


def _bits(fraction):
    return max(fraction.numerator.bit_length(), fraction.denominator.bit_length())


# mpmath caches constants in two steps that threads could mix up: asked once for more bits than will ever be needed, the
# cache is only read from then on
for _constant_of in libmp.mpf_pi, libmp.mpf_e, libmp.mpf_ln2, libmp.mpf_ln10:
    _constant_of(2 * MORE_PRECISION)
