"""Plots runs of train.py from their metrics.jsonl, and prints a Markdown table of them.

    python -m tools.plot out                                one run, as out/metrics.png
    python -m tools.plot runs/seed-* --out seeds.png        several runs; if only their seeds differ, with their mean
    python -m tools.plot runs/seed-* --html report.html     a self-contained page with samples: tools/report.py

The picture needs matplotlib, the page does not. Runs may be unfinished, and may differ in length.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

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
    runs = {name.rstrip("/"): read(Path(name, "metrics.jsonl")) for name in args.runs}
    configs = {name: read_config(Path(name, "config.json")) for name in runs}
    same = alike(list(configs.values()))
    print(table(runs, same), flush=True)
    if args.html:
        write_page(runs, configs, cells(runs, same), Path(args.html))
    if args.out or not args.html:
        write_picture(draw(runs, same), Path(args.out or Path(args.runs[0], "metrics.png")))


def write_page(runs: dict[str, list[dict]], configs: dict[str, dict], summary: list[list[str]], out: Path) -> None:
    """Writes the page of tools/report.py."""
    folders = {}
    for name, rows in runs.items():
        samples, groups = (read_lines(Path(name, file)) for file in ("samples.jsonl", "groups.jsonl"))
        groups = [each for each in groups if each.get("rewards") and each.get("tokens")]
        folders[name] = report.Run(rows, samples, groups, configs[name])
    text = report.page(folders, summary)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        fail(f"--html {out}: can't be written ({error}); give a .html in a folder of yours")
    print(f"\n{out}: {len(text) / 1e6:.1f} MB; opens in any browser")


def write_picture(figure, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: matplotlib knows no format of that name
        fail(f"--out {out}: can't be written ({error}); give a .png in a folder of yours")
    print(f"\n{out}")


def read(file: Path) -> list[dict]:
    """The rows of a metrics.jsonl. An incomplete last line is ignored: it is being written, or a kill cut it."""
    if not file.is_file():
        fail(f"{file}: no such file; give the folder of a run, train.py's --out")
    rows = read_lines(file)
    for number, row in enumerate(rows, 1):
        if missing := [name for name in NEEDED if name not in row]:
            fail(f"{file}, line {number}: no {', '.join(missing)}; give a metrics.jsonl that train.py wrote")
    if not rows:
        fail(f"{file}: holds no step yet; wait for the first, or give another run")
    return rows


def read_lines(file: Path) -> list[dict]:
    """The objects of a run's JSONL file, each with its step; empty if there is no file."""
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


def read_config(file: Path) -> dict:
    """The flags of a run; empty if there is no file."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except json.JSONDecodeError:
        fail(f"{file}: not the config.json of a run; remove it, or give another run")


def alike(configs: list[dict]) -> bool:
    """Whether runs differ in nothing but the seed: only then does their mean say anything."""
    ignored = BOOKKEEPING | {"seed", "command", "ranks", "versions"}
    first, *others = ({name: value for name, value in each.items() if name not in ignored} for each in configs)
    return all(each == first for each in others)


def summary(rows: list[dict]) -> dict[str, tuple[float | None, float | None]]:
    """Column of the table -> (value, standard error or None); accuracies and shares in %."""

    def mean(name, part=rows):
        known = [row[name] for row in part if row[name] is not None]
        return statistics.fmean(known) if known else None

    points = report.accuracy(report.Run(rows))
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


def table(runs: dict[str, list[dict]], with_mean: bool = True) -> str:
    """Markdown, one row per run; ± is the standard error over held-out problems. The last row, with_mean, is the mean ±
    sample standard deviation over several runs, of values that all of them have."""
    return markdown(cells(runs, with_mean))


def cells(runs: dict[str, list[dict]], with_mean: bool) -> list[list[str]]:
    summaries = {name: summary(rows) for name, rows in runs.items()}
    columns = list(next(iter(summaries.values())))
    if with_mean and len(runs) > 1:
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


def draw(runs: dict[str, list[dict]], with_mean: bool = True):
    """A figure of five panels over steps, and the legend; with_mean: the mean of several runs too."""
    with_mean = with_mean and len(runs) > 1
    matplotlib, Figure = drawing()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 7), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
        (reward, accuracy, alpha), (shares, length, legend) = figure.subplots(2, 3)
        panel(reward, runs, with_mean, "reward", "Reward", "mean over completions")
        panel(alpha, runs, with_mean, "alpha", "α, Eq. 7", "groups / valid groups")
        panel(length, runs, with_mean, "completion_tokens", "Completion length", "tokens, mean")
        for kind, (colour, _) in KINDS.items():
            panel(shares, runs, with_mean, f"{kind}_share", "Kinds of groups", "share of groups, %", 100, colour)
        shares.set_ylim(-3, 103)
        accuracy_panel(accuracy, runs, with_mean)
        for axes in (reward, accuracy, alpha, shares, length):
            axes.set_xlabel("optimizer step")
            axes.xaxis.get_major_locator().set_params(integer=True)
        legend_panel(legend, list(runs), with_mean)
    return figure


def panel(axes, runs, with_mean: bool, name: str, title: str, unit: str, scale=1.0, colour=None) -> None:
    """One column of every run; None is a gap."""
    curves = []
    for i, rows in enumerate(runs.values()):
        curves.append({row["step"]: math.nan if row[name] is None else scale * row[name] for row in rows})
        axes.plot(*zip(*curves[-1].items(), strict=True), **line_style(i, with_mean, colour))
    if with_mean:
        plot_mean(axes, curves, colour or "black")
    axes.set_title(title)
    axes.set_ylabel(unit)


def accuracy_panel(axes, runs, with_mean: bool) -> None:
    """Held-out accuracy with standard errors; step 0 is the model before training."""
    curves = [report.accuracy(report.Run(rows)) for rows in runs.values()]
    for i, curve in enumerate(curves):
        if curve:
            axes.errorbar(*zip(*curve, strict=True), capsize=2, marker="o", ms=3, **line_style(i, with_mean, None))
    if with_mean:
        plot_mean(axes, [{step: value for step, value, _ in curve} for curve in curves], "black")
    axes.set_title("Held-out accuracy, greedy")
    axes.set_ylabel("%, ± standard error")
    if not any(curves):
        axes.text(0.5, 0.5, "never evaluated", transform=axes.transAxes, ha="center", color="#666666")


def plot_mean(axes, curves: list[dict[int, float]], colour: str) -> None:
    """The mean over runs, at the steps that all of them have; nan in one is a gap."""
    steps = sorted(set.intersection(*map(set, curves)))
    if steps:
        axes.plot(steps, [statistics.fmean(c[step] for c in curves) for step in steps], color=colour, lw=2.2, zorder=3)


def line_style(i: int, thin: bool, colour: str | None) -> dict:
    """How run i is drawn; twelve runs can be told apart."""
    width = {"lw": 0.9, "alpha": 0.6} if thin else {"lw": 1.6}
    dashes = DASHES[i // len(COLOURS) % len(DASHES)]
    return width | ({"color": colour} if colour else {"color": COLOURS[i % len(COLOURS)], "ls": dashes})


def legend_panel(axes, names: list[str], with_mean: bool) -> None:
    """Which line is which run, and which kind of group."""
    from matplotlib.lines import Line2D

    axes.axis("off")
    lines = [(f"{kind} groups: {meaning}", {"color": colour, "lw": 2.2}) for kind, (colour, meaning) in KINDS.items()]
    if with_mean:
        lines.append((f"mean of {len(names)} runs", {"color": "black", "lw": 2.2}))
    for i, name in enumerate(names):
        short = name if len(name) <= 36 else "…" + name[-35:]
        lines.append((short, line_style(i, with_mean, None) | {"lw": 1.8, "alpha": 1}))
    labels, styles = zip(*lines, strict=True)
    handles = [Line2D([], [], **style) for style in styles]
    axes.legend(handles, labels, loc="upper left", fontsize=min(11, 140 / len(lines)))  # points, to fit the cell


if __name__ == "__main__":
    main()
