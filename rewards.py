"""Rewards: the text of a completion in, a number out.

First the rewards of one completion (grader/ decides whether an answer is right), then those of a batch: `parse_rewards`
reads the --rewards flag, and `score` applies its functions.
"""

import asyncio
import importlib.util
import inspect
import math
import re
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import wraps
from pathlib import Path

from grader.boxes import KINDS, find_box, overlap
from grader.equality import is_equiv as is_equiv  # importable from here too
from grader.equality import is_parsed
from grader.extraction import RULES, extract_gold, find_answer, is_right, own_text
from grader.extraction import extract_answer as extract_answer
from grader.reading import MAX_EXPRESSION, read
from grader.workers import Grader

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def accuracy(completion: str, answer: str) -> float:
    """1.0 if the completion submits the gold `answer`, else 0.0. Never raises on text; see grader/extraction.py."""
    return float(is_right(completion, answer))


def accuracy_boxed(completion: str, answer: str) -> float:
    """`accuracy` for a model that learns to exploit prose: only a box, an answer block or `####` counts."""
    return float(is_right(completion, answer, prose=False))


def num_as_text(answers: list[str]) -> int:
    """How many of a data set's answers the grader cannot parse: these only match the same normalised text."""
    return sum(n for answer, n in Counter(answers).items() if not is_parsed(extract_gold(answer)))


def format_reward(completion: str) -> float:
    """1.0 if the whole completion is `<think>…</think>` then `<answer>…</answer>`, each tag exactly once, else 0.0.

    Whitespace around the two is ignored, and `<think>` may be missing: a chat template may put it into the prompt. The
    released code also requires line breaks, and accepts text after `</answer>` and repeated tags.
    """
    thought, thought_end, rest = completion.strip().removeprefix("<think>").partition("</think>")
    rest = rest.strip()
    if not (thought_end and rest.startswith("<answer>") and rest.endswith("</answer>")):
        return 0.0
    inside = thought + rest[len("<answer>") : -len("</answer>")]
    return float(not any(tag in inside for tag in _TAGS))


def tag_count(completion: str) -> float:
    """A quarter for each tag of `format_reward` that occurs exactly once, in any order: partial credit towards it.

    As in open-r1, but without line breaks. A missing `<think>` counts if `</think>` occurs once.
    """
    counts = [completion.count(tag) for tag in _TAGS]
    counts[0] = counts[0] or counts[1]
    return sum(count == 1 for count in counts) / 4


def cosine(right: bool, num_tokens: int, max_tokens: int) -> float:
    """Prefers short right answers and long wrong ones: half a cosine wave over the length, clamped at max_tokens.

    Right: from 1 down to 0.5. Wrong: from -0.5 up to 0; the released code lowers it instead, unlike its description.
    """
    wave = (1 + math.cos(math.pi * min(1.0, num_tokens / max_tokens))) / 2  # 1 -> 0
    return 0.5 + 0.5 * wave if right else -0.5 * wave


def choice(completion: str, answer: str) -> float:
    """1.0 if both are the same single letter from A to J, else 0.0.

    It is alone, in brackets, or set off from the text that follows: `C`, `(C)`, `\\text{C}`, `C. 42`, `(C) 42`.
    """
    letter = _letter(find_answer(completion)[1] or "")
    return float(letter != "" and letter == _letter(extract_gold(answer)))


def _letter(answer):
    return read(answer[:MAX_EXPRESSION]).choice


def class_name(completion: str, answer: str) -> float:
    """1.0 if the completion's answer, or an unmarked one's whole text, is the name `answer`, else 0.0.

    Case, spaces, `_`, `-`, a leading article and a final full stop do not count.
    """
    name = _name(find_answer(completion)[1] or own_text(completion)[0])
    return float(name != "" and name == _name(extract_gold(answer)))


def _name(text):
    bare = re.sub(r"\\(?:text|math)[a-z]*|[\\{}$*\"`]", "", text[:500].replace("’", "'")).strip(" .\t\r\n").casefold()
    return re.sub(r"[\s_‐-―−-]", "", re.sub(r"^(?:an?|the)\s+(?=[a-z])", "", bare))  # the A of A 380 is no article


def choice_or_name(completion: str, answer: str) -> float:
    """1.0 if the completion's answer is the letter of the option `answer`, as `(A) left`, or all of its text, else 0.0.

    As CV-Bench is graded, after training on answers in words.
    """
    letter = _letter(find_answer(completion)[1] or own_text(completion)[0])
    return float(letter != "" and letter == _letter(answer)) or class_name(completion, answer.partition(" ")[2])


def iou(completion: str, answer: str) -> float:
    """Intersection over union of the completion's box and the gold's, in [0, 1]; 0.0 if either is not exactly one box.

    Both in the model's units (tasks.pictures.in_model_units); the gold may be a list. A box: see grader/boxes.py.
    """
    boxes = [find_box(completion)[1], find_box(str(answer))[1]]
    return 0.0 if None in boxes else overlap(*boxes)


def iou_or_name(completion: str, answer: str) -> float:
    """`iou` if the answer is a box, else `class_name`: for problems of both kinds."""
    return (iou if find_box(str(answer))[1] else class_name)(completion, answer)


class _Graded:
    """A reward that compares answers, and counts those found by each of RULES and the comparisons given up."""

    def __init__(self, grader: Grader, *, prose: bool = True, max_tokens: int | None = None):
        self.grader, self.prose, self.max_tokens = grader, prose, max_tokens
        self.counts = Counter(dict.fromkeys((*RULES, "given_up"), 0))

    def __call__(self, completions, completion_ids, answer, **_):
        found = [find_answer(completion, prose=self.prose) for completion in completions]
        pairs = [(text, extract_gold(gold)) for (_, text), gold in zip(found, answer, strict=True)]
        to_compare = [pair for pair in pairs if all(pair)]
        given_up = self.grader.num_given_up
        verdicts = dict(zip(to_compare, self.grader.verdicts(to_compare), strict=True))
        self.counts.update(rule for rule, _ in found)
        self.counts["given_up"] += self.grader.num_given_up - given_up
        right = [float(verdicts.get(pair, False)) for pair in pairs]
        if self.max_tokens is None:
            return right
        return [cosine(*each, self.max_tokens) for each in zip(right, map(len, completion_ids), strict=True)]


class _Boxes:
    """`iou`, or whether it is above a threshold; counts the completions of each of KINDS."""

    def __init__(self, threshold: float | None = None):
        self.threshold = threshold
        self.counts = Counter({f"box/{kind}": 0 for kind in KINDS})

    def __call__(self, completions, answer, **_):
        values = [iou(*pair) for pair in zip(completions, answer, strict=True)]
        self.counts.update(f"box/{find_box(completion)[0]}" for completion in completions)
        return values if self.threshold is None else [float(value > self.threshold) for value in values]


def _each(reward: Callable[..., float], *columns: str) -> Callable:
    return lambda **batch: [reward(*row) for row in zip(*(batch[name] for name in columns), strict=True)]


_BUILT_IN = {  # name -> (grader, max_tokens) -> reward
    "accuracy": lambda grader, _: _Graded(grader),
    "format": lambda *_: _each(format_reward, "completions"),
    "accuracy_boxed": lambda grader, _: _Graded(grader, prose=False),
    "tag_count": lambda *_: _each(tag_count, "completions"),
    "cosine": lambda grader, max_tokens: _Graded(grader, max_tokens=max_tokens),
    "choice": lambda *_: _each(choice, "completions", "answer"),
    "class_name": lambda *_: _each(class_name, "completions", "answer"),
    "iou": lambda *_: _Boxes(),
    "iou_or_name": lambda *_: _each(iou_or_name, "completions", "answer"),
}
_KNOWN = f"use {', '.join(_BUILT_IN)}, iou>0.5 or path/to/file.py:function, with =WEIGHT if not 1"
_THRESHOLD = re.compile(r"iou>(0?\.[0-9]*[1-9][0-9]*)")
Rewards = list[tuple[str, Callable, float]]  # name, function, weight


def parse_rewards(spec: str, max_tokens: int = 2048) -> Rewards:
    """Parses `accuracy=1.0,format=0.5,path/to/file.py:function=2`. The default weight is 1, 0 only logs, < 0 penalises.

    Every function is called by keyword, as in TRL: f(prompts, completions, completion_ids, **columns) -> list of
    numbers, or None where a sample cannot be scored; a column has one entry per completion. A user's reward is named
    after its function. `cosine` ends at max_tokens. ValueError if unusable.
    """
    rewards, grader, modules = [], Grader(), {}
    for entry in spec.split(","):
        source, equals, weight = (part.strip() for part in entry.partition("="))
        path, colon, name = source.rpartition(":")  # without a colon, all of it is the name
        threshold = _THRESHOLD.fullmatch(name)
        if not colon and name not in _BUILT_IN and not threshold:
            raise ValueError(f"reward {name!r} is unknown: {_KNOWN}")
        if name in [other for other, _, _ in rewards]:
            raise ValueError(f"reward {name!r} is given twice: name each once; {_KNOWN}")
        number = _number(weight) if equals else 1.0
        if not math.isfinite(number):
            raise ValueError(f"reward {name!r} has the weight {weight!r}, not a finite number: {_KNOWN}")
        if colon:
            function = _load(path, name, modules)
        else:
            function = _Boxes(float(threshold[1])) if threshold else _BUILT_IN[name](grader, max_tokens)
        rewards.append((name, function, number))
    return rewards


def compares_answers(rewards: Rewards) -> bool:
    """Whether any of the rewards needs gold answers that the grader can parse."""
    return any(isinstance(function, _Graded) for _, function, _ in rewards)


def check_columns(rewards: Rewards, columns: Iterable[str]) -> None:
    """ValueError: a reward can't be called with these columns of the data."""
    keywords = dict.fromkeys(["prompts", "completions", "completion_ids", *columns])
    for name, function, _ in rewards:
        try:
            inspect.signature(function).bind(**keywords)
        except TypeError as error:
            raise ValueError(f"reward {name!r} gets {', '.join(keywords)}: {error}; add **columns") from None


def source_of(function: Callable) -> str | None:
    """The file of a user's reward; of another function, that of its module."""
    return getattr(function, "source", None) or getattr(sys.modules.get(function.__module__), "__file__", None)


def _module(path: str):
    """The user's Python file as a module. It may import files beside it."""
    if not Path(path).is_file():
        raise ValueError(f"reward file {path!r} does not exist: {_KNOWN}")
    file = Path(path).resolve()
    name = f"rewards_of_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ValueError(f"reward file {path!r} is not a Python file: {_KNOWN}")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # there dataclasses look
    sys.path.append(str(file.parent))  # last: a file there must not hide a package
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"reward file {path!r}: {_one_line(error, module.__file__)}; {_KNOWN}") from error
    return module


def _load(path: str, name: str, modules: dict) -> Callable:
    """The function of that name in the user's Python file. modules: {whole path: module} of the files before it."""
    file = Path(path).resolve()
    others = {each.parent for each in modules} - {file.parent}
    for name_of, loaded in list(sys.modules.items()):
        twin = Path(str(getattr(loaded, "__file__", "")))
        if twin.parent in others and name_of == twin.stem and (file.parent / twin.name).exists():  # no reward's own
            raise ValueError(f"reward file {path!r}: {twin.name} beside it is {twin} already; rename one")
    modules[file] = module = modules[file] if file in modules else _module(path)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"reward file {path!r} has no function {name!r}: {_KNOWN}")
    is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
    call = (lambda **batch: asyncio.run(function(**batch))) if is_async else function

    def own(**batch):  # what it changes is its own; ids are many, and only numbers: a copy of their lists is enough
        kinds = {name: list if name in ("completion_ids", "prompt_ids") else deepcopy for name in batch}
        return call(**{name: list(map(kinds[name], x)) for name, x in batch.items()})

    wraps(function)(own).source = module.__file__
    return own


def score(rewards: Rewards, prompts, completions, completion_ids, columns: dict[str, list], *, shown=None) -> dict:
    """Scores a batch of B completions:

    total    B weighted sums; None where a reward with a weight is None: that sample cannot be scored
    by_name  {name: B numbers or None}, unweighted
    errors   on how many samples a reward raised: it counts as 0 on these alone
    failed   {name: its error} of the rewards that raised on every sample
    counts   {one of RULES: answers found, "given_up": comparisons}, {"box/" + one of KINDS: completions}; see _counts

    A reward's first error is printed on stderr; `shown` holds the names of rewards whose error was printed, so pass the
    same set each time. ValueError: it returns other than B finite numbers or None.
    """
    batch = {**columns, "prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    shown = set() if shown is None else shown
    by_name, errors, failed, before = {}, 0, {}, _counts(rewards)
    for name, function, _ in rewards:
        by_name[name], failures = _call(name, function, batch)
        if not failures:
            continue
        index, error = failures[0]
        what = _one_line(error, source_of(function))
        errors += len(failures) * (index is not None)
        if len(failures) == len(completions):
            failed[name] = what
        if name not in shown:
            shown.add(name)
            where = "a whole batch" if index is None else f"the completion {completions[index][:80]!r}, which scores 0"
            print(f"reward {name!r} raised {what} on {where}; further errors are only counted", file=sys.stderr)
    total = []
    for values in zip(*by_name.values(), strict=True):
        parts = [(w, value) for (_, _, w), value in zip(rewards, values, strict=True) if w]  # of weight 0: only logged
        total.append(None if any(x is None for _, x in parts) else math.fsum(w * x for w, x in parts))
    counts = {key: count - before[key] for key, count in _counts(rewards).items()}
    return {"total": total, "by_name": by_name, "errors": errors, "failed": failed, "counts": counts}


def _counts(rewards):
    """The counts, since the start, of all rewards that compare answers or boxes; `__wrapped__` within a time limit."""
    counts = Counter()
    for _, function, _ in rewards:
        function = getattr(function, "__wrapped__", function)
        if isinstance(function, (_Graded, _Boxes)):
            counts.update(function.counts)
    return counts


def _call(name, function, batch, first=0):
    """A reward's B values, and [(index, error)] for the samples on which it raised; sample indices start at `first`.

    If the batch raises, each sample is tried alone, so that one bad completion costs only itself; if each alone
    succeeds, the failures are [(None, the batch's error)].
    """
    if not (size := len(batch["completions"])):
        return [], []
    try:
        returned = function(**batch)
    except (Exception, SystemExit) as error:
        if size == 1:
            return [0.0], [(first, error)]
        batch_error = error
    else:
        return _checked(name, returned, size, first), []
    rows = [{key: column[i : i + 1] for key, column in batch.items()} for i in range(size)]
    tried = [_call(name, function, row, first + i) for i, row in enumerate(rows)]
    failures = [failure for _, failed in tried for failure in failed]
    return [value for (value,), _ in tried], failures or [(None, batch_error)]


def _checked(name, returned, size, first):
    """What a reward returned, as `size` floats or None; numpy's and torch's scalars are numbers."""
    try:
        values = list(returned)
    except TypeError:
        values = None
    if values is None or len(values) != size:
        what = f"{type(returned).__name__ if values is None else f'{len(values)} values'} for {size} completions"
        raise ValueError(f"reward {name!r} returned {what}: return a list of one number or None each")
    for i, value in enumerate(values):
        if value is not None:  # text is no number, though float reads it
            values[i] = _number(value) if hasattr(value, "__float__") else math.nan
            if not math.isfinite(values[i]):
                what = f"{repr(value)[:80]} for sample {first + i}"
                raise ValueError(f"reward {name!r} returned {what}: return a finite number or None")
    return values


def _number(value):
    try:
        return float(value)
    except (ArithmeticError, TypeError, ValueError, RuntimeError):  # 10**400; an array of several numbers
        return math.nan


def _one_line(error, file=None):
    """What was raised, and where in the user's file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" ({file}, line {lines[-1]})" if lines else ""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200] + place
