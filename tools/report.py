"""One self-contained page of runs: `python -m tools.plot RUN [RUN ...] --html report.html`. No server, nothing fetched.

Read from a run's folder: metrics.jsonl (the curves), and, where they are there, config.json (the flags in which runs
differ), samples.jsonl (completions to read) and groups.jsonl. The last is an object a step, of S groups of G samples:

    {"step": 7, "rewards": [[1.0, 0.0, ...], ...], "tokens": [[31, 40, ...], ...]}      each S lists of G numbers

The frame, with style and script, is report.html beside this file; @@NAME@@ marks where something goes. All that comes
from a run is untrusted text: it is escaped, or reaches the page as JSON that is shown by textContent; and the page's
policy allows its own script only, known by its hash, and no address at all.
"""

import base64
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

MAX_POINTS, MAX_STEPS, MAX_GROUPS, MAX_SAMPLES, MAX_TEXT = 400, 60, 64, 400, 4000  # what a page holds; the rest is said
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 220, 46, 10, 8, 36  # of a chart, and the room around its axes
COLOURS = 6  # that the style has; a run beyond them has dashes too


@dataclass(frozen=True)
class Run:
    """What a folder holds; all but rows may be empty."""

    rows: list[dict]
    samples: list[dict] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)
    config: dict = field(default_factory=dict)


Point = tuple[float, float | None, float]  # step, value (None: a gap), standard error (0: none)


# -------------------------------------------------------------------------------------------------------------- numbers


def column(name: str, scale: float = 1.0, error: str | None = None) -> Callable[[Run], list[Point]]:
    """The points of a column of metrics.jsonl; a row without it has none, null is a gap."""

    def points(run: Run) -> list[Point]:
        return [
            (row["step"], scale * row[name] if finite(row[name]) else None, scale * (row.get(error) or 0.0))
            for row in run.rows
            if name in row
        ]

    return points


def finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def reward(run: Run) -> list[Point]:
    """Mean reward with its standard error: the row's `reward_se`, or that over the groups of groups.jsonl."""
    errors = {each["step"]: group_error(each["rewards"]) for each in run.groups}
    means = column("reward", error="reward_se")(run)
    return [(step, mean, error or errors.get(step, 0.0)) for step, mean, error in means]


def group_error(rewards: list[list[float]]) -> float:
    """The standard error of the mean of S groups' means: samples of a group are not independent, groups are."""
    means = [statistics.fmean(group) for group in rewards]
    return statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0


def accuracy(run: Run) -> list[Point]:
    """Held-out accuracy in %, step 0 the model before training."""
    first = [row for row in run.rows[:1] if "accuracy_before" in row]
    before = [(0, 100 * row["accuracy_before"], 100 * (row.get("accuracy_before_se") or 0)) for row in first]
    return before + column("accuracy", 100, "accuracy_se")(run)


def tokens_per_second(run: Run) -> list[Point]:
    """Generated tokens of a step, of all ranks, over its seconds of rollout, grading and update."""
    points, seen = [], 0
    for row in run.rows:
        seconds = sum(row.get(f"seconds_{part}") or 0.0 for part in ("rollout", "reward", "update"))
        if seconds:
            points.append((row["step"], (row["generated_tokens"] - seen) / seconds, 0.0))
        seen = row["generated_tokens"]
    return points


# (title, unit, points, range of the value axis or None: that of the data)
SHARE = (0.0, 100.0)
PANELS = (
    ("Reward", "mean over completions, ± standard error where known", reward, None),
    ("Held-out accuracy, greedy", "%, ± standard error", accuracy, SHARE),
    ("α, Eq. 7", "groups / valid groups", column("alpha"), None),
    ("Valid groups", "% of groups: rewards differ", column("valid_share", 100), SHARE),
    ("Easy groups", "% of groups: all right", column("easy_share", 100), SHARE),
    ("Hard groups", "% of groups: all wrong", column("hard_share", 100), SHARE),
    ("Completion length", "tokens, mean", column("completion_tokens"), None),
    ("Truncated", "% of completions that hit the limit", column("truncated_share", 100), None),
    ("Entropy", "nats a token", column("entropy"), None),
    ("Gradient norm", "before clipping", column("grad_norm"), None),
    ("Gradient's signal", "cosine of two halves; 1: no noise", column("grad_cosine"), None),
    ("Speed", "generated tokens / s of rollout, grading and update", tokens_per_second, None),
)
DRAWN = {"step", "reward", "reward_se", "accuracy", "accuracy_se", "accuracy_before", "accuracy_before_se", "alpha"}
DRAWN |= {"valid_share", "easy_share", "hard_share", "completion_tokens", "truncated_share", "entropy"}
DRAWN |= {"grad_norm", "grad_cosine"}


def thinned(points: list[Point]) -> list[Point]:
    """At most MAX_POINTS points: means of as many neighbours each as that takes."""
    size = math.ceil(len(points) / MAX_POINTS) or 1
    thin = []
    for start in range(0, len(points), size):
        steps, values, errors = zip(*points[start : start + size], strict=True)
        known = [value for value in values if value is not None]
        thin.append((steps[-1], statistics.fmean(known) if known else None, statistics.fmean(errors)))
    return thin


def spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """A number on an axis or in a read-out: four digits at most."""
    if abs(value) >= 1e4:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


# --------------------------------------------------------------------------------------------------------------- charts


@dataclass(frozen=True)
class Axes:
    """The ranges of a chart, from numbers to places in it."""

    x: tuple[float, float]
    y: tuple[float, float]


def across(axes: Axes, x: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (x - axes.x[0]) / (axes.x[1] - axes.x[0])


def down(axes: Axes, y: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - axes.y[0]) / (axes.y[1] - axes.y[0])


def place(axes: Axes, x: float, y: float) -> str:
    return f"{across(axes, x):.1f},{down(axes, y):.1f}"


def frame(axes: Axes, x_label: str) -> str:
    """Grid, numbers and the label of the axis across; the unit of the other stands above the chart."""
    parts = []
    for value in ticks(*axes.y):
        y = down(axes, value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown(value)}</text>')
    for value in ticks(*axes.x):
        x = across(axes, value)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{shown(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{x_label}</text>')
    return "".join(parts)


def bounds(low: float, high: float) -> tuple[float, float]:
    """A range with some room; from 0 where that costs less than the half of it."""
    if low >= 0 and low <= 0.6 * high:
        return 0.0, 1.05 * high or 1.0
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def line_class(run: int) -> str:
    return f"s{run % COLOURS}" + (" dashed" if run >= COLOURS else "")


def pieces(points: list[Point]) -> list[list[Point]]:
    """Points between gaps."""
    found: list[list[Point]] = [[]]
    for point in points:
        if point[1] is None:
            found.append([])
        else:
            found[-1].append(point)
    return [piece for piece in found if piece]


def curve(axes: Axes, points: list[Point], run: int) -> str:
    """A line with a band of ± its error; few points are dots with bars, and one between gaps is a dot."""
    style, parts = line_class(run), []
    few = len(points) <= 12
    for piece in pieces(points):
        line = "L".join(place(axes, step, value) for step, value, _ in piece)
        if any(error for *_, error in piece) and not few:
            edge = [place(axes, step, value + error) for step, value, error in piece]
            edge += [place(axes, step, value - error) for step, value, error in reversed(piece)]
            parts.append(f'<path class="band {style}" d="M{"L".join(edge)}Z"/>')
        parts.append(f'<path class="line {style}" d="M{line}"/>')
        for step, value, error in piece if few or len(piece) == 1 else []:
            x, y = place(axes, step, value).split(",")
            parts.append(f'<circle class="dot {style}" cx="{x}" cy="{y}" r="2.5"/>')
            if error:
                reach = f"M{place(axes, step, value - error)}L{place(axes, step, value + error)}"
                parts.append(f'<path class="line {style}" d="{reach}"/>')
    return "".join(parts)


def chart(
    curves: list[list[Point]], x_label: str, limits: tuple[float, float] | None, draw: Callable = curve
) -> tuple[str, Axes]:
    """An SVG of one curve a run, and its axes."""
    known = [point for points in curves for point in points if point[1] is not None]
    steps = [step for step, *_ in known]
    ends = [value + sign * error for _, value, error in known for sign in (-1, 1)]
    right = max(steps) if max(steps) > min(steps) else min(steps) + 1
    axes = Axes((min(steps), right), limits or bounds(min(ends), max(ends)))
    drawn = "".join(draw(axes, points, run) for run, points in enumerate(curves))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{frame(axes, x_label)}{drawn}</svg>', axes


def figure(title: str, unit: str, svg: str, extra: str = "") -> str:
    return f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(unit)}</span></figcaption>{svg}{extra}</figure>"


def curve_figures(runs: dict[str, Run], panels, first: int = 0) -> tuple[str, list[dict], list[str]]:
    """HTML of the panels that any run has values for, what the read-out needs of each (their numbers begin at `first`),
    and the titles of the others."""
    html, data, missing = [], [], []
    for title, unit, points_of, limits in panels:
        curves = [thinned(points_of(run)) for run in runs.values()]
        if not any(value is not None for points in curves for _, value, _ in points):
            missing.append(title)
            continue
        svg, axes = chart(curves, "optimizer step", limits)
        html.append(figure(title, unit, svg, f'<output data-panel="{first + len(data)}">&nbsp;</output>'))
        data.append({"x": axes.x, "curves": [[[step, rounded(value)] for step, value, _ in each] for each in curves]})
    return "".join(html), data, missing


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def other_panels(runs: dict[str, Run]) -> list[tuple]:
    """Panels of all the numbers that runs log beside the ones above."""
    names = dict.fromkeys(
        name
        for run in runs.values()
        for row in run.rows
        for name, value in row.items()
        if name not in DRAWN and finite(value) and not isinstance(value, bool)
    )
    return [(name, "", column(name), None) for name in names]


# ------------------------------------------------------------------------------------------------ groups and histograms


LENGTH_KEY = (
    '<p class="note"><svg viewBox="0 0 28 8" class="key"><path class="early" d="M0 4H28"/></svg>first tenth of steps '
    '<svg viewBox="0 0 28 8" class="key"><path class="late" d="M0 4H28"/></svg>last tenth</p>'
)


def sorted_groups(step: dict) -> list[list[float]]:
    """The groups of a step by mean reward, the best first: at most MAX_GROUPS, evenly."""
    return spread(sorted(step["rewards"], key=statistics.fmean, reverse=True), MAX_GROUPS)


def matrix_data(run: Run) -> dict:
    """What the page's script draws: some steps' groups, and the range of all rewards."""
    steps = spread(run.groups, MAX_STEPS)
    rewards = [value for step in steps for group in step["rewards"] for value in group]
    shown_steps = [[step["step"], [[rounded(r) for r in group] for group in sorted_groups(step)]] for step in steps]
    return {"low": min(rewards), "high": max(rewards), "steps": shown_steps}


def overview(run: Run) -> str:
    """SVG: a column a step, a cell a group, the best on top, the stronger in colour the greater its mean reward."""
    steps = spread(run.groups, MAX_STEPS)
    means = [[statistics.fmean(group) for group in sorted_groups(step)] for step in steps]
    low, high = min(map(min, means)), max(map(max, means))
    axes = Axes((0, len(steps)), (0.0, 100.0))
    levels: dict[int, list[str]] = {}  # one path a shade: thousands of rectangles would be the greatest part of a page
    for i, column_means in enumerate(means):
        wide = across(axes, i + 1) - across(axes, i)
        tall = (HEIGHT - TOP - BOTTOM) / len(column_means)
        for j, mean in enumerate(column_means):
            cell = f"M{across(axes, i):.1f} {TOP + j * tall:.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z"
            levels.setdefault(round(10 * (mean - low) / (high - low or 1)), []).append(cell)
    cells = "".join(
        f'<path class="cell" fill-opacity="{0.06 + 0.094 * level:.3f}" d="{"".join(paths)}"/>'
        for level, paths in sorted(levels.items())
    )
    under = f'y="{HEIGHT - BOTTOM + 15}" text-anchor="middle"'
    labels = "".join(
        f'<text x="{across(axes, i + 0.5):.1f}" {under}>{int(steps[i]["step"])}</text>'
        for i in spread(range(len(steps)), 6)
    )
    side = "".join(
        f'<text x="{LEFT - 6}" y="{down(axes, 100 - share) + 4:.1f}" text-anchor="end">{share}</text>'
        for share in (0, 25, 50, 75, 100)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    label = f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">optimizer step</text>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{cells}{side}{labels}{label}</svg>'


def matrix(name: str, run: Run, number: int) -> str:
    """The figure that the page's script fills with the rewards of the step that a slider names."""
    last = len(spread(run.groups, MAX_STEPS)) - 1
    slider = (
        f'<svg data-matrix="{number}" role="img"></svg><output></output>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="step">'
    )
    return figure("Rewards of one step", f"{name}; across: groups, the best first; down: samples", slider)


def histogram(run: Run) -> str:
    """SVG: lengths in the first and in the last tenth of the steps, as shares of completions in 20 equal bins."""
    tenth = math.ceil(len(run.groups) / 10)
    parts = [
        [length for step in part for group in step["tokens"] for length in group]
        for part in (run.groups[:tenth], run.groups[-tenth:])
    ]
    top = max(map(max, parts))
    width = math.ceil((top + 1) / 20)
    curves = []
    for lengths in parts:
        counts = [0] * (top // width + 1)
        for length in lengths:
            counts[length // width] += 1
        outline = [(0.0, 0.0, 0.0)]
        for i, count in enumerate(counts):
            share = 100 * count / len(lengths)
            outline += [(i * width, share, 0.0), ((i + 1) * width, share, 0.0)]
        curves.append([*outline, (len(counts) * width, 0.0, 0.0)])

    def area(axes: Axes, points: list[Point], which: int) -> str:
        line = "L".join(place(axes, x, y) for x, y, _ in points)
        return f'<path class="{("early", "late")[which]}" d="M{line}"/>'

    return chart(curves, f"tokens of a completion, bins of {width}", None, area)[0]


# ----------------------------------------------------------------------------------------------------------------- page


def sample_data(runs: dict[str, Run]) -> tuple[list[dict], int]:
    """The samples that the page shows, of evenly spread steps, and how many there are in all."""
    total = sum(len(run.samples) for run in runs.values())
    kept = []
    for number, run in enumerate(runs.values()):
        for sample in spread(run.samples, MAX_SAMPLES // len(runs)):
            texts = {key: clipped(str(sample.get(key, ""))) for key in ("problem", "answer", "completion")}
            score = sample.get("reward")
            kept.append({"run": number, "step": sample["step"], "reward": score if finite(score) else None} | texts)
    return kept, total


def clipped(text: str) -> str:
    """The whole text or, of a long one, both ends: the answer stands at the end."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}\n[… {len(text) - MAX_TEXT:,} characters …]\n{text[-MAX_TEXT // 2 :]}"


def differences(runs: dict[str, Run]) -> str:
    """A table of the flags in which runs differ; for one run, all of them, folded away."""
    names = [name for name in dict.fromkeys(name for run in runs.values() for name in run.config) if name != "command"]
    values = {name: [json.dumps(run.config.get(name), ensure_ascii=False) for run in runs.values()] for name in names}
    several = len(runs) > 1
    rows = "".join(
        f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(value[:200])}</td>" for value in each) + "</tr>"
        for name, each in values.items()
        if not several or len(set(each)) > 1
    )
    if not rows:
        return ""
    head = "<tr><th></th>" + "".join(f"<th>{escape(name)}</th>" for name in runs) + "</tr>"
    title = "Flags in which the runs differ" if several else "Flags"
    opened = " open" if several else ""
    return f'<details{opened}><summary>{title}</summary><div class="wide"><table>{head}{rows}</table></div></details>'


def html_table(markdown: str) -> str:
    """A Markdown table, as tools.plot prints it, as HTML."""
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    rows = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for first, *cells in body:
        rows.append(f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def page(runs: dict[str, Run], summary: str) -> str:
    """The whole page; summary: tools.plot's table of the same runs."""
    curves, panels, missing = curve_figures(runs, PANELS)
    others, other_data, _ = curve_figures(runs, other_panels(runs), first=len(panels))
    groups = {name: run for name, run in runs.items() if run.groups}
    unit = "% of groups, the best first; the stronger the colour, the greater the mean reward"
    views = [
        [figure("Groups over time", f"{name}; {unit}", overview(run)) for name, run in groups.items()],
        [matrix(name, run, number) for number, (name, run) in enumerate(groups.items())],
        [
            figure("Completion lengths", f"{name}; % of completions", histogram(run), LENGTH_KEY)
            for name, run in groups.items()
        ],
    ]
    if len(groups) == 1:
        views = [sum(views, [])]  # side by side
    samples, total = sample_data(runs)
    steps = max(len(run.rows) for run in runs.values())
    notes = [f"Not logged by these runs: {', '.join(missing)}."] if missing else []
    if steps > MAX_POINTS:
        notes.append(f"A point of a curve is the mean of {math.ceil(steps / MAX_POINTS)} steps.")
    absent = '<p class="note">No groups.jsonl in these runs: it holds the rewards and lengths of every sample.</p>'
    data = {"names": list(runs), "panels": panels + other_data, "samples": samples}
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
        "CURVES": curves,
        "NOTES": f'<p class="note">{escape(" ".join(notes))}</p>' if notes else "",
        "OTHERS": f'<details><summary>All other columns</summary><div class="grid-of">{others}</div></details>'
        if others
        else "",
        "GROUPS": "".join(f'<div class="grid-of">{"".join(view)}</div>' for view in views) if groups else absent,
        "COUNT": f"{len(samples)} of {total} samples" + (", of evenly spread steps" if len(samples) < total else ""),
        # no text of a run can end the element, nor open a comment in it
        "DATA": json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    html = []
    for i, piece in enumerate(template.split("@@")):  # not str.replace: a value may hold another's mark
        html.append(parts[piece] if i % 2 else piece)
    return "".join(html)
