r"""The command of the grader:

- python -m grader "\frac{1}{2}" "0.5"     whether the candidate equals the answer, and which rule decided
- python -m grader --golds data.jsonl      how the grader reads the answers of a data set
- python -m grader --file cases.jsonl      how often the grader is right on labelled rows, and how long it takes
"""

import argparse
import json
import os
import sys
import time

from grader.equality import compare, is_equiv
from grader.extraction import is_right, read_gold

_GOLDS = ("gold", "answer", "final_answer", "ground_truth", "solution")
_COLUMNS = ", ".join(_GOLDS[:-1]) + f" or {_GOLDS[-1]}"
_ROW = "a row is an object with the texts gold and answer, or gold and completion, and expected, true or false"


def main(argv: list[str] | None = None) -> None:
    """The command; a mistake ends in one line, with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m grader",
        usage="python -m grader CANDIDATE ANSWER | --golds FILE | --file FILE",
        description="Is the candidate equal to the answer? Or: how right is the grader on the labelled rows of a file?",
        allow_abbrev=False,
    )
    parser.error = _fail
    parser.add_argument("pair", nargs="*", metavar="CANDIDATE ANSWER", help="two expressions, LaTeX or plain text")
    parser.add_argument("--file", metavar="FILE", help=f"JSON lines: {_ROW}; an optional kind groups the errors")
    parser.add_argument("--golds", metavar="FILE", help=f"JSON or JSON lines of answers, or rows with {_COLUMNS}")
    args, unknown = parser.parse_known_args(argv)
    flag, path = ("--golds", args.golds) if args.file is None else ("--file", args.file)
    if path is not None and not (args.pair or unknown or args.golds is not None and args.file is not None):
        try:
            rows = _answers(path) if flag == "--golds" else _labelled(path)
        except (OSError, ValueError, RecursionError) as error:
            _fail(f"{flag} {path}: {error}")
        print(_readings(rows) if flag == "--golds" else _report(rows))
        return
    pair = [text for text in (sys.argv[1:] if argv is None else argv) if text != "--"]  # "-x" is an answer, no flag
    if path is not None or len(pair) != 2:
        _fail("give a candidate and an answer, each in quotes, or --golds FILE, or --file FILE with labelled rows")
    result = compare(*pair)
    print(f"{'equal' if result.equal else 'not equal'}, by the rule: {result.rule}")
    print(f"candidate  {pair[0]}  is  {result.candidate}\nanswer     {pair[1]}  is  {result.answer}")


def _fail(message):
    print(f"python -m grader: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _answers(path):
    """The answers of a file, as texts: a list in JSON, or a row a line."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    lines = [text] if text.lstrip().startswith("[") else filter(str.strip, text.splitlines())
    rows = [row for line in lines for row in (json.loads(line) if line is text else [json.loads(line)])]
    rows = [next((row[name] for name in _GOLDS if name in row), None) if isinstance(row, dict) else row for row in rows]
    if not rows or None in rows:
        number = rows.index(None) + 1 if rows else 1
        raise ValueError(f"row {number} has no answer: give a text, or an object with {_COLUMNS}")
    return [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]


def _readings(answers):
    """How each answer is read, as text; those that cannot be checked are marked and counted."""
    lines, unchecked = [], 0
    for answer in answers:
        gold, reading = read_gold(answer)
        unchecked += not gold
        lines.append(f"{' '.join(answer.split())[-60:]:60}  {'is ' if gold else 'NOT CHECKABLE: '}{reading}")
    return "\n".join([*lines, f"{len(answers)} answers, {unchecked} of them not checkable"])


def _labelled(path):
    """The rows of a file as (line number, kind, judge, text, gold, expected verdict)."""
    with open(path, encoding="utf-8") as lines:
        rows = [(number, *_labelled_row(number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"no rows; {_ROW}")
    return rows


def _labelled_row(number, line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON ({error}); {_ROW}") from None
    row = row if isinstance(row, dict) else {}
    attack = "why" in row and "expected" not in row  # must be refused, however it is submitted
    judge = is_right if "completion" in row else _is_right_any_way if attack else is_equiv
    text, gold, expected = row.get("completion", row.get("answer")), row.get("gold"), row.get("expected", not attack)
    if not (isinstance(text, str) and isinstance(gold, str) and ("expected" in row or attack)):
        raise ValueError(f"line {number} has only {', '.join(row) or 'no columns'}; {_ROW}")
    if not isinstance(expected, bool):
        raise ValueError(f"line {number} has the expected verdict {expected!r:.60}; {_ROW}")
    return str(row.get("kind", row.get("why", "rows"))), judge, text, gold, expected


def _is_right_any_way(answer, gold):
    return is_equiv(answer, gold) or is_right(rf"\boxed{{{answer}}}", gold) or is_right(answer, gold)


def _report(rows):
    """The verdicts on labelled rows, as text: wrong ones, their number by kind, and the slowest rows."""
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
    except BrokenPipeError:  # `| head` has read enough; what is left in the buffer must not be written again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
