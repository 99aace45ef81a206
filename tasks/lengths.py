"""Sums whose completions differ fourfold in length, `train.py --model tiny-lengths`: what `norm` is about.

The task and the model of addition.py, with operands of 2 to 4 digits, and demonstrations that ramble: after the answer
come up to RAMBLE dots, by chance, whether it is right or not. So lengths differ within a group, and a method that
prefers long or short completions, where they are right or where they are wrong, shows it.
"""

import random
from functools import partial
from pathlib import Path

from tasks import addition
from tasks.addition import make_config, make_tokenizer, solution

__all__ = ["FLAW", "ensure", "make_config", "make_tokenizer", "problems", "solution"]

DIGITS, LEVELS = (2, 3, 4), addition.LEVELS  # of both operands; numbers of carries
RAMBLE = 40  # dots at most, uniformly
FLAW = f"{addition.FLAW}, and then write up to {RAMBLE} dots"


def problems(split: str) -> list[dict]:
    """Rows as addition.problems has them, and "kind", the number of digits."""
    rows = addition.problems(split, "tiny-lengths", DIGITS, LEVELS)
    return [row | {"kind": f"{row['problem'].index('+')} digits"} for row in rows]


def demonstration(problem: str, rng: random.Random) -> str:
    """A flawed answer, as addition's, and dots."""
    return addition.demonstration(problem, rng) + "." * rng.randrange(RAMBLE + 1)


def ensure(seed: int, cache: str | Path | None = None) -> Path:
    """The folder of the warmed-up model of this seed, which is made if missing; see addition.cached."""
    build = partial(addition.build, problems=problems, demonstrate=demonstration)
    return addition.cached([__file__, addition.__file__], build, FLAW, seed, cache)
