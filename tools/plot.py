"""Plots runs of train.py from their metrics.jsonl, and prints a Markdown table of them.

    python -m tools.plot out                                one run, as out/metrics.png
    python -m tools.plot runs/seed-* --out seeds.png        several runs; if only their seeds differ, with their mean
    python -m tools.plot runs/seed-* --html report.html     a self-contained page with samples: tools/report.py

The picture needs matplotlib, the page does not. Runs may be unfinished, and may differ in length.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

if not __package__:  # python tools/plot.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from run.flags import fail
from tools import report

NEEDED = ("step", "reward", "valid_share", "easy_share", "hard_share", "alpha", "completion_tokens")
NEEDED += ("generated_tokens", "seconds")
# flags that change no number of a run
BOOKKEEPING = {"out", "resume", "auto_resume", "overwrite", "plan", "tensorboard", "wandb", "save_every", "keep"}
BOOKKEEPING |= {"check_every", "rank_timeout", "reward_timeout", "cache_tokens", "noise_every", "record", "replay"}
# Okabe and Ito's colours, which the colour-blind can tell apart: three for runs, three for kinds of groups
COLOURS, DASHES = ("#0072B2", "#D55E00", "#009E73"), ("-", "--", ":", "-.")
KINDS = {"valid": ("#CC79A7", "rewards differ"), "easy": ("#56B4E9", "all right"), "hard": ("#E69F00", "all wrong")}
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
STYLE |= {"axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlesize": 12}
STYLE |= {"axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.plot", description=__doc__.partition("\n")[0])
    parser.error = fail
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, train.py's --out")
    parser.add_argument("--out", metavar="FILE.png", help="picture to write (default: metrics.png in the first RUN)")
    parser.add_argument("--html", metavar="FILE.html", help="page to write; without --out there is no picture then")
    args = parser.parse_args(argv)
    runs = {name.rstrip("/"): read(Path(name)) for name in args.runs}
    print(markdown(cells(runs)), flush=True)
    if args.html:
        text, out = report.page(runs, cells(runs)), Path(args.html)
        write("--html", out, lambda: out.write_text(text, encoding="utf-8", errors="replace"))
        print(f"\n{out}: {len(text) / 1e6:.1f} MB; opens in any browser")
    if args.out or not args.html:
        figure, out = draw(runs), Path(args.out or Path(args.runs[0], "metrics.png"))
        write("--out", out, lambda: figure.savefig(out, dpi=150))
        print(f"\n{out}")


def write(flag: str, out: Path, save: Callable) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save()
    except (OSError, ValueError) as error:  # ValueError: matplotlib knows no format of that name
        fail(f"{flag} {out}: can't be written ({error}); give another file, in a folder of yours")


def read(folder: Path) -> report.Run:
    """What a run left in its folder. Only metrics.jsonl must be there."""
    file, config = folder / "metrics.jsonl", folder / "config.json"
    if not file.is_file():
        fail(f"{file}: no such file; give the folder of a run, train.py's --out")
    rows, samples, groups = (read_lines(folder / f"{name}.jsonl") for name in ("metrics", "samples", "groups"))
    for number, row in enumerate(rows, 1):
        if missing := [name for name in NEEDED if name not in row]:
            fail(f"{file}, line {number}: no {', '.join(missing)}; give a metrics.jsonl that train.py wrote")
    if not rows:
        fail(f"{file}: holds no step yet; wait for the first, or give another run")
    groups = [each for each in groups if each.get("rewards") and each.get("tokens")]
    try:
        return report.Run(rows, samples, groups, json.loads(config.read_text("utf-8")) if config.is_file() else {})
    except json.JSONDecodeError:
        fail(f"{config}: not the config.json of a run; remove it, or give another run")


def read_lines(file: Path) -> list[dict]:
    """The objects of a run's JSONL file, each with its step; empty if there is no file. An incomplete last line is
    ignored: it is being written, or a kill cut it."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if file.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                break
            row = None
        if not isinstance(row, dict) or "step" not in row:
            fail(f"{file}, line {number}: not a row of train.py ({line.strip()[:40]!r}); remove it, or give another")
        rows.append(row)
    return rows


def alike(runs: dict[str, report.Run]) -> bool:
    """Whether these are several runs that differ in nothing but the seed: only then does their mean say anything."""
    ignored = BOOKKEEPING | {"seed", "command", "ranks", "versions"}
    configs = [{name: value for name, value in run.config.items() if name not in ignored} for run in runs.values()]
    return len(configs) > 1 and all(config == configs[0] for config in configs)


def summary(run: report.Run) -> dict[str, tuple[float | None, float | None]]:
    """Column of the table -> (value, standard error or None); accuracies and shares in %."""

    rows = run.rows

    def mean(name, part=rows):
        known = [row[name] for row in part if row[name] is not None]
        return statistics.fmean(known) if known else None

    points = report.accuracy(run)
    before = points[0][1:] if points and points[0][0] == 0 else (None, None)
    after = points[-1][1:] if points and points[-1][0] > 0 else (None, None)
    return {
        "steps": (rows[-1]["step"], None),
        "reward, first 10": (mean("reward", rows[:10]), None),
        "reward, last 10": (mean("reward", rows[-10:]), None),
        "accuracy before, %": before,
        "accuracy after, %": after,
        "valid groups, %": (100 * mean("valid_share"), None),
        "mean α": (mean("alpha"), None),
        "generated tokens": (rows[-1]["generated_tokens"], None),
        "seconds": (rows[-1]["seconds"], None),
    }


def cells(runs: dict[str, report.Run]) -> list[list[str]]:
    """A head and one row per run; ± is the standard error over held-out problems. If only seeds differ, the last row is
    the mean ± sample standard deviation over runs, of values that all of them have."""
    summaries = {name: summary(run) for name, run in runs.items()}
    columns = list(next(iter(summaries.values())))
    if alike(runs):
        means = {}
        for column in columns:
            values = [each[column][0] for each in summaries.values()]
            complete = None not in values
            means[column] = (statistics.fmean(values), statistics.stdev(values)) if complete else (None, None)
        summaries["mean ± sd"] = means
    rows = [[name, *(shown(column, *values[column]) for column in columns)] for name, values in summaries.items()]
    return [["run", *columns], *rows]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table; the first line is its head."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|:--|" + "--:|" * (len(lines[0]) - 1), *rows[1:]])


def shown(column: str, value: float | None, spread: float | None) -> str:
    """A cell: the value, and its ± where it has one."""
    if value is None:
        return "–"
    digits = 0 if column in ("steps", "generated tokens", "seconds") else 1 if column.endswith("%") else 3
    return f"{value:,.{digits}f}" + ("" if spread is None else f" ± {spread:,.{digits}f}")


def drawing():
    """matplotlib and its Figure, which only pictures need; exits with code 2 if it is not installed."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        fail("drawing needs matplotlib: pip install matplotlib")
    return matplotlib, Figure


def draw(runs: dict[str, report.Run]):
    """A figure of five panels over steps, and the legend; if only seeds differ, with the mean of the runs."""
    matplotlib, Figure = drawing()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 7), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
        (reward, accuracy, alpha), (shares, length, legend) = figure.subplots(2, 3)
        panel(reward, runs, report.column("reward"), "Reward", "mean over completions")
        panel(accuracy, runs, report.accuracy, "Held-out accuracy, greedy", "%, ± standard error", marker="o", ms=3)
        panel(alpha, runs, report.column("alpha"), "α, Eq. 7", "groups / valid groups")
        panel(length, runs, report.column("completion_tokens"), "Completion length", "tokens, mean")
        for kind, (colour, _) in KINDS.items():
            panel(shares, runs, report.column(f"{kind}_share", 100), "Kinds of groups", "share of groups, %", colour)
        shares.set_ylim(-3, 103)
        if not accuracy.containers:
            accuracy.text(0.5, 0.5, "never evaluated", transform=accuracy.transAxes, ha="center", color="#666666")
        legend_panel(legend, runs)
    return figure


def panel(axes, runs: dict[str, report.Run], points_of: Callable, title: str, unit: str, colour=None, **marks) -> None:
    """A curve of every run, with gaps at None, and their mean at the steps that all have. marks: with error bars."""
    with_mean, curves = alike(runs), []
    for i, run in enumerate(runs.values()):
        points = np.array(points_of(run), dtype=float).reshape(-1, 3)  # None becomes nan
        steps, values, errors = points.T
        curves.append(dict(zip(steps, values, strict=True)))
        style = line_style(i, with_mean, colour)
        if len(points):
            axes.errorbar(steps, values, errors if marks else None, capsize=2, **marks, **style)
    if with_mean:
        steps = sorted(set.intersection(*map(set, curves)))
        means = [statistics.fmean(curve[step] for curve in curves) for step in steps]
        axes.plot(steps, means, color=colour or "black", lw=2.2, zorder=3)
    axes.set(title=title, ylabel=unit, xlabel="optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True)


def line_style(i: int, thin: bool, colour: str | None) -> dict:
    """How run i is drawn; twelve runs can be told apart."""
    width = {"lw": 0.9, "alpha": 0.6} if thin else {"lw": 1.6}
    dashes = DASHES[i // len(COLOURS) % len(DASHES)]
    return width | ({"color": colour} if colour else {"color": COLOURS[i % len(COLOURS)], "ls": dashes})


def legend_panel(axes, runs: dict[str, report.Run]) -> None:
    """Which line is which run, and which kind of group."""
    axes.axis("off")
    for kind, (colour, meaning) in KINDS.items():
        axes.plot([], [], color=colour, lw=2.2, label=f"{kind} groups: {meaning}")
    with_mean = alike(runs)
    if with_mean:
        axes.plot([], [], color="black", lw=2.2, label=f"mean of {len(runs)} runs")
    for i, name in enumerate(runs):
        short = name if len(name) <= 36 else "…" + name[-35:]
        axes.plot([], [], label=short, **line_style(i, with_mean, None) | {"lw": 1.8, "alpha": 1})
    axes.legend(loc="upper left", fontsize=min(11, 140 / len(axes.lines)))  # points, to fit the cell


if __name__ == "__main__":
    main()
