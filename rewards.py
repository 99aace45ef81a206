"""Verifiers: text in, number out.

    python rewards.py "\\frac{1}{2}" "0.5"     the verdict on a candidate and an answer, and the rule that decided
    python rewards.py --file cases.jsonl      how often the grader is right on labelled rows, and how long it takes

One completion goes through `accuracy`, which leaves to grader/extraction.py what it submits and to grader/equality.py whether that is
right; a batch goes through `parse_rewards` and `score`, and its comparisons through grader/workers.py.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

from grader.equality import compare, is_equiv, is_parsed
from grader.extraction import RULES, extract_answer, find_answer
from grader.workers import Grader

# ---------------------------------------------------------------- rewards of one completion


def accuracy(completion: str, answer: str) -> float:
    """1.0 if the completion submits the answer, as `find_answer` reads it, else 0.0. Never raises on text.

    `answer` is a bare expression, or a worked solution whose last box, `####` or answer block counts. One that cannot
    be parsed is compared as text, and one from which nothing can be read is 0.0: never a gift.
    """
    return _is_right(find_answer(completion)[1], _gold(answer))


def accuracy_boxed(completion: str, answer: str) -> float:
    """`accuracy` for a model that learns to exploit prose: only a box, an answer block or `####` counts."""
    return _is_right(find_answer(completion, prose=False)[1], _gold(answer))


def _is_right(candidate, gold):
    return float(bool(gold) and bool(candidate) and is_equiv(candidate, gold))


def _gold(answer):
    worked = any(mark in answer for mark in (r"\boxed", r"\fbox", "####", "</answer>"))
    return (extract_answer(answer) if worked else answer.strip()) or ""


def num_as_text(answers: list[str]) -> int:
    """How many of a data set's answers the grader cannot parse: only the same text, normalised, equals them."""
    return sum(n for answer, n in Counter(answers).items() if not is_parsed(_gold(answer)))


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


def tag_count(completion: str) -> float:
    """A quarter for each of `<think>`, `</think>`, `<answer>`, `</answer>` that is there exactly once: partial credit
    on the way to `format_reward`.

    As open-r1's tag_count_reward, which the paper does not use, but without its line breaks around the tags. An absent
    `<think>` counts if `</think>` is there once, as a template may have put it into the prompt. Order is not looked at.
    """
    counts = [completion.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")]
    counts[0] = counts[0] or counts[1]
    return sum(count == 1 for count in counts) / 4


def cosine(right: bool, num_tokens: int, max_tokens: int) -> float:
    """A reward for short right answers and long wrong ones: half a cosine wave over the length, clamped at max_tokens.

    Right: 1 at no token, 0.5 at max_tokens or more. Wrong: -0.5, rising to 0. The values are those of the released
    1.5B recipe (not in the paper). Its code counts characters, 1000 of them, instead of tokens; is periodic, so that
    2000 characters earn what none would; and makes a longer wrong answer worse, against its own description.
    """
    progress = min(1.0, num_tokens / max_tokens)
    wave = (1 + math.cos(math.pi * progress)) / 2  # 1 -> 0
    return 0.5 + 0.5 * wave if right else -0.5 * wave


def choice(completion: str, answer: str) -> float:
    """1.0 if both are the same letter from A to J, else 0.0, also where the answer is no letter.

    A letter stands alone, in brackets, or before a text that is set off from it: `C`, `(C)`, `\\text{C}`, `C. 42`,
    `(C) 42`. A letter within a word is none, and more than one is none.
    """
    letter = _letter(find_answer(completion)[1] or "")
    return float(letter != "" and letter == _letter(_gold(answer)))


_LETTER = re.compile(  # the text behind it names no other
    r"[A-Ja-j]|\([A-Ja-j]\)|(?:\([A-J]\)|[A-J][.:)])\s+(?!or\b|and\b|[A-J]\b|.*\([A-J]\)).*", re.DOTALL
)


def _letter(answer):
    bare = re.sub(r"\\(?:text|math|boxed)[a-z]* ?|[{}$*]|\\[()]", "", answer[:500])
    bare = re.sub(r"\\[ ,;:!]|~|\\q?quad", " ", bare).strip(" .\n")
    return bare.lstrip("(")[0].upper() if _LETTER.fullmatch(bare) else ""


# ---------------------------------------------------------------- rewards of a batch


class _Graded:
    """A reward that compares with the answer. `counts`, since the start: which of RULES found how many answers, and how
    many comparisons the grader gave up."""

    def __init__(self, grader, *, prose=True, cosine_end=None):
        self.grader, self.prose, self.cosine_end = grader, prose, cosine_end
        self.counts = Counter(dict.fromkeys((*RULES, "given_up"), 0))

    def __call__(self, completions, completion_ids, answer, **_):
        found = [find_answer(completion, prose=self.prose) for completion in completions]
        pairs = [(text, _gold(gold)) for (_, text), gold in zip(found, answer, strict=True)]
        given_up = self.grader.num_given_up
        asked = [pair for pair in pairs if all(pair)]
        verdicts = dict(zip(asked, self.grader.verdicts(asked), strict=True))
        self.counts.update(rule for rule, _ in found)
        self.counts["given_up"] += self.grader.num_given_up - given_up
        right = [verdicts.get(pair, False) for pair in pairs]
        if self.cosine_end is None:
            return [float(verdict) for verdict in right]
        return [cosine(*each, self.cosine_end) for each in zip(right, map(len, completion_ids), strict=True)]


def _of_text(reward):
    return lambda completions, **_: [reward(completion) for completion in completions]


def _choices(completions, answer, **_):
    return [choice(completion, gold) for completion, gold in zip(completions, answer, strict=True)]


# Name -> what makes the reward, of a Grader and of the most tokens of a completion.
_BUILT_IN = {
    "accuracy": lambda grader, _: _Graded(grader),
    "format": lambda *_: _of_text(format_reward),
    "accuracy_boxed": lambda grader, _: _Graded(grader, prose=False),
    "tag_count": lambda *_: _of_text(tag_count),
    "cosine": lambda grader, most: _Graded(grader, cosine_end=most),
    "choice": lambda *_: _choices,
}


def parse_rewards(spec: str, max_tokens: int = 2048) -> list:
    """`accuracy=1.0,format=0.5,path/to/file.py:function=2` as [(name, function, weight)]; a weight left out is 1.

    Every function, built in or the user's, is called as TRL calls its own, by keyword: f(prompts, completions,
    completion_ids, **columns) -> list of numbers, or None where a sample cannot be scored; columns are lists, one entry
    a completion. A user's reward goes by its function's name, and runs here, without a bound on its time. A negative
    weight makes a penalty, 0 only logs. max_tokens: of a completion, where `cosine` ends. ValueError, in one line, for
    whatever cannot be used.
    """
    rewards, grader = [], Grader()
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
        function = _load(path, name, known) if colon else _BUILT_IN[name](grader, max_tokens)
        rewards.append((name, function, number))
    return rewards


def compares_answers(rewards: list) -> bool:
    """Whether any of what `parse_rewards` returned needs golds that the grader can parse."""
    return any(isinstance(function, _Graded) for _, function, _ in rewards)


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
    counts   {one of RULES: answers that it found, "given_up": comparisons}; {} if no built-in reward compares answers

    A reward's first error is shown on stderr, and not again if the caller passes the same set as `shown` each time: it
    holds the names that have been. ValueError if a reward returns anything but B finite numbers or None.
    """
    shown = set() if shown is None else shown
    by_name, errors, counts, before = {}, 0, Counter(), Counter()
    for name, function, _ in rewards:
        if isinstance(function, _Graded):
            before.update(function.counts)
        batch = {**columns, "prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        by_name[name], failures = _call(name, function, batch)
        if isinstance(function, _Graded):
            counts.update(function.counts)
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
    return {
        "total": total,
        "by_name": by_name,
        "errors": errors,
        "counts": {key: counts[key] - before[key] for key in counts},
    }


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


# ---------------------------------------------------------------- the command

_ROW = "a row is an object with the texts gold and answer, or gold and completion, and expected, true or false"


def main(argv: list[str] | None = None) -> None:
    """The command; a mistake ends in one line, with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="rewards.py",
        usage="python rewards.py CANDIDATE ANSWER | --file FILE",
        description="Is the candidate equal to the answer? Or: how right is the grader on the labelled rows of a file?",
        allow_abbrev=False,
    )
    parser.error = _fail
    parser.add_argument("pair", nargs="*", metavar="CANDIDATE ANSWER", help="two expressions, LaTeX or plain text")
    parser.add_argument("--file", metavar="FILE", help=f"JSON lines: {_ROW}; kind, if there, groups the errors")
    args, unknown = parser.parse_known_args(argv)
    if args.file is not None and not args.pair and not unknown:
        try:
            rows = _labelled(args.file)
        except (OSError, ValueError) as error:
            _fail(f"--file {args.file}: {error}")
        print(_report(rows))
        return
    pair = [text for text in (sys.argv[1:] if argv is None else argv) if text != "--"]  # "-x" is an answer, no flag
    if args.file is not None or len(pair) != 2:
        _fail("give a candidate and an answer, each in quotes, or --file FILE with labelled rows")
    result = compare(*pair)
    print(f"{'equal' if result.equal else 'not equal'}, by the rule: {result.rule}")
    print(f"candidate  {pair[0]}  is  {result.candidate}\nanswer     {pair[1]}  is  {result.answer}")


def _fail(message):
    print(f"rewards.py: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _labelled(name):
    """The rows of a file as (line, kind, what judges, candidate, answer, expected verdict)."""
    rows = []
    with open(name, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append((number, *_labelled_row(number, line)))
    if not rows:
        raise ValueError(f"no rows; {_ROW}")
    return rows


def _labelled_row(number, line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON ({error}); {_ROW}") from None
    row = row if isinstance(row, dict) else {}
    attack = "why" in row and "expected" not in row  # is wrong, however it is submitted
    judge = accuracy if "completion" in row else _any_way if attack else is_equiv
    told, gold, expected = row.get("completion", row.get("answer")), row.get("gold"), row.get("expected", not attack)
    if not (isinstance(told, str) and isinstance(gold, str) and ("expected" in row or attack)):
        raise ValueError(f"line {number} has only {', '.join(row) or 'no columns'}; {_ROW}")
    if not isinstance(expected, bool):
        raise ValueError(f"line {number} has the expected verdict {expected!r:.60}; {_ROW}")
    return str(row.get("kind", row.get("why", "rows"))), judge, told, gold, expected


def _any_way(answer, gold):
    return is_equiv(answer, gold) or accuracy(rf"\boxed{{{answer}}}", gold) or accuracy(answer, gold)


def _report(rows):
    """What the grader says of labelled rows, as text: its errors, how many by kind, and the slowest rows."""
    lines, kinds, times = [], {}, []
    for number, kind, judge, told, gold, expected in rows:
        began = time.perf_counter()
        equal = bool(judge(told, gold))
        times.append((time.perf_counter() - began, number))
        counts = kinds.setdefault(kind, [0, 0, 0])
        counts[0] += 1
        if equal != expected:
            counts[1 if equal else 2] += 1
            lines.append(f"line {number}: {'accepts' if equal else 'refuses'} {told[-100:]!r} for {gold[:100]!r}")
    num_wrong = len(lines)
    lines += ["rows  false positives  false negatives  kind"]
    lines += [f"{n:4} {fp:16} {fn:16}  {kind:.70}" for kind, (n, fp, fn) in sorted(kinds.items())]
    times.sort(reverse=True)
    lines += ["slowest: " + ", ".join(f"{1000 * seconds:.1f} ms (line {number})" for seconds, number in times[:5])]
    lines += [f"median: {1000 * times[len(times) // 2][0]:.2f} ms"]
    return "\n".join([*lines, f"{100 * (1 - num_wrong / len(rows)):.1f} % of {len(rows)} rows right"])


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; what is left in the buffer must not be tried again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
