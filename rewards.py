"""Verifiers: text in, number out.

One completion goes through `extract_answer` and `accuracy`, which leaves equality to answers.py; a batch through
`parse_rewards` and `score`. Completions are hostile text: scans are linear and bounded, and nothing is evaluated.
"""

import importlib.util
import math
import re
import sys
from pathlib import Path

from answers import is_equiv

MAX_COMPLETION = 20_000  # characters read, from the end

# ---------------------------------------------------------------- the answer of a completion

_COMMENT = re.compile(r"^[ \t]*%.*$", re.MULTILINE)
_BRACE_OR_BOX = re.compile(r"\\[{}]|[{}]|\\(?:boxed|fbox)\s*\{")
_BOX_SEPARATOR = re.compile(r"(?:[\s,;$]|\\[()]|\\q?quad|\\text\{ ?(?:and|or) ?\}|(?:and|or)\b)*")
_ANSWER_MARK = re.compile(r"####|answer[*_ ]*(?:is\b|:)[:*\s]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.\s|\.?$|\n", re.MULTILINE)


def extract_answer(completion: str) -> str | None:
    """The answer that a completion submits, as it is written there, or None.

    Only what follows the last `</think>` counts (an unclosed `<think>` has no answer), and of that the inside of the
    last `<answer>…</answer>`, if there is one. There: the last `\\boxed{}` or `\\fbox{}`; boxes joined by nothing but
    separators are one list; an empty or unclosed last box is no answer. Without a box: the last of `#### x`, `the
    answer is x`, `Answer: x` (bold or not), up to the end of the line or sentence; else the whole answer block. The
    last number is never guessed at: that would pay for truncated text.
    """
    thought_end = completion.rfind("</think>")
    if completion.find("<think>", max(thought_end, 0)) >= 0:
        return None
    text = completion[thought_end + len("</think>") :] if thought_end >= 0 else completion

    block_end = text.rfind("</answer>")
    block_start = text.rfind("<answer>", 0, max(block_end, 0))
    in_block = block_start >= 0
    if in_block:
        text = text[block_start + len("<answer>") : block_end]

    text = _COMMENT.sub("", text[-MAX_COMPLETION:])
    boxes, unclosed = _boxes(text)
    if boxes or unclosed:
        return None if unclosed else _last_boxes(text, boxes)

    marks = list(_ANSWER_MARK.finditer(text))
    if marks:
        start = marks[-1].end()
        text = text[start:].lstrip()
        text = text[: _SENTENCE_END.search(text).start()]
    elif not in_block:
        return None
    return text.strip("* \t\r\n") or None


def _boxes(text):
    """The outermost complete boxes as (start, start and end of the inside), and whether a later one is not closed."""
    opened, boxes = [], []
    for mark in _BRACE_OR_BOX.finditer(text):
        token = mark[0]
        if token == "{" or token[1:2] in ("b", "f"):
            opened.append((mark.start(), mark.end(), token != "{"))
        elif token == "}" and opened:
            start, inside, is_box = opened.pop()
            while is_box and boxes and boxes[-1][0] > start:  # it was within this one
                boxes.pop()
            if is_box:
                boxes.append((start, inside, mark.start()))
    last = boxes[-1][0] if boxes else -1
    return boxes, any(is_box and start > last for start, _, is_box in opened)


def _last_boxes(text, boxes):
    """The inside of the last box, or of all the boxes at the end that only separators join, as one list."""
    first = len(boxes) - 1
    while first > 0 and _BOX_SEPARATOR.fullmatch(text, boxes[first - 1][2] + 1, boxes[first][0]):
        first -= 1
    insides = [text[inside:end].strip() for _, inside, end in boxes[first:]]
    return ", ".join(dict.fromkeys(insides)) if insides[-1] else None  # the same box said twice is one answer


# ---------------------------------------------------------------- rewards of one completion


def accuracy(completion: str, answer: str) -> float:
    """1.0 if the completion submits the answer, else 0.0.

    `answer` is a bare expression, or a worked solution whose last box, `####` or answer block counts. A gold from
    which nothing can be read, and a completion without an answer, are 0.0, never a gift. Never raises on text.
    """
    worked = any(mark in answer for mark in (r"\boxed", r"\fbox", "####", "</answer>"))
    gold = extract_answer(answer) if worked else answer
    candidate = extract_answer(completion)
    return float(bool(gold) and bool(candidate) and is_equiv(candidate, gold))


def format_reward(completion: str) -> float:
    """1.0 if the whole completion is `<think>…</think>`, then `<answer>…</answer>`, each tag exactly once, else 0.0.

    Whitespace may stand around and between the two. A template may have put the opening `<think>` into the prompt, so a
    completion that begins inside of it, without that tag, is as good. Otherwise than in the released code, text after
    `</answer>` is refused (MULTILINE let `$` match before it), no line breaks are demanded, a final one costs nothing,
    and repeated tags are refused (a lazy `.*?` ran over them).
    """
    thought, thought_end, rest = completion.strip().removeprefix("<think>").partition("</think>")
    rest = rest.strip()
    if not (thought_end and rest.startswith("<answer>") and rest.endswith("</answer>")):
        return 0.0
    inside = thought + rest[len("<answer>") : -len("</answer>")]
    return float(not any(tag in inside for tag in ("<think>", "</think>", "<answer>", "</answer>")))


# ---------------------------------------------------------------- rewards of a batch


def _accuracy_rewards(completions, answer, **_):
    return [accuracy(completion, gold) for completion, gold in zip(completions, answer, strict=True)]


def _format_rewards(completions, **_):
    return [format_reward(completion) for completion in completions]


_BUILT_IN = {"accuracy": _accuracy_rewards, "format": _format_rewards}


def parse_rewards(spec: str) -> list:
    """`accuracy=1.0,format=0.5,path/to/file.py:function=2` as [(name, function, weight)]; a weight left out is 1.

    Every function, built in or the user's, is called as TRL calls its own, by keyword: f(prompts, completions,
    completion_ids, **columns) -> list of numbers, or None where a sample cannot be scored; columns are lists, one entry
    a completion. A user's reward goes by its function's name. A negative weight makes a penalty, 0 only logs.
    ValueError, in one line, for whatever cannot be used.
    """
    rewards = []
    for entry in spec.split(","):
        source, equals, weight = entry.strip().partition("=")
        source = source.strip()
        path, colon, function_name = source.rpartition(":")
        name = function_name if colon else source
        known = f"use {', '.join(_BUILT_IN)} or path/to/file.py:function, with =WEIGHT if not 1"
        if not colon and name not in _BUILT_IN:
            raise ValueError(f"reward {name!r} is unknown: {known}")
        if name in [other for other, _, _ in rewards]:
            raise ValueError(f"reward {name!r} is given twice: name each once; {known}")
        try:
            number = float(weight) if equals else 1.0
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"reward {name!r} has the weight {weight.strip()!r}, not a finite number: {known}")
        rewards.append((name, _load(path, name, known) if colon else _BUILT_IN[name], number))
    return rewards


def _load(path, name, known):
    """The function of that name in the user's Python file."""
    if not Path(path).is_file():
        raise ValueError(f"reward file {path!r} does not exist: {known}")
    module_name = f"rewards_of_{Path(path).stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None:
        raise ValueError(f"reward file {path!r} is not a Python file: {known}")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # as the import system does: dataclasses look there
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"reward file {path!r} cannot be imported: {_one_line(error)}; {known}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"reward file {path!r} has no function {name!r}: {known}")
    return function


def score(rewards, prompts, completions, completion_ids, columns, *, shown=None) -> dict:
    """What the rewards of `parse_rewards` give to a batch of B completions:

    total    B weighted sums; None where any reward is None: that sample cannot be scored
    by_name  {name: B numbers or None}, without the weights
    errors   how often a reward raised on a sample: that one gets 0 from it, the others what they would have got

    A reward's first error is shown on stderr, and not again if the caller passes the same set as `shown` each time: it
    holds the names that have been. ValueError if a reward returns anything but B finite numbers or None.
    """
    shown = set() if shown is None else shown
    by_name, errors = {}, 0
    for name, function, _ in rewards:
        batch = {**columns, "prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        by_name[name], failures = _call(name, function, batch)
        errors += sum(index is not None for index, _ in failures)
        if failures and name not in shown:
            shown.add(name)
            index, error = failures[0]
            where = "a whole batch" if index is None else f"the completion {completions[index][:80]!r}, which scores 0"
            print(
                f"reward {name!r} raised {_one_line(error)} on {where}; further errors are only counted",
                file=sys.stderr,
            )

    weights = [weight for _, _, weight in rewards]
    total = []
    for values in zip(*by_name.values(), strict=True):
        scorable = all(value is not None for value in values)
        total.append(
            math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) if scorable else None
        )
    return {"total": total, "by_name": by_name, "errors": errors}


def _call(name, function, batch, first=0):
    """A reward's B values, and [(index, error)] of the samples on which it raised; `first` is the index of the first.

    If the batch raises, each sample is tried alone, so that one bad completion costs only itself; if then none raises,
    the failures are [(None, the batch's error)].
    """
    size = len(batch["completions"])
    if size == 0:
        return [], []
    try:
        returned = function(**batch)
    except Exception as error:
        if size == 1:
            return [0.0], [(first, error)]
        batch_error = error
    else:
        return _checked(name, returned, size, first), []

    values, failures = [], []
    for i in range(size):
        value, failure = _call(name, function, {key: column[i : i + 1] for key, column in batch.items()}, first + i)
        values += value
        failures += failure
    return values, failures or [(None, batch_error)]


def _checked(name, returned, size, first):
    """What a reward returned, as `size` floats or None; numpy's and torch's scalars are numbers."""
    try:
        values = list(returned)
    except TypeError:
        values = None
    if values is None or len(values) != size:
        what = type(returned).__name__ if values is None else f"{len(values)} values"
        raise ValueError(
            f"reward {name!r} returned {what} for {size} completions: return a list of one number or None each"
        )
    for i, value in enumerate(values):
        if value is None:
            continue
        try:
            values[i] = float(value) if hasattr(value, "__float__") else None
        except (TypeError, ValueError, RuntimeError):  # an array of several numbers has a __float__ too
            values[i] = None
        if values[i] is None or not math.isfinite(values[i]):
            raise ValueError(
                f"reward {name!r} returned {repr(value)[:80]} for sample {first + i}: return a finite number or None"
            )
    return values


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
