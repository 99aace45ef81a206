"""A run's folder: its files, its curves, and panels of them by matplotlib, for tools.plot and tools.study."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from run.checkpoint import ROW_FILES, read_lines
from run.flags import fail, user_input

# flags that change no number of a run
BOOKKEEPING = {"out", "resume", "auto_resume", "overwrite", "plan", "tensorboard", "wandb", "save_every", "keep"}
BOOKKEEPING |= {"check_every", "rank_timeout", "reward_timeout", "cache_tokens", "noise_every", "record", "replay"}
# Okabe and Ito's colours, which the colour-blind can tell apart; dashes, for those that can't and curves that coincide
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = {"-": "", "--": "6 3", ":": "2 2"}  # matplotlib's -> SVG's
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
STYLE |= {"axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlesize": 12}
STYLE |= {"axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True}

Point = tuple[float, float | None, float]  # step, value (None: a gap), standard error (0: none)


@dataclass(frozen=True)
class Run:
    """The files of a run's folder; all but rows may be empty."""

    rows: list[dict]
    samples: list[dict] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)
    config: dict = field(default_factory=dict)
    controls: dict = field(default_factory=dict)


def read(folder: Path, whole: bool = True) -> Run:
    """What a run left in its folder. Only metrics.jsonl must be there; if not whole, no more rows are read."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        fail(f"{file}: no such file; give the folder of a run, train.py's --out")
    files = [folder / name for name in ROW_FILES]
    rows, samples, groups = (user_input(list, read_lines(each)) if whole or each == file else [] for each in files)
    if any("step" not in row for row in (*rows, *samples, *groups)):
        fail(f"{file}: not the rows of train.py; give another run")
    if not rows or "valid_share" not in rows[0]:
        fail(f"{file}: holds no step yet, or not train.py's; wait for the first, or give another run")
    groups = [each for each in groups if each.get("rewards")]
    others = [folder / "config.json", folder / "controls.json"]
    try:
        found = [{**json.loads(file.read_bytes())} if file.is_file() else {} for file in others]
    except (ValueError, TypeError) as error:
        fail(f"{folder}: config.json or controls.json is not as train.py wrote it ({error}); give another run")
    return Run(rows, samples, groups, *found)


def alike(runs: dict[str, Run]) -> bool:
    """Whether these are runs that differ in the seed and nothing else: only then does their mean say anything."""
    ignored = BOOKKEEPING | {"seed", "command", "ranks", "versions", "wandb_id"}
    configs = [{name: value for name, value in run.config.items() if name not in ignored} for run in runs.values()]
    for config in configs:  # a built-in model's frozen weights differ with its seed, as those that are trained do
        config["made_of"] = {k: x for k, x in config.get("made_of", {}).items() if k != "frozen weights"}
    seeds = {run.config.get("seed") for run in runs.values()}
    return 1 < len(seeds) == len(configs) and all(config == configs[0] for config in configs)


def column(name: str, scale: float = 1.0) -> Callable[[Run], list[Point]]:
    """The points of a column of metrics.jsonl, with NAME_se as its error: none for a row without it, a gap for null."""
    return lambda run: [
        (row["step"], scale * row[name] if finite(row[name]) else None, scale * (row.get(f"{name}_se") or 0.0))
        for row in run.rows
        if name in row
    ]


def finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def accuracy(run: Run, scale: float = 100.0) -> list[Point]:
    """Held-out accuracy, in %, at each evaluation; step 0 is the model before training."""
    first = Run([row | {"step": 0} for row in run.rows[:1]])
    return column("accuracy_before", scale)(first) + column("accuracy", scale)(run)


def tokens_per_second(run: Run) -> list[Point]:
    """Generated tokens per second of rollout, grading and update, over all ranks."""
    points, seen = [], 0
    for row in run.rows:
        seconds = sum(row.get(f"seconds_{part}") or 0.0 for part in ("rollout", "reward", "update"))
        if seconds:
            points.append((row["step"], (row["generated_tokens"] - seen) / seconds, 0.0))
        seen = row["generated_tokens"]
    return points


def rounded(value: float | None) -> float | None:
    """To four significant digits, but for integers."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def number(x: float | None) -> str:
    """Three digits, or all before the point."""
    if x is None:
        return "–"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def markdown(lines: Sequence[Sequence[str | float]]) -> str:
    """Lines of cells as a Markdown table; the first line is its head."""
    rows = [f"| {' | '.join(cell if isinstance(cell, str) else number(cell) for cell in line)} |" for line in lines]
    return "\n".join([rows[0], "|:--|" + "--:|" * (len(lines[0]) - 1), *rows[1:]])


# title, unit, points
PANELS = (
    ("Reward", "mean over completions", column("reward")),
    ("Held-out accuracy, greedy", "%, ± standard error", accuracy),
    ("Completion length", "tokens, mean", column("completion_tokens")),
    ("α, Eq. 7", "groups / valid groups", column("alpha")),
    ("Valid groups", "% of groups: rewards differ", column("valid_share", 100)),
    ("Easy groups", "% of groups: all right", column("easy_share", 100)),
    ("Hard groups", "% of groups: all wrong", column("hard_share", 100)),
    ("Truncated", "% of completions that hit the limit", column("truncated_share", 100)),
    ("Entropy", "nats per token", column("entropy")),
    ("Gradient norm", "before clipping", column("grad_norm")),
    ("Gradient's signal", "cosine of two halves; 1: no noise", column("grad_cosine")),
    ("Speed", "generated tokens / s of rollout, grading and update", tokens_per_second),
)


def draw_curves(axes, runs: dict[str, Run], points_of: Callable) -> None:
    """A curve of every run, with gaps at None, and their mean at the steps that all have. Where
    points are few, not one for each step, they are marked, with their standard errors as bars."""
    with_mean, curves = alike(runs), []
    for i, run in enumerate(runs.values()):
        points = np.array(points_of(run), dtype=float).reshape(-1, 3)  # None becomes nan
        steps, values, errors = points.T
        curves.append(dict(zip(steps, values, strict=True)))
        marks = {"yerr": errors, "marker": "o", "ms": 3} if len(points) < max(2, len(run.rows)) else {}
        if len(points):
            axes.errorbar(steps, values, capsize=2, **marks, **line_style(i, with_mean))
    if with_mean:
        steps = sorted(set.intersection(*map(set, curves)))
        means = [statistics.fmean(curve[step] for curve in curves) for step in steps]
        axes.plot(steps, means, color="black", lw=2.2, zorder=3)
    axes.set_xlabel("optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # two ticks of a short run would be halves


def line_style(i: int, thin: bool = False) -> dict:
    """How curve i is drawn; 24 can be told apart."""
    width = {"lw": 0.9, "alpha": 0.6} if thin else {"lw": 1.6}
    return width | {"color": COLOURS[i % len(COLOURS)], "ls": list(DASHES)[i % len(DASHES)]}
