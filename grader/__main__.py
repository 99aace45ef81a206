r"""Is the candidate equal to the answer? Two expressions, in LaTeX or plain text; or the rows of a file.

- python -m grader "\frac{1}{2}" "0.5"     whether the candidate equals the answer, and which rule decided
- python -m grader --golds data.jsonl      how the grader reads the answers of a data set
- python -m grader --file cases.jsonl      how often the grader is right on labelled rows, and how long it takes

A file has a row in JSON on each line, or is one list of rows.
"""

import json
import os
import sys
import time

from grader.equality import compare, is_equiv
from grader.extraction import is_right, read_gold

_GOLDS = ("gold", "answer", "final_answer", "ground_truth", "solution")
_ROWS = {
    "--golds": f"a row is a text, or an object with one of {', '.join(_GOLDS)}",
    "--file": "a row is an object with the texts gold and answer, or gold and completion, and expected, true or false; "
    "an optional kind groups the errors",
}


def main(argv: list[str] | None = None) -> None:
    """The command; a mistake ends in one line, with exit code 2."""
    pair = [text for text in (sys.argv[1:] if argv is None else argv) if text != "--"]  # "-x" is an answer, no flag
    if pair in (["-h"], ["--help"]):
        print(__doc__, *(f"{flag}: {row}" for flag, row in _ROWS.items()), sep="\n")
    elif len(pair) != 2:
        _fail("give a candidate and an answer, each in quotes, or --golds FILE, or --file FILE with labelled rows")
    elif pair[0] in _ROWS:
        try:
            rows = _rows(pair[1])
            lines = _readings(rows) if pair[0] == "--golds" else _report([_labelled(*row) for row in rows])
        except (OSError, ValueError, RecursionError) as error:
            _fail(f"{' '.join(pair)}: {error}; {_ROWS[pair[0]]}")
        print(*lines, sep="\n")
    else:
        result = compare(*pair)
        print(f"{'equal' if result.equal else 'not equal'}, by the rule: {result.rule}")
        print(f"candidate  {pair[0]}  is  {result.candidate}\nanswer     {pair[1]}  is  {result.answer}")


def _fail(message):
    print(f"python -m grader: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _rows(path):
    """(line, row) of each row of a file: a row a line, or one list."""
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    rows = list(enumerate(json.loads(text), 1)) if text.lstrip().startswith("[") else []
    for number, line in enumerate([] if rows else text.split("\n"), 1):
        try:
            rows += [(number, json.loads(line))] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON ({error})") from None
    if not rows:
        raise ValueError("no rows")
    return rows


def _readings(rows):
    """Lines: how the answer of each row is read; those that cannot be checked are marked and counted."""
    lines, unchecked = [], 0
    for number, row in rows:
        answer = next((row[name] for name in _GOLDS if name in row), None) if isinstance(row, dict) else row
        if answer is None:
            raise ValueError(f"line {number} has no answer")
        answer = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        gold, reading = read_gold(answer)
        unchecked += not gold
        lines.append(f"{' '.join(answer.split())[-60:]:60}  {'is ' if gold else 'NOT CHECKABLE: '}{reading}")
    return [*lines, f"{len(rows)} answers, {unchecked} of them not checkable"]


def _labelled(number, row):
    """(line, kind, judge, text, gold, expected verdict) of a labelled row."""
    row = row if isinstance(row, dict) else {}
    judge = is_right if "completion" in row else is_equiv
    text, gold, expected = row.get("completion", row.get("answer")), row.get("gold"), row.get("expected")
    if not (isinstance(text, str) and isinstance(gold, str) and "expected" in row):
        raise ValueError(f"line {number} has only {', '.join(row) or 'no columns'}")
    if not isinstance(expected, bool):
        raise ValueError(f"line {number} has the expected verdict {expected!r:.60}")
    return number, str(row.get("kind", "rows")), judge, text, gold, expected


def _report(rows):
    """Lines: the wrong verdicts on labelled rows, their number by kind, and the times."""
    lines, kinds, times = [], {}, []
    for number, kind, judge, text, gold, expected in rows:
        began = time.perf_counter()
        equal = judge(text, gold)
        times.append((time.perf_counter() - began, number))
        counts = kinds.setdefault(kind, [0, 0, 0])
        counts[0] += 1
        if equal != expected:
            counts[1 if equal else 2] += 1
            lines.append(f"line {number}: {'accepts' if equal else 'refuses'} {text[-100:]!r} for {gold[:100]!r}")
    right = f"{100 * (1 - len(lines) / len(rows)):.1f} % of {len(rows)} rows right"
    lines += ["rows  false positives  false negatives  kind"]
    lines += [f"{n:4} {fp:16} {fn:16}  {kind:.70}" for kind, (n, fp, fn) in sorted(kinds.items())]
    (median, _), (slowest, number) = sorted(times)[len(times) // 2], max(times)
    return [*lines, f"median: {1000 * median:.2f} ms, slowest: {1000 * slowest:.1f} ms (line {number})", right]


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # closed, as in `>&-`
    sys.stdout.reconfigure(errors="backslashreplace")  # any code page
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; what is left in the buffer must not be written again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
