"""Tables and pictures of the runs of a study (tools/study.py): one row per run, Markdown with error bars, curves.

Runs are compared at equal steps and at equal generated tokens, since a method that samples more per step must be worth
it. For each seed the limit is the number of steps, or tokens, that all its runs reach. Four measures in %, up to there:

    last        mean reward of sampled completions over the last quarter: the policy's accuracy at temperature 1
    whole       the same over the whole run, the area under the curve: it rewards learning sooner, and varies less
    greedy      held-out accuracy of greedy decoding at the limit, linear between evaluations
    greedy all  its mean over the run: the area under that line

A step's reward counts for the tokens of that step. ± is the standard error of the mean over seeds. Differences are
taken per seed, as runs of a seed share model and problems; [ ] is the 95 % confidence interval of Student's t. An
interval that contains 0 resolves nothing; of those that do not, one in twenty is due to chance.
"""

import io
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from run.scores import mean_and_error, t_quantile
from tools.runs import STYLE, line_style, markdown

CURVES = ("reward", "alpha", "easy_share", "hard_share", "grad_norm", "generated_tokens")  # recorded for every step
MEASURES = {"last": "sampled, last quarter", "whole": "sampled, whole run"}
MEASURES |= {"greedy": "greedy, end", "greedy all": "greedy, whole run"}
TOKENS = {f"{name}, {part} quarter" for name in ("right", "wrong") for part in ("first", "last")}
BINS = 12  # points of a curve in the picture


@dataclass(frozen=True)
class Study:
    title: str
    reference: str  # the variant that the others are compared with
    flags: dict[str, str]  # variant -> flags of train.py
    runs: list[tuple[str, dict]]  # variant, and a line of tools.study's store
    command: str


def write(out: Path, study: Study) -> None:
    """Writes rows.jsonl, table.md and curves.png into the folder."""
    rows = make_rows(study)
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (out / "table.md").write_text(page(study, rows), "utf-8")
    with io.BytesIO() as whole:  # of 256 colours: a third of the size, as it lives in the repository
        draw(study).savefig(whole, dpi=90)
        picture = Image.open(whole).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    picture.save(out / "curves.png", optimize=True)


def window_mean(values: Sequence[float | None], ends: Sequence[float], low: float, high: float) -> float | None:
    """The mean over (low, high] of a curve that is values[i] from ends[i - 1] (0 for the first) to ends[i]; the curve
    has a gap where a value is None. None if there is no value at all. ends: 1, 2, ..., or tokens generated so far."""
    total = weight = 0.0
    for value, begin, end in zip(values, [0, *ends[:-1]], ends, strict=True):
        part = min(end, high) - max(begin, low)
        if part > 0 and value is not None:
            total, weight = total + part * value, weight + part
    return total / weight if weight else None


def line_at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """The value at x of the line through points sorted by x, constant beyond its ends. None without points."""
    return float(np.interp(x, *zip(*points, strict=True))) if points else None


def line_mean(points: Sequence[tuple[float, float]], high: float) -> float | None:
    """The mean of that line from its first point to high."""
    inside = [point for point in points if point[0] < high]
    if not inside:
        return line_at(points, high)
    inside.append((high, line_at(points, high)))
    area = sum((y0 + y1) / 2 * (x1 - x0) for (x0, y0), (x1, y1) in zip(inside, inside[1:], strict=False))
    return area / (high - inside[0][0])


def axes_of(run: dict) -> dict[str, tuple[list[float], list[tuple[float, float]]]]:
    """ "steps" and "tokens" -> where each step ends on that axis, and the points of held-out accuracy."""
    steps, tokens = list(range(1, len(run["reward"]) + 1)), run["generated_tokens"]
    at_tokens = [(tokens[step - 1] if step else 0, share) for step, share in run["accuracy"]]
    return {"steps": (steps, run["accuracy"]), "tokens": (tokens, at_tokens)}


def limits(runs: list[dict]) -> dict[str, float]:
    """How far all runs of a seed go; for tokens, without runs that sample nothing."""
    ends = [{axis: ends[-1] for axis, (ends, _) in axes_of(run).items()} for run in runs]
    return {axis: min((end[axis] for end in ends if end[axis]), default=0) for axis in ("steps", "tokens")}


def measures(run: dict, axis: str, limit: float) -> dict[str, float | None]:
    """The measures of a run up to a limit, in %."""
    ends, points = axes_of(run)[axis]
    if not ends[-1]:
        return dict.fromkeys(MEASURES)
    values = {
        "last": window_mean(run["reward"], ends, 0.75 * limit, limit),
        "whole": window_mean(run["reward"], ends, 0, limit),
        "greedy": line_at(points, limit),
        "greedy all": line_mean(points, limit),
    }
    return {name: None if value is None else 100 * value for name, value in values.items()}


def details(run: dict) -> dict[str, float]:
    """Mean tokens of right and of wrong completions at both ends of a run; greedy scores by kind of problem in %,
    before, at the end, and as a mean over the run; those of a control at the end. Without what it did not record."""
    n, found = len(run["reward"]), {}
    for name in ("right", "wrong"):
        for part, low in (("first", 0), ("last", 0.75)):
            lengths = run.get(f"tokens, {name}", [None] * n)
            found[f"{name}, {part} quarter"] = window_mean(lengths, range(1, n + 1), low * n, (low + 0.25) * n)
    kinds = {key.removeprefix("accuracy/"): points for key, points in run.items() if key.startswith("accuracy/")}
    for kind, points in kinds.items():
        first, last = [[f"{kind}, before", points[0]]][: points[0][0] == 0], [f"{kind}, end", points[-1]]
        found |= {name: 100 * share for name, (_, share) in [*first, last]}
        found |= {f"{kind}, whole run": 100 * line_mean(points, n)} if len(points) > 1 else {}
    return {name: value for name, value in found.items() if value is not None}


def make_rows(study: Study) -> list[dict]:
    """One row per run: its measures at equal steps and tokens, and how it behaved."""
    rows = []
    for variant, run in study.runs:
        seed, steps = run["flags"]["seed"], list(range(1, len(run["reward"]) + 1))
        limit = limits([other for _, other in study.runs if other["flags"]["seed"] == seed])
        row = {"variant": variant, "seed": seed, "flags": study.flags[variant]}
        row |= {f"at equal {axis}": rounded(measures(run, axis, limit[axis])) | {axis: limit[axis]} for axis in limit}
        row |= rounded({name: window_mean(run[name], steps, 0, len(steps)) for name in CURVES if name[:3] != "gen"})
        row |= {"details": rounded(found)} if (found := details(run)) else {}
        norms = [norm for norm in run["grad_norm"] if norm is not None]
        clip = run["flags"].get("grad_clip") or math.inf
        row["clipped_share"] = round(sum(norm > clip for norm in norms) / len(steps), 4)
        row |= {"generated_tokens": run["generated_tokens"][-1]}
        row |= {name: run[name] for name in ("cpu_seconds", "seconds", "date", "commit")}
        rows.append(row)
    return rows


def rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def paired(values: dict[int, float], reference: dict[int, float]) -> tuple[float, float, float] | None:
    """The mean difference over the seeds that both have, and the ends of its 95 % interval; None with fewer than 2."""
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    if len(differences) < 2:
        return None
    mean, error = mean_and_error(differences)
    width = round(t_quantile(len(differences) - 1), 3) * error  # as in printed tables of t
    return mean, mean - width, mean + width


def page(study: Study, rows: list[dict]) -> str:
    """table.md: both comparisons, how the runs behaved, their flags, and how they were made."""
    seeds = {row["seed"] for row in rows}
    intro = (
        f"{len(seeds)} seeds. In %: mean ± standard error over seeds; below it, the difference from "
        f"**{study.reference}** in points, paired by seed, with its 95 % interval. Bold: the interval excludes 0. "
        "Measures: `tools/compare.py`."
    )
    parts = [f"# {study.title}", intro]
    for axis, name in (("steps", "steps"), ("tokens", "generated tokens")):
        limit = sorted(row[f"at equal {axis}"][axis] for row in rows)
        reach = f"{limit[0]:,}" if limit[0] == limit[-1] else f"{limit[0]:,} to {limit[-1]:,}, by seed"
        parts += [f"## At equal {name}: {reach}", comparison(rows, study, f"at equal {axis}", MEASURES)]
    names = dict.fromkeys(name for row in rows for name in row.get("details", ()))
    for title, these in (("Tokens of completions", TOKENS), ("Greedy, by kind of problem, %", names.keys() - TOKENS)):
        if shown := {name: name for name in names if name in these and all("details" in row for row in rows)}:
            parts += [f"## {title}", comparison(rows, study, "details", shown)]
    flags = "\n".join(f"- {variant}: `{words}`" for variant, words in study.flags.items())
    parts += ["## How the runs behaved", behaviour(rows, study), "## Flags", flags, "![curves](curves.png)"]
    return "\n\n".join([*parts, foot(study, rows)]) + "\n"


def comparison(rows: list[dict], study: Study, where: str, measures: dict[str, str]) -> str:
    lines = [["variant", *measures.values()]]
    for variant in study.flags:
        lines.append([variant])
        for name in measures:
            values, reference = (by_seed(rows, each, where, name) for each in (variant, study.reference))
            lines[-1].append(plus_minus(list(values.values())))
            if variant != study.reference:
                lines[-1][-1] += "<br>" + interval(paired(values, reference))
    return markdown(lines)


def by_seed(rows: list[dict], variant: str, *keys: str) -> dict[int, float]:
    """What a variant's rows hold under these keys, one within the other; without those that hold None."""
    rows = [row for row in rows if row["variant"] == variant]
    found = {row["seed"]: reduce(lambda part, key: part.get(key), keys, row) for row in rows}
    return {seed: value for seed, value in found.items() if value is not None}


def plus_minus(values: list[float]) -> str:
    if not values:
        return "–"
    mean, error = mean_and_error(values)
    return f"{mean:,.1f}" + ("" if math.isnan(error) else f" ± {error:.1f}")


def interval(difference: tuple[float, float, float] | None) -> str:
    if difference is None:
        return "–"
    mean, low, high = difference
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def behaviour(rows: list[dict], study: Study) -> str:
    """Means over steps and seeds; and the deviation between seeds, which decides how many seeds a comparison needs."""
    columns = {
        "α": ("alpha", 1, 2),
        "easy, %": ("easy_share", 100, 1),
        "hard, %": ("hard_share", 100, 1),
        "gradient norm": ("grad_norm", 1, 3),
        "clipped, % of steps": ("clipped_share", 100, 1),
        "generated tokens": ("generated_tokens", 1, 0),
        "CPU seconds": ("cpu_seconds", 1, 1),
    }
    deviations = "SD over seeds: last quarter", "of its difference"
    lines = [["variant", *columns, *deviations]]
    reference = by_seed(rows, study.reference, "at equal steps", "last")
    for variant in study.flags:
        lines.append([variant])
        for name, scale, digits in columns.values():
            known = by_seed(rows, variant, name).values()
            lines[-1].append(f"{scale * statistics.fmean(known):,.{digits}f}" if known else "–")
        last = by_seed(rows, variant, "at equal steps", "last")
        differences = [last[seed] - reference[seed] for seed in last if seed in reference]
        for values in (list(last.values()), differences if variant != study.reference else []):
            lines[-1].append(f"{statistics.stdev(values):.1f}" if len(values) > 1 else "–")
    return markdown(lines)


def foot(study: Study, rows: list[dict]) -> str:
    """How, when and where the runs were made."""
    days, commits = sorted({row["date"] for row in rows}), sorted({str(row["commit"]) for row in rows})
    cpu, clock = (sum(row[name] for row in rows) / 60 for name in ("cpu_seconds", "seconds"))
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    torch = ", ".join(sorted({run["torch"] for _, run in study.runs}))
    return (
        f"`{study.command}`, {when}, on {os.cpu_count()} CPU cores ({platform.machine()}), one thread per run; "
        f"torch {torch}; commit {', '.join(commits)}. {len(rows)} runs, some perhaps shared with other presets: "
        f"{cpu:.0f} minutes of CPU, {clock:.0f} by the clock."
    )


def draw(study: Study):
    """Reward over steps and tokens, held-out accuracy, alpha, and shares of groups; bands are ± one standard error."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.5), layout="constrained")
        figure.suptitle(study.title, fontweight="bold")
        (reward, by_tokens, accuracy), (alpha, shares, legend) = figure.subplots(2, 3)
        steps = min(len(run["reward"]) for _, run in study.runs)
        tokens = min((run["generated_tokens"][-1] for _, run in study.runs if run["generated_tokens"][-1]), default=1)
        for i, variant in enumerate(study.flags):
            runs = [run for name, run in study.runs if name == variant]
            if not runs:
                continue
            style = line_style(i)
            band(reward, binned(runs, "reward", "steps", steps, 100), style)
            band(by_tokens, [(x / 1000, *y) for x, *y in binned(runs, "reward", "tokens", tokens, 100)], style)
            band(alpha, binned(runs, "alpha", "steps", steps), style)
            for kind, dash in (("easy", "-"), ("hard", ":")):
                band(shares, binned(runs, f"{kind}_share", "steps", steps, 100), style | {"ls": dash})
            band(accuracy, evaluated(runs), style)
            legend.plot([], [], label=variant, **style)
        for axes, title, unit, below in (
            (reward, "Sampled accuracy, equal steps", "mean reward, %", "optimizer step"),
            (by_tokens, "Sampled accuracy, equal tokens", "mean reward, %", "generated tokens, thousands"),
            (accuracy, "Held-out accuracy, greedy", "%", "optimizer step"),
            (alpha, "α, Eq. 7", "groups / valid groups", "optimizer step"),
            (shares, "Easy (solid) and hard (dotted) groups", "share of groups, %", "optimizer step"),
        ):
            axes.set(title=title, ylabel=unit, xlabel=below)
        legend.axis("off")
        legend.legend(loc="center left", title="mean over seeds, ± standard error")
    return figure


def binned(runs: list[dict], name: str, axis: str, limit: float, scale=1.0) -> list[tuple[float, float, float]]:
    """The curve of several runs in BINS windows: (middle of the window, mean over runs, standard error)."""
    points = []
    for i in range(BINS):
        low, high = i * limit / BINS, (i + 1) * limit / BINS
        values = [window_mean(run[name], axes_of(run)[axis][0], low, high) for run in runs]
        known = [scale * value for value in values if value is not None]
        points.append(((low + high) / 2, *(mean_and_error(known) if known else (math.nan, math.nan))))
    return points


def evaluated(runs: list[dict]) -> list[tuple[float, float, float]]:
    """Held-out accuracy in % at the steps where all runs were evaluated."""
    lines = [dict(run["accuracy"]) for run in runs]
    common = sorted(set.intersection(*map(set, lines)))
    return [(step, *mean_and_error([100 * line[step] for line in lines])) for step in common]


def band(axes, points: list[tuple[float, float, float]], style: dict) -> None:
    if points:
        x, mean, error = np.transpose(points)
        axes.plot(x, mean, **style)
        axes.fill_between(x, mean - error, mean + error, color=style["color"], alpha=0.15, lw=0)
