"""tools/report.py: the page of made-up runs, read back with a parser; and drawn by a browser, where there is one.

Tried by hand, each turns this file red: a completion through innerHTML, JSON whose "<" is not escaped, a flag whose
value is not, the standard deviation for the standard error.
"""

import base64
import hashlib
import html
import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import pytest
from matplotlib.figure import Figure

from tools import plot, report
from tools import runs as files

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script><!-- & \"quoted\" 'too' @@DATA@@ \u2028"


def row(step, **more):
    shares = {"valid_share": 0.5, "easy_share": 0.25, "hard_share": 0.25, "truncated_share": 0.0, "grad_norm": 0.1}
    seconds = {"seconds": 2.0 * step, "seconds_rollout": 1.0, "seconds_reward": 0.25, "seconds_update": 0.75}
    usual = {"step": step, "reward": step / 20, "alpha": 2.0, "completion_tokens": 30.0, "generated_tokens": 100 * step}
    return usual | shares | seconds | {"loss": -0.5} | more


def write(folder, rows, samples=(), groups=(), config=None):
    folder.mkdir(parents=True)
    for name, lines in (("metrics", rows), ("samples", samples), ("groups", groups)):
        if lines:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def sample(step, reward, completion="so \\boxed{3}"):
    return {"step": step, "problem": "1+2=?", "answer": "3", "completion": completion, "reward": reward}


def group_row(step):
    """Two groups of four samples."""
    return {"step": step, "rewards": [[0, 0, 0, 1], [1, 1, 1, 1]], "tokens": [[3, 4, 5, 6], [7, 8, 9, 10 + step]]}


@pytest.fixture
def runs(tmp_path):
    """full: all that a run can hold, and hostile; bare: metrics of two steps and nothing else."""
    rows = [row(step, entropy=0.5 / step) for step in range(1, 21)]
    rows[0] |= {"accuracy_before": 0.2, "accuracy_before_se": 0.05}
    rows[9] |= {"accuracy": 0.5, "accuracy_se": 0.06}
    rows[4] |= {"alpha": None, "grad_norm": None}
    rows[9] |= {"grad_cosine": 0.5}
    config = {"lr": 1e-4, "seed": 0, "system_prompt": HOSTILE, "command": "train.py"}
    samples = [sample(1, 0.0, HOSTILE), sample(2, 1.0), sample(3, None)]
    full = write(tmp_path / "full", rows, samples, [group_row(step) for step in range(1, 21)], config)
    return full, write(tmp_path / "bare", [row(1), row(2)], config={"lr": 2e-4, "seed": 0, "system_prompt": "none"})


def make(tmp_path, *folders):
    out = tmp_path / "made" / "report.html"
    plot.main([*folders, "--html", str(out)])
    return out.read_text(encoding="utf-8")


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, and the text of all elements by their name."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def page_data(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def titles(text):
    return re.findall(r"<figcaption><b>(.*?)</b>", text)


# -------------------------------------------------------------------------------------------------------------- numbers


def test_points_of_a_run():
    run = files.Run([row(1), row(2, alpha=None), row(3, alpha=float("nan"))])
    assert files.column("alpha")(run) == [(1, 2.0, 0.0), (2, None, 0.0), (3, None, 0.0)]
    assert files.column("valid_share", 100)(run)[0] == (1, 50.0, 0.0)
    assert files.column("entropy")(run) == []
    assert files.column("reward")(run) == [(1, 0.05, 0.0), (2, 0.1, 0.0), (3, 0.15, 0.0)]
    assert files.column("reward")(files.Run([row(1, reward_se=0.01), row(2, reward_se=None)])) == [
        (1, 0.05, 0.01),
        (2, 0.1, 0),
    ]
    assert files.tokens_per_second(run) == [(step, 50.0, 0.0) for step in (1, 2, 3)]  # 100 tokens in 2 s
    first = row(1, accuracy_before=0.2, accuracy_before_se=0.05)
    assert files.accuracy(files.Run([first, row(2, accuracy=0.5, accuracy_se=0.1)])) == [(0, 20, 5), (2, 50, 10)]


def test_spread_keeps_both_ends():
    assert report.spread(range(10), 4) == [0, 3, 6, 9]
    assert report.spread([1, 2], 4) == [1, 2] and report.spread([1, 2], 1) == [1]


def test_groups_stand_best_on_top():
    axes = Figure().subplots()
    report.draw_groups(axes, files.Run([row(1)], groups=[group_row(1), group_row(2)]))
    image = axes.images[0].get_array()
    assert image.shape == (report.BANDS, 2) and set(image[:16, 0]) == {1.0} and set(image[16:, 0]) == {0.25}


# ----------------------------------------------------------------------------------------------------------------- page


def test_kinds_of_problems_have_panels(tmp_path):
    of_kinds = {"reward_of/count": 0.5, "valid_share/count": 0.25, "alpha/count": 4.0, "accuracy/count": 0.5}
    text = make(tmp_path, write(tmp_path / "run", [row(1), row(2, **of_kinds, **{"reward/iou": 0.5})]))
    shown = titles(text.partition("All columns")[0])
    assert shown[-4:] == list(of_kinds) and "reward/iou" not in shown


def test_the_panels_of_two_runs(runs, tmp_path, capsys):
    text = make(tmp_path, *runs)
    assert "report.html" in capsys.readouterr().out
    curves, _, rest = text.partition("All columns")
    assert [html.unescape(title) for title in titles(curves)] == [panel[0] for panel in report.PANELS]
    others, _, groups = rest.partition("<h2>Groups</h2>")
    columns = {name for name in row(1) if name != "step"} | {"entropy", "grad_cosine"}
    assert set(titles(others)) == columns | {"accuracy", "accuracy_se", "accuracy_before", "accuracy_before_se"}
    assert titles(groups) == ["Groups over time"]
    drawn = re.findall(r"</figcaption>(<svg.*?</svg>)", text, re.DOTALL)
    assert len(drawn) == len(report.PANELS) + len(titles(others)) + 1
    for svg in drawn:
        labels = ["".join(each.itertext()) for each in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert any("step" in label or "tokens" in label for label in labels) and len(labels) > 3
    assert text.count('stroke="#0072B2"') == text.count('stroke="#D55E00"') == 1  # the key
    assert not list(tmp_path.glob("*/*.png"))
    assert "Flags in which the runs differ" in text and "<td>lr</td><td>0.0001</td><td>0.0002</td>" in text
    assert "<td>seed</td>" not in text and "<td>command</td>" not in text


def test_a_bare_run_has_what_it_has(runs, tmp_path):
    text = make(tmp_path, runs[1])
    assert "Entropy" not in text
    assert "No groups.jsonl in these runs" in text and "0 of 0 samples" in text
    assert page_data(text) == []
    assert "<td>lr</td><td>0.0002</td>" in text


def test_the_first_table_has_its_shorter_side_across(runs, tmp_path):
    several = [write(tmp_path / f"seed-{seed}", [row(1)]) for seed in range(10)]
    few, many = make(tmp_path, *runs), make(tmp_path, *several)
    assert f"<table><tr><td>run</td><td>{runs[0]}</td><td>{runs[1]}</td></tr><tr><td>steps</td><td>20</td>" in few
    assert "<table><tr><td>run</td><td>steps</td><td>reward, first 10</td>" in many


def test_text_of_a_run_is_never_code(runs, tmp_path):
    text = make(tmp_path, *runs)
    page = Elements(text)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 2 and "img" not in names
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page_data(text)[0]["completion"] == HOSTILE  # whole, for textContent
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script)
    assert json.dumps(HOSTILE, ensure_ascii=False)[:20] not in text.replace("&lt;", "")  # in the table of flags
    # what runs is what the policy knows by its hash
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_pictures_with_both_boxes(tmp_path):
    good = "data:image/webp;base64,UklGRg=="
    shown = sample(1, 0.5, "(0,0),(2,1)") | {"answer": "(1,1),(4,4)", "box_size": [4, 4]}
    shown["images"] = [good, "https://example.org/a.webp", "data:text/html;base64,AAAA", 3]
    text = make(tmp_path, write(tmp_path / "run", [row(1)], [shown, sample(1, 1.0)]))
    with_picture, without = json.loads(Elements(text).texts["script"][0])
    assert with_picture["images"] == [good] and "images" not in without
    assert with_picture["boxes"] == [[0.25, 0.25, 1.0, 1.0], [0.0, 0.0, 0.5, 0.25]]


def test_nothing_is_fetched(runs, tmp_path):
    text = make(tmp_path, *runs)
    shell = re.sub(r'<script type="application/json".*?</script>| xmlns[:\w]*="[^"]*"', "", text, flags=re.DOTALL)
    shell = re.sub(r"data:image/png;base64,[\w+/=\s]*", "", shell)
    assert not re.search(r"https?:|//[a-z]|url\([^#]|@import|fetch\(|XMLHttp|WebSocket|import\(", shell)
    links = [attrs[name] for _, attrs in Elements(shell).tags for name in attrs if name.endswith(("src", "href"))]
    assert all(link == "" or link.startswith("#") for link in links)


def test_a_long_run_is_a_page_of_reasonable_size(tmp_path):
    """1,100 steps of 144 groups of 8, and samples of 8,000 characters."""
    rewards, tokens = [[0, 1] * 4] * 144, [[100 + i for i in range(8)]] * 144
    groups = [{"step": step, "rewards": rewards, "tokens": tokens} for step in range(1, 1101)]
    samples = [sample(step, 1.0, "x" * 8000) for step in range(1, 1101)]
    text = make(tmp_path, write(tmp_path / "long", [row(step) for step in range(1, 1101)], samples, groups))
    assert len(text) < 4e6
    assert "400 of 1100 samples, from evenly spaced steps" in text


def test_broken_files_end_in_one_line(runs, tmp_path, capsys):
    (tmp_path / "full" / "samples.jsonl").write_text('nonsense\n{"step": 1}\n')
    with pytest.raises(SystemExit) as caught:
        plot.main([runs[0], "--html", str(tmp_path / "r.html")])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and "samples.jsonl, line 1: not an object" in error
    with pytest.raises(SystemExit):
        plot.main([runs[1], "--html", str(tmp_path)])
    assert "--html" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not here")
def test_a_browser_draws_it(runs, tmp_path):
    make(tmp_path, *runs)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/made/report.html"], capture_output=True, text=True, timeout=120
    )
    page = Elements(done.stdout)
    names = [tag for tag, _ in page.tags]
    assert names.count("article") == 3 and "img" not in names and names.count("script") == 2
    assert HOSTILE.replace("\u2028", "") in "".join(page.texts["pre"]).replace("\u2028", "")
    assert any("3 match; 3 shown" in each for each in page.texts["p"])
