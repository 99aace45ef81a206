"""A result of eval.py: its file, its scores (pass@1, avg@n, maj@n, unbiased pass@k) and its comparison with another.

A row is a problem as eval.py writes it: `greedy`, a list of one graded completion, and `samples`, a list of n; both are
empty if its prompt was too long. Letters: P problems, n samples of each, c correct samples.
"""

import math
import re
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

import mpmath

from run import checkpoint
from run.flags import columns

# Tables 3 and 4 of the paper, in %; the average is over the five sets, not over problems
PAPER_SETS = {"aime24": "AIME24", "math500": "MATH-500", "amc23": "AMC23"}
PAPER_SETS |= {"minerva": "Minerva", "olympiadbench": "OlympiadBench"}
GRADUAL = {"iou": "mIoU", "iou_or_name": "mean score"}  # grades between 0 and 1, and what their mean is called
PAPER_ROWS = (
    ("paper, Table 3: GPG-RS1 (1.5B)", 33.3, 87.6, 77.5, 29.4, 50.5),
    ("paper, Table 4: Qwen2.5-Math-7B", 13.3, 57.6, 45.0, 14.7, 23.7),
    ("paper, Table 4: GPG-7B", 36.7, 84.6, 82.5, 39.0, 45.8),
)


def rank_file(out: str | Path, rank: int) -> Path:
    """Where a rank writes its rows: rank 0 to --out, other ranks to a file of their own until all are merged."""
    return Path(out) if rank == 0 else Path(f"{out}.rank{rank}")


def other_rank_files(out: str | Path) -> list[Path]:
    """The files of all ranks but 0, however many wrote to --out."""
    name = re.compile(re.escape(Path(out).name) + r"\.rank\d+")
    return sorted(path for path in Path(out).parent.iterdir() if name.fullmatch(path.name))


def read_result(path: str | Path) -> tuple[dict, list[dict]]:
    """Settings and rows, including those not yet merged. ValueError: not a result of eval.py."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; give a result of eval.py, its --out")
    first, *rows = [*checkpoint.read_lines(Path(path))] or [{}]
    rows += [row for other in other_rank_files(path) for row in checkpoint.read_lines(other)]
    if "settings" not in first or any("greedy" not in row for row in rows):
        raise ValueError(f"{path}: not a result of eval.py, which begins with a line of settings")
    return first["settings"], list({(row["set"], row["place"]): row for row in rows}.values())


def write_result(out: str | Path, settings: dict, rows: list[dict]) -> None:
    """Replaces the file atomically and removes those of other ranks, whose rows are included."""
    checkpoint.write(Path(out), checkpoint.as_lines([{"settings": settings}, *rows]))
    for other in other_rank_files(out):
        other.unlink()


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chen et al. 2021 (arXiv 2107.03374), Eq. 1: the probability that k of the n samples include a correct one,
    1 - C(n-c, k) / C(n, k): unbiased, unlike 1 - (1 - c/n)^k. ValueError: not 1 <= k <= n, 0 <= c <= n."""
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"pass@{k} of {n} samples, {c} right: needs 1 <= k <= n and 0 <= c <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority(submitted: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """The majority vote of maj@n: the index of the first sample in the largest class of equal answers, None if there is
    no answer. An answer joins the first class whose first answer is `same`. Ties go to the class that came first, a
    fair choice as samples are exchangeable. Samples without an answer have no vote; truncated ones with one do."""
    classes: dict[int, int] = {}  # index of its first sample -> members
    for i, answer in enumerate(submitted):
        if answer is not None:
            first = next((j for j in classes if submitted[j] == answer or same(answer, submitted[j])), i)
            classes[first] = classes.get(first, 0) + 1
    return max(classes, key=classes.get, default=None)  # max keeps the first of equals


def measures(row: dict, ks: Sequence[int]) -> dict[str, float]:
    """Measure -> value in [0, 1] for a problem with completions. A box has its IoU, and so no vote and no pass@k."""
    gradual = row.get("grade") in GRADUAL
    values = {GRADUAL.get(row.get("grade"), "greedy pass@1"): float(row["greedy"][0]["verdict"])}
    verdicts, vote = [completion["verdict"] for completion in row["samples"]], row["majority"]
    if verdicts:
        n, c = len(verdicts), sum(verdicts)
        values[f"avg@{n}"] = c / n
    if verdicts and not gradual:
        values[f"maj@{n}"] = float(vote is not None and verdicts[vote])
        values |= {f"pass@{k}": pass_at_k(n, c, k) for k in ks}
    return values


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean over P problems and its standard error, sqrt(sum of (value - mean)^2 / (P (P - 1))); nan for P = 1."""
    mean = statistics.fmean(values)
    error = math.sqrt(statistics.variance(values, mean) / len(values)) if len(values) > 1 else math.nan
    return mean, error


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: P(|T| > t), a regularized incomplete beta function, is .05 there."""

    def excess(t):
        return mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True) - 0.05

    return float(mpmath.findroot(excess, (1.9, 13), solver="anderson"))  # between those of 1 and of infinitely many


def sign_test(better: int, worse: int) -> float:
    """The exact two-sided p of `better` and `worse` under a fair coin; unchanged problems are ignored."""
    n, ways, tail = better + worse, 1, 1  # ways: C(n, i), whole numbers
    for i in range(min(better, worse)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def labels(row: dict) -> tuple[str, ...]:
    """The lines of a table in which a row counts: that of its set, and that of its task, if it has one."""
    return (row["set"], f"{row['set']}, {row['task']}") if "task" in row else (row["set"],)


def by_set(rows: Sequence[dict], names: Sequence[str], ks: Sequence[int]) -> dict[str, dict[str, tuple[float, float]]]:
    """Set, and each of its tasks -> measure -> mean and error over its problems with completions, if there are any."""
    estimates, rows = {}, [row for name in names for row in rows if row["set"] == name and row["greedy"]]
    for label in dict.fromkeys(label for row in rows for label in labels(row)):
        values = [measures(row, ks) for row in rows if label in labels(row)]
        estimates[label] = {key: mean_and_error([each[key] for each in values]) for key in values[0]}
    return estimates


def score_table(rows: Sequence[dict], names: Sequence[str], ks: Sequence[int]) -> str:
    """A row per set and task: how many problems have completions, and every measure in % ± its standard error."""
    estimates = by_set(rows, names, ks)
    counts = Counter(label for row in rows if row["greedy"] for label in labels(row))
    columns = list(dict.fromkeys(column for values in estimates.values() for column in values))
    lines = [["", "problems", *(f"{column}, %" for column in columns)]]
    for name, values in estimates.items():
        cells = [percent(*values[column]) if column in values else "–" for column in columns]
        lines.append([name, str(counts[name]), *cells])
    return table(lines)


def completion_table(rows: Sequence[dict], names: Sequence[str]) -> str:
    """A row per set and kind of decoding. Tokens include the EOS; tokens/s are of decoding, per rank."""
    lines = [["", "decoding", "completions", "truncated, %", "no answer, %", "mean tokens", "tokens/s per rank"]]
    for name in names:
        for key, decoding in (("greedy", "greedy"), ("samples", "sampled")):
            decoded = [row for row in rows if row["set"] == name and row[key]]
            completions = [completion for row in decoded for completion in row[key]]
            if not completions:
                continue
            seen = [(each["truncated"], each["submitted"] is None, each["tokens"]) for each in completions]
            truncated, no_answer, tokens = map(statistics.fmean, zip(*seen, strict=True))
            seconds = sum(row["seconds"][key] for row in decoded)
            cells = f"{100 * truncated:.1f}", f"{100 * no_answer:.1f}", f"{tokens:.1f}"
            speed = f"{tokens * len(completions) / seconds:.0f}" if seconds else "–"
            lines.append([name, decoding, f"{len(completions):,}", *cells, speed])
    return table(lines)


def paper_table(model: str, rows: Sequence[dict], complete_sets: Sequence[str]) -> str:
    """The columns of the paper's Tables 3 and 4, and its rows; an asterisk marks sets that are not complete."""

    def cell(score: tuple[float, float], *names: str) -> str:
        return percent(*score) + ("" if set(names) <= set(complete_sets) else " *")

    estimates = by_set(rows, list(PAPER_SETS), ())
    lines = [["%, ± standard error", "Average", *PAPER_SETS.values()]]
    for measure in next(iter(estimates.values()), {}):
        scores = {name: values[measure] for name, values in estimates.items()}
        cells = {name: cell(score, name) for name, score in scores.items()}
        means, errors = zip(*scores.values(), strict=True)
        mean = statistics.fmean(means), math.hypot(*errors) / len(errors)  # errors of sets are independent
        average = cell(mean, *scores) if len(scores) == len(PAPER_SETS) else "–"
        lines.append([f"{model}, {measure}", average, *(cells.get(name, "–") for name in PAPER_SETS)])
    lines += [[name, f"{statistics.fmean(numbers):.1f}", *map(str, numbers)] for name, *numbers in PAPER_ROWS]
    footnote = any(cell.endswith(" *") for line in lines for cell in line)
    return table(lines) + ("\n* not the whole set, so not comparable with the paper" if footnote else "")


def percent(mean: float, error: float) -> str:
    return f"{100 * mean:.1f}" + ("" if math.isnan(error) else f" ± {100 * error:.1f}")


def table(lines: Sequence[Sequence[str]]) -> str:
    """The cells in aligned columns, all but the first flush right. On a narrow terminal the words of the head are
    stacked, and then, if that does not help, lines become columns."""
    for form in (lines, stacked(lines), stacked(list(zip(*lines, strict=True))), lines):
        first, *others = [max(map(len, column)) for column in zip(*form, strict=True)]
        rows = ["  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]) for line in form]
        if len(rows[0]) <= (columns() or math.inf):
            break
    return "\n".join(rows)


def stacked(lines: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The lines, with no column wider than its cells below the head or its head's longest word."""
    widths = [max([1, *map(len, (*cells, *head.split()))]) for head, *cells in zip(*lines, strict=True)]
    heads = [textwrap.wrap(head, width)[::-1] for head, width in zip(lines[0], widths, strict=True)]
    return [*reversed(list(zip_longest(*heads, fillvalue=""))), *lines[1:]]


def compare(before: Sequence[dict], after: Sequence[dict]) -> str:
    """The paired difference, after - before, on the problems in both, with the 95 % interval of Student's t over
    problems; then the problems whose greedy verdict changed."""
    earlier, later = (by_problem([row for row in rows if row["greedy"]]) for rows in (before, after))
    pairs = [(earlier[key], row) for key, row in later.items() if key in earlier]
    if not pairs:
        raise ValueError("the two results have no problem in common")
    names = list(dict.fromkeys(row["set"] for _, row in pairs))
    lines = [["", "problems", "measure", "before, %", "after, %", "difference, points", "95 % interval"]]
    lines[0] += ["better, worse", "sign test, p"]
    for name in names:
        values = [(measures(a, ()), measures(b, ())) for a, b in pairs if b["set"] == name]
        for measure in [shared for shared in values[0][0] if shared in values[0][1]]:
            cells = paired([(a[measure], b[measure]) for a, b in values])
            lines.append([name, str(len(values)), measure, *cells])
    return "\n\n".join([table(lines), *changes(pairs)])


def by_problem(rows: Sequence[dict]) -> dict[tuple, dict]:
    """The rows by what they ask: set, problem, earlier turns, picture or answer, and which of equal ones it is."""
    found, seen = {}, Counter()
    for row in rows:
        answer = row.get("picture") or row["answer"]  # a box depends on the model's units
        key = row["set"], row["problem"], str(row.get("turns")), answer
        seen[key] += 1
        found[(*key, seen[key])] = row
    return found


def paired(values: Sequence[tuple[float, float]]) -> list[str]:
    """The cells of `compare`'s table from "before" on, for one pair of values per problem."""
    differences = [b - a for a, b in values]
    mean, error = mean_and_error(differences)
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    half = error * t_quantile(len(values) - 1) if len(values) > 4 else math.nan  # fewer are too few
    interval = "–" if math.isnan(half) else f"{100 * (mean - half):+.1f} to {100 * (mean + half):+.1f}"
    shares = [f"{100 * statistics.fmean(column):.1f}" for column in zip(*values, strict=True)]
    return [*shares, f"{100 * mean:+.1f}", interval, f"{better}, {worse}", f"{sign_test(better, worse):.3g}"]


def changes(pairs: Sequence[tuple[dict, dict]]) -> list[str]:
    """Two paragraphs, wrong -> right and right -> wrong: a line per problem with gold and submitted answers."""
    paragraphs = []
    for verdict, title in ((True, "wrong before, right after"), (False, "right before, wrong after")):
        lines = []
        for a, b in pairs:
            old, new = a["greedy"][0], b["greedy"][0]
            if old["verdict"] != verdict == new["verdict"]:
                answers = f"gold {a['answer']!r}, before {old['submitted']!r}, after {new['submitted']!r}"
                lines.append(f"  {b['set']} {b['place']}: {answers}: {' '.join(b['problem'].split())[:60]}")
        paragraphs.append("\n".join([f"{title}: {len(lines)}", *lines]))
    return paragraphs
