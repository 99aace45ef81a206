"""A result of eval.py: its file, and what it comes to: pass@1, avg@n, maj@n, unbiased pass@k, two results compared.

A row is a problem as eval.py writes it: `greedy`, a list of one graded completion, and `samples`, a list of n; both are
empty for a problem that was left out. Letters: P problems, n samples of each, c of them right.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

# Tables 3 and 4 of the paper, in %: the columns are its five sets, the average is over sets, not over problems
PAPER_SETS = {"aime24": "AIME24", "math500": "MATH-500", "amc23": "AMC23"}
PAPER_SETS |= {"minerva": "Minerva", "olympiadbench": "OlympiadBench"}
PAPER_ROWS = {
    "paper, Table 3: GPG-RS1 (1.5B)": (33.3, 87.6, 77.5, 29.4, 50.5),
    "paper, Table 4: Qwen2.5-Math-7B": (13.3, 57.6, 45.0, 14.7, 23.7),
    "paper, Table 4: GPG-7B": (36.7, 84.6, 82.5, 39.0, 45.8),
}


# ------------------------------------------------------------------------------------------------------------ the file


def as_line(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def part(out: str | Path, rank: int) -> Path:
    """Where a rank writes: rank 0 to --out itself, the others beside it, until all is put together."""
    return Path(out) if rank == 0 else Path(f"{out}.rank{rank}")


def parts(out: str | Path) -> list[Path]:
    """What other ranks than 0 have left beside --out, however many they were."""
    name = re.compile(re.escape(Path(out).name) + r"\.rank\d+")
    return sorted(path for path in Path(out).parent.iterdir() if name.fullmatch(path.name))


def read_lines(path: Path) -> list[dict]:
    """The lines of a JSONL file. A last line that a kill cut is left out. ValueError: any other is not an object."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    values = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            values.append(None)
        if not isinstance(values[-1], dict):
            raise ValueError(f"{path}, line {number}: not a line of eval.py ({line[:40]!r}); give a whole result")
    return values


def read_result(path: str | Path) -> tuple[dict, list[dict]]:
    """Settings and rows, those of unmerged parts too. ValueError: not a result of eval.py."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; give a result, eval.py's --out")
    first, *rows = read_lines(path) or [{}]
    rows += [row for other in parts(path) for row in read_lines(other)]
    if "settings" not in first or any("greedy" not in row for row in rows):
        raise ValueError(f"{path}: not a result of eval.py, which begins with a line of settings")
    return first["settings"], list({(row["set"], row["place"]): row for row in rows}.values())


def write_result(out: str | Path, settings: dict, rows: list[dict]) -> None:
    """The whole file, which appears at once; parts, whose rows are among these, go."""
    temporary = Path(out).with_name(f".{Path(out).name}.tmp")
    temporary.write_text("".join(map(as_line, [{"settings": settings}, *rows])), encoding="utf-8")
    temporary.replace(out)
    for other in parts(out):
        other.unlink()


# ------------------------------------------------------------------------------------------------- numbers of a problem


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chen et al. 2021 (arXiv 2107.03374), Eq. 1: the chance that of k samples, drawn from n of which c are right, one
    is right, 1 - C(n-c, k) / C(n, k): unbiased, unlike 1 - (1 - c/n)^k. ValueError: not 1 <= k <= n, 0 <= c <= n."""
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"pass@{k} of {n} samples, {c} right: needs 1 <= k <= n and 0 <= c <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority(submitted: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """The vote of maj@n: the index of the first sample of the largest class of equal answers, whose verdict is the
    vote's; None if no sample submits an answer. A sample joins the first class whose first answer is `same`.

    A tie goes to the class that came first, which is a fair draw, since samples are exchangeable. Samples without an
    answer have no vote; truncated ones that submit an answer do."""
    classes: dict[int, int] = {}  # index of its first sample -> members
    for i, answer in enumerate(submitted):
        if answer is not None:
            first = next((j for j in classes if submitted[j] == answer or same(answer, submitted[j])), i)
            classes[first] = classes.get(first, 0) + 1
    return max(classes, key=classes.get, default=None)  # max keeps the first of equals


def measures(row: dict, ks: Sequence[int]) -> dict[str, float]:
    """Name -> value in [0, 1] of an answered problem."""
    values = {"greedy pass@1": float(row["greedy"][0]["verdict"])}
    n = len(row["samples"])
    if n:
        c = sum(completion["verdict"] for completion in row["samples"])
        vote = row["majority"]
        values[f"avg@{n}"] = c / n
        values[f"maj@{n}"] = float(vote is not None and row["samples"][vote]["verdict"])
        values |= {f"pass@{k}": pass_at_k(n, c, k) for k in ks}
    return values


# ----------------------------------------------------------------------------------------------------- means and errors


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean over P problems and its standard error, sqrt(sum of (value - mean)^2 / (P (P - 1))); nan for P = 1.

    Clustered by problem: the n samples of a problem are not independent, problems are, so a problem is one value."""
    mean = statistics.fmean(values)
    error = math.sqrt(statistics.variance(values, mean) / len(values)) if len(values) > 1 else math.nan
    return mean, error


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by Fisher's expansion about the normal one: within 0.01 from 4 degrees on."""
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact p of a fair coin that gave `better` and `worse`; problems that did not change say nothing."""
    n = better + worse
    tail = sum(math.comb(n, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)


def average_of_sets(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The plain mean over sets, as the paper's; their errors are independent."""
    means, errors = zip(*estimates, strict=True)
    return statistics.fmean(means), math.sqrt(sum(error**2 for error in errors)) / len(errors)


# --------------------------------------------------------------------------------------------------------------- tables


def by_set(rows: Sequence[dict], names: Sequence[str], ks: Sequence[int]) -> dict[str, dict[str, tuple[float, float]]]:
    """Set -> measure -> mean and error over its answered problems; a set without any is left out."""
    estimates = {}
    for name in names:
        values = [measures(row, ks) for row in rows if row["set"] == name and row["greedy"]]
        if values:
            estimates[name] = {key: mean_and_error([each[key] for each in values]) for key in values[0]}
    return estimates


def score_table(rows: Sequence[dict], names: Sequence[str], ks: Sequence[int]) -> str:
    """Markdown, a row a set: problems answered, and every measure in % ± its standard error."""
    estimates = by_set(rows, names, ks)
    columns = list(next(iter(estimates.values()), {}))
    lines = [["", "problems", *(f"{column}, %" for column in columns)]]
    for name, values in estimates.items():
        answered = sum(row["set"] == name and bool(row["greedy"]) for row in rows)
        lines.append([name, str(answered), *(percent(*values[column]) for column in columns)])
    return markdown(lines)


def completion_table(rows: Sequence[dict], names: Sequence[str]) -> str:
    """Markdown, a row a set and way of decoding. Tokens include the EOS; tokens/s are those of one rank, decoding."""
    lines = [["", "decoding", "completions", "truncated, %", "without an answer, %", "mean tokens", "tokens/s a rank"]]
    for name in names:
        for part, decoding in (("greedy", "greedy"), ("samples", "sampled")):
            mine = [row for row in rows if row["set"] == name and row[part]]
            completions = [completion for row in mine for completion in row[part]]
            if not completions:
                continue
            tokens = sum(completion["tokens"] for completion in completions)
            seconds = sum(row["seconds"][part] for row in mine)
            truncated = sum(completion["truncated"] for completion in completions) / len(completions)
            silent = sum(completion["submitted"] is None for completion in completions) / len(completions)
            cells = f"{100 * truncated:.1f}", f"{100 * silent:.1f}", f"{tokens / len(completions):.1f}"
            speed = f"{tokens / seconds:.0f}" if seconds else "–"
            lines.append([name, decoding, f"{len(completions):,}", *cells, speed])
    return markdown(lines)


def paper_table(model: str, rows: Sequence[dict], whole: Sequence[str]) -> str:
    """Markdown in the columns of the paper's Tables 3 and 4, whose rows for GPG stand below. whole: the sets that were
    run in full; the others have an asterisk. The average is that of all five, or none."""
    estimates = by_set(rows, list(PAPER_SETS), ())
    lines = [["%, ± standard error", "Average", *PAPER_SETS.values()]]
    for measure in next(iter(estimates.values()), {}):
        scores = {name: values[measure] for name, values in estimates.items()}
        cells = {name: percent(*score) + ("" if name in whole else " *") for name, score in scores.items()}
        average = "–"
        if len(scores) == len(PAPER_SETS):
            average = percent(*average_of_sets(list(scores.values()))) + ("" if set(scores) <= set(whole) else " *")
        lines.append([f"{model}, {measure}", average, *(cells.get(name, "–") for name in PAPER_SETS)])
    for name, numbers in PAPER_ROWS.items():
        lines.append([name, f"{statistics.fmean(numbers):.1f}", *map(str, numbers)])
    part = any(cell.endswith("*") for line in lines for cell in line)
    return markdown(lines) + ("\n\n\\* not the whole set: not to be compared with the paper" if part else "")


def percent(mean: float, error: float) -> str:
    return f"{100 * mean:.1f}" + ("" if math.isnan(error) else f" ± {100 * error:.1f}")


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head; all columns but the first are flush right."""
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|:--|" + "--:|" * (len(lines[0]) - 1), *body])


# ----------------------------------------------------------------------------------------------------------- comparison


def compare(before: Sequence[dict], after: Sequence[dict]) -> str:
    """The paired difference, after - before, on the problems that both answered (same set, problem and gold), with the
    95 % interval of Student's t over problems; and the problems whose greedy verdict changed."""
    known = {identity(row): row for row in before if row["greedy"]}
    pairs = [(known[identity(row)], row) for row in after if row["greedy"] and identity(row) in known]
    if not pairs:
        raise ValueError("no problem is in both")
    names = list(dict.fromkeys(row["set"] for _, row in pairs))
    lines = [["", "problems", "measure", "before, %", "after, %", "difference, points", "95 % interval"]]
    lines[0] += ["better, worse", "sign test, p"]
    for name in names:
        mine = [pair for pair in pairs if pair[1]["set"] == name]
        values = [tuple(measures(row, ()) for row in pair) for pair in mine]
        shared = [measure for measure in values[0][0] if measure in values[0][1]]
        lines += [
            [name, str(len(mine)), measure, *paired([(a[measure], b[measure]) for a, b in values])]
            for measure in shared
        ]
    return "\n\n".join([markdown(lines), *changes(pairs)])


def identity(row: dict) -> tuple[str, str, str]:
    return row["set"], row["problem"], row["answer"]


def paired(values: Sequence[tuple[float, float]]) -> list[str]:
    """P pairs -> the cells of the table from "before" on."""
    differences = [b - a for a, b in values]
    mean, error = mean_and_error(differences)
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    half = error * t_quantile(len(values) - 1) if len(values) > 4 else math.nan  # fewer tell nothing
    interval = "–" if math.isnan(half) else f"{100 * (mean - half):+.1f} to {100 * (mean + half):+.1f}"
    shares = [f"{100 * statistics.fmean(column):.1f}" for column in zip(*values, strict=True)]
    return [*shares, f"{100 * mean:+.1f}", interval, f"{better}, {worse}", f"{sign_test(better, worse):.3g}"]


def changes(pairs: Sequence[tuple[dict, dict]]) -> list[str]:
    """Two paragraphs, wrong -> right and right -> wrong: a line a problem, with the gold and both submitted answers."""
    paragraphs = []
    for verdict, title in ((True, "wrong before, right after"), (False, "right before, wrong after")):
        lines = []
        for a, b in pairs:
            old, new = a["greedy"][0], b["greedy"][0]
            if old["verdict"] != new["verdict"] and new["verdict"] == verdict:
                answers = f"gold {a['answer']!r}, before {old['submitted']!r}, after {new['submitted']!r}"
                lines.append(f"  {b['set']} {b['place']}: {answers}: {' '.join(b['problem'].split())[:60]}")
        paragraphs.append("\n".join([f"{title}: {len(lines)}", *lines]))
    return paragraphs
