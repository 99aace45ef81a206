"""Makes one self-contained page of runs, for `python -m tools.plot RUN [RUN ...] --html report.html`.

From a run's folder come metrics.jsonl (the curves) and, if present, config.json (the flags in which runs differ),
samples.jsonl (completions to read) and groups.jsonl (the rewards of all samples of a step, by group).

report.html is the template, with style and script; @@NAME@@ marks a place to fill. Text from a run is untrusted: it is
escaped, or reaches the page as JSON that is shown through textContent; and the page's security policy allows only its
own script, identified by its hash, and no network access.
"""

import base64
import hashlib
import io
import json
import re
import statistics
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tasks.pictures import box_shares
from tools.runs import DASHES, PANELS, STYLE, Run, column, draw_curves, finite, line_style

MAX_STEPS, MAX_SAMPLES = 60, 400  # the most that a page holds
PICTURE = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]+=*")
OF_KINDS = re.compile("(reward_of|valid_share|alpha|accuracy)/")  # columns with a panel for each kind of problem
BANDS = 32  # of a step's groups in the picture of them


def curves(runs: dict[str, Run], panels: Sequence[tuple]) -> str:
    """HTML of the panels for which any run has values."""
    return "".join(
        picture(title, unit, draw_curves, runs, points_of)
        for title, unit, points_of in panels
        if any(value is not None for run in runs.values() for _, value, _ in points_of(run))
    )


def all_columns(runs: dict[str, Run]) -> list[tuple]:
    """Panels of all numbers that runs log."""
    logged = [item for run in runs.values() for row in run.rows for item in row.items()]
    names = dict.fromkeys(name for name, value in logged if finite(value) and not isinstance(value, bool))
    return [(name, "", column(name)) for name in names if name != "step"]


def picture(title: str, unit: str, draw: Callable, *arguments) -> str:
    """An HTML figure of what `draw` does to matplotlib's axes, as SVG without any text of a run."""
    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 9}):
        axes = Figure(figsize=(4.2, 2.3)).add_axes((0.13, 0.2, 0.84, 0.72))
        draw(axes, *arguments)
        file = io.StringIO()
        axes.figure.savefig(file, format="svg", dpi=200, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    caption = f"<figcaption><b>{escape(title)}</b> <span>{escape(unit)}</span></figcaption>"
    return f"<figure>{caption}{svg[svg.index('<svg') :]}</figure>"


def spread(items: Sequence, count: int) -> list:
    """At most `count` evenly spaced items, including the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]


def draw_groups(axes, run: Run) -> None:
    """A column per step, its groups sorted by their mean reward, the best on top, darker the greater that is."""
    steps = spread(run.groups, MAX_STEPS)
    columns = [sorted(map(statistics.fmean, step["rewards"]), reverse=True) for step in steps]
    bands = [[means[i * len(means) // BANDS] for means in columns] for i in range(BANDS)]
    axes.imshow(bands, aspect="auto", cmap="Blues", extent=(0, len(steps), 100, 0), interpolation="nearest")
    places = spread(range(len(steps)), 6)
    axes.set_xticks([i + 0.5 for i in places], [steps[i]["step"] for i in places])
    axes.set_xlabel("optimizer step")
    axes.grid(False)


def sample_data(runs: dict[str, Run]) -> list[dict]:
    """The samples that the page shows, from evenly spaced steps."""
    samples = []
    for name, run in runs.items():
        for sample in spread(run.samples, MAX_SAMPLES // len(runs)):
            texts = {key: str(sample.get(key, "")) for key in ("problem", "answer", "completion")}
            score, size = sample.get("reward"), sample.get("box_size")
            shown = [x for x in sample.get("images", ()) if isinstance(x, str) and PICTURE.fullmatch(x)]
            boxes = [box_shares(texts[key], size) if size else None for key in ("answer", "completion")]
            seen = {"images": shown, "boxes": boxes} if shown else {}
            reward = {"reward": score if finite(score) else None}
            samples.append({"run": name, "step": sample["step"]} | reward | texts | seen)
    return samples


def differences(runs: dict[str, Run]) -> str:
    """A table of the flags in which runs differ; for one run, of all."""
    names = dict.fromkeys(name for run in runs.values() for name in run.config if name != "command")
    rows = [[name, *(json.dumps(run.config.get(name), ensure_ascii=False) for run in runs.values())] for name in names]
    if len(runs) > 1:
        rows = [[name, *values] for name, *values in rows if len(set(values)) > 1]
    return html_table([["", *runs], *([cell[:200] for cell in row] for row in rows)])


def html_table(rows: list[list[str]]) -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def page(runs: dict[str, Run], summary: list[list[str]]) -> str:
    """The whole page; summary: the table that tools.plot prints, a row per run."""
    if len(summary) < len(summary[0]):
        summary = list(map(list, zip(*summary, strict=True)))  # a few runs fit a narrow screen across
    unit = "% of groups, best first; darker: greater mean reward"
    groups = [
        picture("Groups over time", f"{name}; {unit}", draw_groups, run) for name, run in runs.items() if run.groups
    ]
    columns, samples, total = all_columns(runs), sample_data(runs), sum(len(run.samples) for run in runs.values())
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    key = ""
    for i, name in enumerate(runs):
        style = line_style(i)
        line = f'stroke="{style["color"]}" stroke-width="2" stroke-dasharray="{DASHES[style["ls"]]}"'
        key += f'<li><svg viewBox="0 0 28 8"><path {line} d="M0 4H28"/></svg>{escape(name)}</li>'
    parts = {
        "POLICY": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "KEY": key,
        "SUMMARY": html_table(summary),
        "FLAGS": differences(runs),
        "CURVES": curves(runs, [*PANELS, *(panel for panel in columns if OF_KINDS.match(panel[0]))]),
        "COLUMNS": curves(runs, columns),
        "GROUPS": "".join(groups) or "No groups.jsonl in these runs.",
        "COUNT": f"{len(samples)} of {total} samples" + (", from evenly spaced steps" if len(samples) < total else ""),
        # no text of a run can end the element, nor open a comment in it
        "DATA": json.dumps(samples, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    # not str.replace: a value may hold the mark of another
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(template.split("@@")))
