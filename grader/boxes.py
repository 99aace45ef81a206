"""What an answer says of a picture: a box, or a name. The text is hostile: bounded, and every pattern is linear."""

import re

from grader.extraction import find_answer, own_text

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_N = r"\s*([-+]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))\s*"
_BOX = re.compile(rf"\({_N},{_N}\)\s*,?\s*\({_N},{_N}\)|[\[(]{_N},{_N},{_N},{_N}[\])]")  # (1,2),(3,4) or [1, 2, 3, 4]
MAX_NAME = 80  # characters of a completion that is a name and nothing else


def find_box(completion: str) -> Box | None:
    """The one box that a completion submits: after its thoughts, inside its last <answer> block if there is one.

    The same box twice is one; two different ones are none, as is a box in the thoughts alone.
    """
    found = {tuple(float(x) for x in match.groups() if x) for match in _BOX.finditer(own_text(completion)[-4000:])}
    return found.pop() if len(found) == 1 else None


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]. Corners that are not in order, and boxes without an area, have none."""
    if not all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in (a, b)):
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - shared)


def rescaled(box: Box, size: tuple[float, float] | None) -> Box:
    """The box in shares of its scale's width and height; unchanged without a size."""
    width, height = size or (1.0, 1.0)
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def same_name(completion: str, answer: str) -> bool:
    """Whether a completion submits the whole name, whatever its case, spaces, `_` and `-`."""
    text = own_text(completion).strip()
    submitted = find_answer(completion)[1] or (text if len(text) <= MAX_NAME and "\n" not in text else "")
    gold = find_answer(answer)[1] or answer if "<answer>" in answer else answer
    return plain_name(submitted) == plain_name(gold) != ""


def plain_name(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .!\"'`*")
