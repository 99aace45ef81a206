"""Draws runs of train.py from their metrics.jsonl, and prints a Markdown table of them.

    python -m tools.plot out                                one run, to out/metrics.png
    python -m tools.plot runs/seed-* --out seeds.png        several: thin lines, and their mean where all have a value
    python -m tools.plot runs/seed-* --html report.html     a page, in one file, with samples and all: tools/report.py

The picture needs matplotlib, the page nothing. Runs may have different numbers of steps, and may be going on.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

from run.flags import fail
from tools import report

NEEDED = ("step", "reward", "valid_share", "easy_share", "hard_share", "alpha", "completion_tokens")
NEEDED += ("generated_tokens", "seconds")
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
    parser.add_argument("--out", metavar="FILE.png", help="picture, replaced (default: metrics.png in the first RUN)")
    parser.add_argument("--html", metavar="FILE.html", help="page, replaced; no picture then, unless --out is given")
    args = parser.parse_args(argv)
    runs = {name.rstrip("/"): read(Path(name, "metrics.jsonl")) for name in args.runs}
    print(table(runs), flush=True)
    if args.html:
        write_page(runs, Path(args.html))
    if args.out or not args.html:
        write_picture(runs, Path(args.out or Path(args.runs[0], "metrics.png")))


def write_page(runs: dict[str, list[dict]], out: Path) -> None:
    """The page of tools/report.py, with what else the runs' folders hold."""
    whole = {}
    for name, rows in runs.items():
        config = Path(name, "config.json")
        samples, groups = (read_lines(Path(name, file)) for file in ("samples.jsonl", "groups.jsonl"))
        groups = [each for each in groups if each.get("rewards") and each.get("tokens")]
        flags = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        whole[name] = report.Run(rows, samples, groups, flags)
    text = report.page(whole, table(runs))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        fail(f"--html {out}: can't be written ({error}); give a .html in a folder of yours")
    print(f"\n{out}: {len(text) / 1e6:.1f} MB; opens in any browser")


def write_picture(runs: dict[str, list[dict]], out: Path) -> None:
    figure = draw(runs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that is no format of matplotlib's
        fail(f"--out {out}: can't be written ({error}); give a .png in a folder of yours")
    print(f"\n{out}")


def read(file: Path) -> list[dict]:
    """The rows of a metrics.jsonl. A last line that is not whole is left out: it is being written, or a kill cut it."""
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
    """The objects of a JSONL file of a run, each with its step; none if there is no file."""
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
            fail(f"{file}, line {number}: not a row of train.py ({line.strip()[:40]!r}); take it out, or give another")
        rows.append(row)
    return rows


# --------------------------------------------------------------------------------------------------------------- table


def evaluations(rows: list[dict]) -> list[tuple[int, float, float]]:
    """(step, accuracy, standard error) of each evaluation, the one before training as step 0."""
    points = [(row["step"], row["accuracy"], row["accuracy_se"]) for row in rows if "accuracy" in row]
    first = [(0, row["accuracy_before"], row["accuracy_before_se"]) for row in rows[:1] if "accuracy_before" in row]
    return first + points


def summary(rows: list[dict]) -> dict[str, tuple[float | None, float | None]]:
    """Column of the table -> (value, standard error or None); accuracies and shares in %."""

    def mean(name, part=rows):
        known = [row[name] for row in part if row[name] is not None]
        return statistics.fmean(known) if known else None

    points = [(step, 100 * share, 100 * error) for step, share, error in evaluations(rows)]
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


def table(runs: dict[str, list[dict]]) -> str:
    """Markdown, a row a run: ± is the standard error over held-out problems. With several runs a last row holds their
    mean ± standard deviation (sample), of what all of them have."""
    summaries = {name: summary(rows) for name, rows in runs.items()}
    columns = list(next(iter(summaries.values())))
    if len(runs) > 1:
        means = {}
        for column in columns:
            values = [each[column][0] for each in summaries.values()]
            complete = None not in values
            means[column] = (statistics.fmean(values), statistics.stdev(values)) if complete else (None, None)
        summaries["mean ± sd"] = means
    lines = ["| run | " + " | ".join(columns) + " |", "|:--|" + "--:|" * len(columns)]
    for name, values in summaries.items():
        lines.append(f"| {name} | " + " | ".join(shown(column, *values[column]) for column in columns) + " |")
    return "\n".join(lines)


def shown(column: str, value: float | None, spread: float | None) -> str:
    """A cell: the value, and its ± where it has one."""
    if value is None:
        return "–"
    digits = 0 if column in ("steps", "generated tokens", "seconds") else 1 if column.endswith("%") else 3
    return f"{value:,.{digits}f}" + ("" if spread is None else f" ± {spread:,.{digits}f}")


# ------------------------------------------------------------------------------------------------------------- picture


def drawing():
    """matplotlib and its Figure, of which only pictures have need; exits 2 where it is missing."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        fail("drawing needs matplotlib: pip install matplotlib")
    return matplotlib, Figure


def draw(runs: dict[str, list[dict]]):
    """A figure of five panels, reward, accuracy, alpha, shares and length over steps, with the legend in the sixth."""
    matplotlib, Figure = drawing()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 7), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
        (reward, accuracy, alpha), (shares, length, legend) = figure.subplots(2, 3)
        panel(reward, runs, "reward", "Reward", "mean over completions")
        panel(alpha, runs, "alpha", "α, Eq. 7", "groups / valid groups")
        panel(length, runs, "completion_tokens", "Completion length", "tokens, mean")
        for kind, (colour, _) in KINDS.items():
            panel(shares, runs, f"{kind}_share", "Kinds of groups", "share of groups, %", scale=100, colour=colour)
        shares.set_ylim(-3, 103)
        accuracy_panel(accuracy, runs)
        for axes in (reward, accuracy, alpha, shares, length):
            axes.set_xlabel("optimizer step")
        legend_panel(legend, runs)
    return figure


def panel(axes, runs, name: str, title: str, unit: str, scale: float = 1.0, colour: str | None = None) -> None:
    """A column of every run, and their mean; what is None is a gap."""
    curves = []
    for i, rows in enumerate(runs.values()):
        curves.append({row["step"]: math.nan if row[name] is None else scale * row[name] for row in rows})
        axes.plot(*zip(*curves[-1].items(), strict=True), **line_style(i, runs, colour))
    plot_mean(axes, curves, colour or "black")
    axes.set_title(title)
    axes.set_ylabel(unit)


def accuracy_panel(axes, runs) -> None:
    """Held-out accuracy with standard errors, step 0 the model before training."""
    curves = [{step: (100 * p, 100 * (error or 0)) for step, p, error in evaluations(rows)} for rows in runs.values()]
    for i, curve in enumerate(curves):
        if curve:
            values, errors = zip(*curve.values(), strict=True)
            axes.errorbar(list(curve), values, errors, capsize=2, marker="o", ms=3, **line_style(i, runs, None))
    plot_mean(axes, [{step: value for step, (value, _) in curve.items()} for curve in curves], "black")
    axes.set_title("Held-out accuracy, greedy")
    axes.set_ylabel("%, ± standard error")
    if not any(curves):
        axes.text(0.5, 0.5, "never evaluated", transform=axes.transAxes, ha="center", color="#666666")


def plot_mean(axes, curves: list[dict[int, float]], colour: str) -> None:
    """The mean of several runs, over the steps that all of them have; nan in one is a gap."""
    steps = sorted(set.intersection(*map(set, curves)))
    if len(curves) > 1 and steps:
        axes.plot(steps, [statistics.fmean(c[step] for c in curves) for step in steps], color=colour, lw=2.2, zorder=3)


def line_style(i: int, runs, colour: str | None) -> dict:
    """How run i is drawn, where no colour says something else: twelve can be told apart."""
    thin = {"lw": 0.9, "alpha": 0.6} if len(runs) > 1 else {"lw": 1.6}
    dashes = DASHES[i // len(COLOURS) % len(DASHES)]
    return thin | ({"color": colour} if colour else {"color": COLOURS[i % len(COLOURS)], "ls": dashes})


def legend_panel(axes, runs) -> None:
    """Which line is which run, and which kind of group; outside the data."""
    from matplotlib.lines import Line2D

    axes.axis("off")
    lines = [(f"{kind} groups: {meaning}", {"color": colour, "lw": 2.2}) for kind, (colour, meaning) in KINDS.items()]
    if len(runs) > 1:
        lines.append((f"mean of {len(runs)} runs", {"color": "black", "lw": 2.2}))
    for i, name in enumerate(runs):
        short = name if len(name) <= 36 else "…" + name[-35:]
        lines.append((short, line_style(i, runs, None) | {"lw": 1.8, "alpha": 1}))
    labels, styles = zip(*lines, strict=True)
    handles = [Line2D([], [], **style) for style in styles]
    axes.legend(handles, labels, loc="upper left", fontsize=min(11, 140 / len(lines)))  # points, to fit the cell


if __name__ == "__main__":
    main()
