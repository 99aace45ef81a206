"""Boxes: the box that a completion states, and how far two boxes overlap.

Completions are hostile text: only their end is read, every pattern is linear, and no JSON is parsed.
"""

import re

from grader.extraction import find_answer, own_text

KINDS = ("one", "several", "unordered", "none")
Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_BRACKET = re.compile(r"[(\[{]([-+.0-9,;\s]*)[)\]}]")  # an innermost one, with numbers only
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})")  # so areas neither overflow nor vanish
_BETWEEN_NUMBERS = re.compile(r"\s*[,;]\s*|\s+")
_BETWEEN_CORNERS = re.compile(r"(?:[\s,;$-]|and|to)*")
_LATEX = re.compile(r"\\(?:left|right)?")
_TOKEN = re.compile(r"<\|?/?[a-z_]+\|?>")  # <box>, <|box_start|>


def find_box(text: str) -> tuple[str, Box | None]:
    """Which of KINDS a completion states, and its box, in the text's own units; (kind, None) if it is not "one".

    A box is two corners, `(x1,y1),(x2,y2)`, or four numbers, `[x1, y1, x2, y2]`, in any brackets and any JSON around
    them, or all of the answer without brackets. It is looked for in the answer that `find_answer` finds, and if none is
    there, in all that may contain an answer (`own_text`): behind the thoughts, inside `<answer>`.

    one        the only box there; repeating it changes nothing
    several    different boxes, or more than two corners in a row
    unordered  not x1 < x2 and y1 < y2: swapped corners, or without an area
    none       no box. What is not a plain decimal of at most 20 digits is no coordinate: NaN, 1e400, 10%
    """
    boxes = _stated(find_answer(text)[1] or "") or _stated(own_text(text)[0])
    if len(boxes) != 1:
        return "several" if boxes else "none", None
    x1, y1, x2, y2 = boxes.pop()
    return ("one", (x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else ("unordered", None)


def _stated(text):
    """The different boxes of a text; more than two corners in a row are more than one."""
    text = _LATEX.sub("", text).replace("−", "-")
    boxes, corners, last = set(), [], None  # corners: runs of corners with only separators between them
    for bracket in _BRACKET.finditer(text):
        numbers = _numbers(bracket[1])
        if len(numbers) == 4:
            boxes.add(numbers)
        elif len(numbers) == 2 and last is not None and _BETWEEN_CORNERS.fullmatch(text, last, bracket.start()):
            corners[-1] += numbers
        elif len(numbers) == 2:
            corners.append(numbers)
        last = bracket.end() if len(numbers) == 2 else None
    for run in corners:
        boxes |= {run[i : i + 4] for i in range(0, len(run), 4)} if len(run) > 2 else set()
    bare = _numbers(_TOKEN.sub(" ", text)) if not boxes else ()
    return {bare} if len(bare) == 4 else boxes


def _numbers(text):
    """The numbers that are all of a text, or () if anything else is there."""
    numbers = _BETWEEN_NUMBERS.split(text.strip(" \t\r\n.*$`"))
    return tuple(map(float, numbers)) if all(map(_NUMBER.fullmatch, numbers)) else ()


def overlap(box: Box, other: Box) -> float:
    """The intersection over the union of two ordered boxes in the same units, in [0, 1]."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = box, other
    shared = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
    return min(1.0, shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared))
