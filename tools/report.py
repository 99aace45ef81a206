"""Makes one self-contained page of runs, for `python -m tools.plot RUN [RUN ...] --html report.html`.

From a run's folder come metrics.jsonl (the curves) and, if present, config.json (the flags in which runs differ),
samples.jsonl (completions to read) and groups.jsonl: one object per step, with S groups of G samples,

    {"step": 7, "rewards": [[1.0, 0.0, ...], ...], "tokens": [[31, 40, ...], ...]}      each S lists of G numbers

report.html is the template, with style and script; @@NAME@@ marks a place to fill. Text from a run is untrusted: it is
escaped, or reaches the page as JSON that is shown through textContent; and the page's security policy allows only its
own script, identified by its hash, and no network access.
"""

import base64
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from run.flags import fail

MAX_POINTS, MAX_STEPS, MAX_GROUPS, MAX_SAMPLES, MAX_TEXT = 400, 60, 64, 400, 4000  # the most that a page holds
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 220, 46, 10, 8, 36  # of a chart, and its margins
COLOURS = 6  # in report.html; further runs repeat them, dashed


@dataclass(frozen=True)
class Run:
    """The files of a run's folder; all but rows may be empty."""

    rows: list[dict]
    samples: list[dict] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)
    config: dict = field(default_factory=dict)


Point = tuple[float, float | None, float]  # step, value (None: a gap), standard error (0: none)


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


# title, unit, points, range of the value axis (None: from the data)
SHARE = (0.0, 100.0)
PANELS = (
    ("Reward", "mean over completions, ± standard error where known", column("reward"), None),
    ("Held-out accuracy, greedy", "%, ± standard error", accuracy, SHARE),
    ("α, Eq. 7", "groups / valid groups", column("alpha"), None),
    ("Valid groups", "% of groups: rewards differ", column("valid_share", 100), SHARE),
    ("Easy groups", "% of groups: all right", column("easy_share", 100), SHARE),
    ("Hard groups", "% of groups: all wrong", column("hard_share", 100), SHARE),
    ("Completion length", "tokens, mean", column("completion_tokens"), None),
    ("Truncated", "% of completions that hit the limit", column("truncated_share", 100), None),
    ("Entropy", "nats per token", column("entropy"), None),
    ("Gradient norm", "before clipping", column("grad_norm"), None),
    ("Gradient's signal", "cosine of two halves; 1: no noise", column("grad_cosine"), None),
    ("Speed", "generated tokens / s of rollout, grading and update", tokens_per_second, None),
)
DRAWN = {"step", "reward", "accuracy", "accuracy_before", "alpha", "valid_share", "easy_share", "hard_share"}
DRAWN |= {"completion_tokens", "truncated_share", "entropy", "grad_norm", "grad_cosine"}


def thinned(points: list[Point]) -> list[Point]:
    """At most MAX_POINTS points, each the mean of equally many neighbours."""
    size = math.ceil(len(points) / MAX_POINTS) or 1
    thin = []
    for start in range(0, len(points), size):
        steps, values, errors = zip(*points[start : start + size], strict=True)
        known = [value for value in values if value is not None]
        thin.append((steps[-1], statistics.fmean(known) if known else None, statistics.fmean(errors)))
    return thin


def spread(items: Sequence, count: int) -> list:
    """At most `count` evenly spaced items, including the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About `count` round numbers from low to high; whole: integers only."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = next(step for step in steps if step >= 0.999 * raw and (not whole or step.is_integer()))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """A number on an axis: at most four digits."""
    if abs(value) >= 1e4:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


@dataclass(frozen=True)
class Axes:
    """The ranges of a chart, which turn numbers into places in it."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - self.x[0]) / (self.x[1] - self.x[0])

    def down(self, y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - self.y[0]) / (self.y[1] - self.y[0])

    def place(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f},{self.down(y):.1f}"


def beside_axis(y: float, text: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def below_axis(x: float, text: str, y: int = HEIGHT - BOTTOM + 15) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>'


def svg(parts: list[str], x_label: str) -> str:
    """A chart of these parts; the unit of the value axis is in the caption above it."""
    label = below_axis((LEFT + WIDTH - RIGHT) / 2, x_label, HEIGHT - 4)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}{label}</svg>'


def frame(axes: Axes) -> list[str]:
    """Grid and numbers of both axes."""
    parts = []
    for value in ticks(*axes.y):
        parts.append(f'<path class="grid" d="M{LEFT} {axes.down(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(beside_axis(axes.down(value), shown(value)))
    parts += [below_axis(axes.across(value), shown(value)) for value in ticks(*axes.x, whole=True)]
    return [*parts, f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']


def bounds(low: float, high: float) -> tuple[float, float]:
    """A range with some margin; from 0 unless that would leave most of it empty."""
    if low >= 0 and low <= 0.6 * high:
        return 0.0, 1.05 * high or 1.0
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def line_class(run: int) -> str:
    return f"s{run % COLOURS}" + " dashed" * (run >= COLOURS)


def curve(axes: Axes, points: list[Point], run: int) -> str:
    """A line with a band of ± its error; few points also get dots and error bars, a single one a dot. None is a gap."""
    style, parts, place, few = line_class(run), [], axes.place, len(points) <= 12
    pieces = [list(piece) for gap, piece in groupby(points, key=lambda point: point[1] is None) if not gap]
    for piece in pieces:
        line = "L".join(place(step, value) for step, value, _ in piece)
        if any(error for *_, error in piece) and not few:
            edge = [place(step, value + error) for step, value, error in piece]
            edge += [place(step, value - error) for step, value, error in reversed(piece)]
            parts.append(f'<path class="band {style}" d="M{"L".join(edge)}Z"/>')
        parts.append(f'<path class="line {style}" d="M{line}"/>')
        for step, value, error in piece if few or len(piece) == 1 else []:
            x, y = place(step, value).split(",")
            parts.append(f'<circle class="dot {style}" cx="{x}" cy="{y}" r="2.5"/>')
            if error:
                reach = f"M{place(step, value - error)}L{place(step, value + error)}"
                parts.append(f'<path class="line {style}" d="{reach}"/>')
    return "".join(parts)


def chart(curves: list[list[Point]], x_label: str, limits=None, draw: Callable = curve) -> tuple[str, Axes]:
    """An SVG with one curve per run, and its axes; limits: of the value axis, if not from the data."""
    known = [point for points in curves for point in points if point[1] is not None]
    steps = [step for step, *_ in known]
    ends = [value + sign * error for _, value, error in known for sign in (-1, 1)]
    right = max(steps) if max(steps) > min(steps) else min(steps) + 1
    axes = Axes((min(steps), right), limits or bounds(min(ends), max(ends)))
    return svg(frame(axes) + [draw(axes, points, run) for run, points in enumerate(curves)], x_label), axes


def figure(title: str, unit: str, drawn: str, extra: str = "") -> str:
    return f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(unit)}</span></figcaption>{drawn}{extra}</figure>"


def grid(figures: str) -> str:
    return f'<div class="grid-of">{figures}</div>'


def curve_figures(runs: dict[str, Run], panels: Sequence[tuple]) -> tuple[dict[str, str], list[dict], str]:
    """HTML of the panels for which any run has values, the data of their read-outs, and a note on the other panels."""
    html, data, absent, null = {}, [], [], []
    for title, unit, points_of, limits in panels:
        curves = [thinned(points_of(run)) for run in runs.values()]
        if not any(value is not None for points in curves for _, value, _ in points):
            (null if any(curves) else absent).append(title)
            continue
        drawn, axes = chart(curves, "optimizer step", limits)
        html[title] = figure(title, unit, drawn, f'<output data-panel="{len(data)}">&nbsp;</output>')
        data.append({"x": axes.x, "curves": [[[step, rounded(value)] for step, value, _ in each] for each in curves]})
    notes = ("Not logged by these runs", absent), ("Null at every step", null)
    return html, data, " ".join(f"{what}: {', '.join(titles)}." for what, titles in notes if titles)


def rounded(value: float | None) -> float | None:
    """To four significant digits, but for integers."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def other_panels(runs: dict[str, Run]) -> list[tuple]:
    """Panels of all other numbers that runs log."""
    logged = [item for run in runs.values() for row in run.rows for item in row.items()]
    names = dict.fromkeys(name for name, value in logged if finite(value) and not isinstance(value, bool))
    return [(n, "", column(n), None) for n in names if n not in DRAWN and n.removesuffix("_se") not in DRAWN]


LENGTH_KEY = (
    '<p class="note"><svg viewBox="0 0 28 8" class="key"><path class="early" d="M0 4H28"/></svg>first tenth of steps '
    '<svg viewBox="0 0 28 8" class="key"><path class="late" d="M0 4H28"/></svg>last tenth</p>'
)


def shown_steps(run: Run) -> list[tuple[int, list[list[float]]]]:
    """Some steps of a run, each with at most MAX_GROUPS of its groups, evenly spaced by mean reward, best first."""
    return [
        (step["step"], spread(sorted(step["rewards"], key=statistics.fmean, reverse=True), MAX_GROUPS))
        for step in spread(run.groups, MAX_STEPS)
    ]


def matrix_data(run: Run) -> dict:
    """What the page's script draws: the groups of some steps, and the range of their rewards."""
    steps = [[step, [list(map(rounded, group)) for group in groups]] for step, groups in shown_steps(run)]
    rewards = [reward for _, groups in steps for group in groups for reward in group]
    return {"low": min(rewards), "high": max(rewards), "steps": steps}


def overview(run: Run) -> str:
    """SVG: a column per step, a cell per group, best on top, in a stronger colour the greater its mean reward."""
    numbers, columns = zip(*shown_steps(run), strict=True)
    means = [list(map(statistics.fmean, groups)) for groups in columns]
    low, high = min(map(min, means)), max(map(max, means))
    axes = Axes((0, len(means)), (0.0, 100.0))
    wide = axes.across(1) - axes.across(0)
    shades: dict[int, list[str]] = {}  # one path per shade: thousands of rectangles would be most of a page
    for i, column_means in enumerate(means):
        tall = (HEIGHT - TOP - BOTTOM) / len(column_means)
        for j, mean in enumerate(column_means):
            cell = f"M{axes.across(i):.1f} {TOP + j * tall:.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z"
            shades.setdefault(round(10 * (mean - low) / (high - low or 1)), []).append(cell)
    parts = [
        f'<path class="cell" fill-opacity="{0.06 + 0.094 * shade:.3f}" d="{"".join(cells)}"/>'
        for shade, cells in sorted(shades.items())
    ]
    parts += [beside_axis(axes.down(100 - share), share) for share in (0, 25, 50, 75, 100)]
    parts += [below_axis(axes.across(i + 0.5), int(numbers[i])) for i in spread(range(len(numbers)), 6)]
    return svg(parts, "optimizer step")


def matrix(name: str, run: Run, number: int) -> str:
    """The figure in which the page's script draws the rewards of the step that a slider selects."""
    last = len(spread(run.groups, MAX_STEPS)) - 1
    slider = (
        f'<svg data-matrix="{number}" role="img"></svg><output></output>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="step">'
    )
    return figure("Rewards of one step", f"{name}; across: groups, best first; down: samples", slider)


def histogram(run: Run) -> str:
    """SVG: completion lengths in the first and the last tenth of the steps, in at most 20 equal bins."""
    tenth = math.ceil(len(run.groups) / 10)
    parts = [
        [length for step in part for group in step["tokens"] for length in group]
        for part in (run.groups[:tenth], run.groups[-tenth:])
    ]
    top = max(map(max, parts))
    width = math.ceil((top + 1) / 20)
    edges = width * np.arange(top // width + 2)
    curves = []
    for lengths in parts:
        shares = 100 * np.histogram(lengths, edges)[0] / len(lengths)
        outline = np.repeat(edges, 2), [0.0, *np.repeat(shares, 2), 0.0]
        curves.append([(x, y, 0.0) for x, y in zip(*outline, strict=True)])

    def area(axes: Axes, points: list[Point], which: int) -> str:
        line = "L".join(axes.place(x, y) for x, y, _ in points)
        return f'<path class="{("early", "late")[which]}" d="M{line}"/>'

    return chart(curves, f"tokens of a completion, bins of {width}", draw=area)[0]


def sample_data(runs: dict[str, Run]) -> tuple[list[dict], int]:
    """The samples that the page shows, from evenly spaced steps, and how many there are in all."""
    total = sum(len(run.samples) for run in runs.values())
    samples = []
    for number, run in enumerate(runs.values()):
        for sample in spread(run.samples, MAX_SAMPLES // len(runs)):
            texts = {key: clipped(str(sample.get(key, ""))) for key in ("problem", "answer", "completion")}
            score = sample.get("reward")
            samples.append({"run": number, "step": sample["step"], "reward": score if finite(score) else None} | texts)
    return samples, total


def clipped(text: str) -> str:
    """The whole text, or both ends of a long one: the answer is at the end."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}\n[… {len(text) - MAX_TEXT:,} characters …]\n{text[-MAX_TEXT // 2 :]}"


def differences(runs: dict[str, Run]) -> str:
    """A table of the flags in which runs differ; for one run, all of them, collapsed."""
    names = dict.fromkeys(name for run in runs.values() for name in run.config if name != "command")
    rows = [[name, *(json.dumps(run.config.get(name), ensure_ascii=False) for run in runs.values())] for name in names]
    title, is_open = "Flags", ""
    if len(runs) > 1:
        rows = [[name, *values] for name, *values in rows if len(set(values)) > 1]
        title, is_open = "Flags in which the runs differ", " open"
    table = html_table([["", *runs], *([cell[:200] for cell in row] for row in rows)])
    return f"<details{is_open}><summary>{title}</summary>{table}</details>" if rows else ""


def html_table(rows: list[list[str]]) -> str:
    head, *body = [[escape(cell) for cell in row] for row in rows]
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for first, *cells in body]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def page(runs: dict[str, Run], summary: list[list[str]]) -> str:
    """The whole page; summary: the table that tools.plot prints, a row per run."""
    if len(summary) < len(summary[0]):
        summary = list(map(list, zip(*summary, strict=True)))  # a few runs fit a narrow screen across
    others = other_panels(runs)
    curves, panels, note = curve_figures(runs, [*PANELS, *others])
    more = "".join(curves.pop(name) for name, *_ in others)
    groups = {name: run for name, run in runs.items() if run.groups}
    unit = "% of groups, best first; stronger colour: greater mean reward"
    views = [
        [figure("Groups over time", f"{name}; {unit}", overview(run)) for name, run in groups.items()],
        [matrix(name, run, number) for number, (name, run) in enumerate(groups.items())],
        [figure("Completion lengths", f"{n}; % of completions", histogram(r), LENGTH_KEY) for n, r in groups.items()],
    ]
    if len(groups) == 1:
        views = [sum(views, [])]  # side by side
    samples, total = sample_data(runs)
    steps = max(len(run.rows) for run in runs.values())
    if steps > MAX_POINTS:
        note += f" A point of a curve is the mean of {math.ceil(steps / MAX_POINTS)} steps."
    absent = '<p class="note">No groups.jsonl in these runs: it holds the rewards and lengths of every sample.</p>'
    data = {"names": list(runs), "panels": panels, "samples": samples}
    data["matrices"] = [matrix_data(run) for run in groups.values()]
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    key = "".join(
        f'<li><svg viewBox="0 0 28 8"><path class="line {line_class(i)}" d="M0 4H28"/></svg>{escape(name)}</li>'
        for i, name in enumerate(runs)
    )
    parts = {
        "POLICY": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "KEY": key,
        "SUMMARY": html_table(summary),
        "FLAGS": differences(runs),
        "CURVES": grid("".join(curves.values())),
        "NOTES": f'<p class="note">{escape(note)}</p>' if note else "",
        "OTHERS": f"<details><summary>All other columns</summary>{grid(more)}</details>" if more else "",
        "GROUPS": "".join(grid("".join(view)) for view in views) if groups else absent,
        "COUNT": f"{len(samples)} of {total} samples" + (", from evenly spaced steps" if len(samples) < total else ""),
        # no text of a run can end the element, nor open a comment in it
        "DATA": json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    # not str.replace: a value may hold the mark of another
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(template.split("@@")))


if __name__ == "__main__":
    fail("makes the page of tools.plot; call python -m tools.plot RUN --html FILE.html")
