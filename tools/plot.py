"""Plots runs of train.py from their metrics.jsonl, and prints a table of them, in a file or a pipe as Markdown.

    python -m tools.plot out                                one run, as out/metrics.png
    python -m tools.plot runs/seed-* --out seeds.png        several runs; if only their seeds differ, with their mean
    python -m tools.plot runs/seed-* --html report.html     a self-contained page with samples: tools/report.py

Runs may be unfinished, and may differ in length.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from run.flags import columns, fail, printable, user_input
from run.scores import table
from tools import report
from tools.runs import PANELS, STYLE, Run, accuracy, alike, draw_curves, line_style, markdown, number, read


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.plot", description=__doc__.partition("\n")[0])
    parser.error = fail
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, train.py's --out")
    parser.add_argument("--out", metavar="FILE.png", help="picture to write (default: metrics.png in the first RUN)")
    parser.add_argument("--html", metavar="FILE.html", help="page to write; without --out there is no picture then")
    args = parser.parse_args(argv)
    from run.faults import keep_streams  # imports torch

    keep_streams()
    runs = {name.rstrip("/"): user_input(read, Path(name), whole=bool(args.html)) for name in args.runs}
    print(printable((table if columns() else markdown)(cells(runs))), flush=True)
    saves = {}
    if args.html:
        page = report.page(runs, cells(runs)).encode("utf-8", "replace")
        saves[Path(args.html)] = lambda file: file.write_bytes(page)
    if args.out or not args.html:
        saves[Path(args.out or Path(args.runs[0], "metrics.png"))] = partial(draw(runs).savefig, dpi=150)
    for file, save in saves.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save(file)
        except (OSError, ValueError) as error:  # ValueError: matplotlib knows no format of that name
            fail(f"{file}: can't be written ({error}); give another --out or --html, in a folder of yours")
        print(f"\n{file}")


def summary(run: Run) -> dict[str, tuple]:
    """Column of the table -> (value,) or (value, standard error over held-out problems); accuracies and shares in %."""
    rows, points = run.rows, accuracy(run)

    def mean(name, part=rows):
        known = [row[name] for row in part if row[name] is not None]
        return statistics.fmean(known) if known else None

    return {
        "steps": (rows[-1]["step"],),
        "reward, first 10": (mean("reward", rows[:10]),),
        "reward, last 10": (mean("reward", rows[-10:]),),
        "accuracy before, %": points[0][1:] if points and points[0][0] == 0 else (None,),
        "accuracy after, %": points[-1][1:] if points and points[-1][0] > 0 else (None,),
        "valid groups, %": (100 * mean("valid_share"),),
        "mean α": (mean("alpha"),),
        "generated tokens": (rows[-1]["generated_tokens"],),
        "seconds": (rows[-1]["seconds"],),
    }


def cells(runs: dict[str, Run]) -> list[list[str]]:
    """A head and one row per run. If only seeds differ, the last row is the mean ± sample standard deviation over runs,
    of values that all of them have."""
    summaries = {name: summary(run) for name, run in runs.items()}
    lines = [["run", *next(iter(summaries.values()))]]
    if alike(runs):
        means = {}
        for name in lines[0][1:]:
            values = [each[name][0] for each in summaries.values()]
            means[name] = (None,) if None in values else (statistics.fmean(values), statistics.stdev(values))
        summaries["mean ± sd"] = means
    return lines + [
        [name, *(" ± ".join(map(number, pair)) for pair in each.values())] for name, each in summaries.items()
    ]


def draw(runs: dict[str, Run]):
    """A figure of the first panels over steps, and the legend; if only seeds differ, with the mean of the runs."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(16, 7), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
        *panels, legend = figure.subplots(2, 4).flat
        for axes, (title, unit, points_of) in zip(panels, PANELS, strict=False):
            draw_curves(axes, runs, points_of)
            axes.set(title=title, ylabel=unit)
        legend.axis("off")
        with_mean = alike(runs)
        if with_mean:
            legend.plot([], [], color="black", lw=2.2, label=f"mean of {len(runs)} runs")
        for i, name in enumerate(runs):
            short = (name if len(name) <= 36 else "…" + name[-35:]).replace("$", r"\$")
            short = f" {short}" if name[0] == "_" else short  # which would hide it
            legend.plot([], [], label=short, **line_style(i, with_mean) | {"lw": 1.8, "alpha": 1})
        legend.legend(loc="upper left", fontsize=min(11, 140 / len(legend.lines)))  # points, to fit the cell
    return figure


if __name__ == "__main__":
    main()
