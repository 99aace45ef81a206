"""tools/plot.py, on made-up metrics of two short runs."""

import json
import math

import pytest
from matplotlib import image

from tools import plot
from tools.runs import Run, alike, read
from tools.runs import accuracy as accuracy_of

COLUMNS = ["run", "steps", "reward, first 10", "reward, last 10", "accuracy before, %", "accuracy after, %"]
COLUMNS += ["valid groups, %", "mean α", "generated tokens", "seconds"]


def row(step, reward, alpha=2.0, **more):
    """A row of metrics.jsonl: 1000 tokens and 1.5 s a step."""
    shares = {"valid_share": 0.5, "easy_share": 0.3, "hard_share": 0.2, "completion_tokens": 30.0 + step}
    totals = {"generated_tokens": 1000 * step, "seconds": 1.5 * step}
    return {"step": step, "reward": reward, "alpha": alpha, **shares, **totals, **more}


def write(folder, rows, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows) + tail)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """a: 12 steps, reward step / 20, no valid group in step 2, 64 held-out problems. b: 2 steps, without accuracy."""
    rows = [row(step, step / 20) for step in range(1, 13)]
    rows[0] |= {"accuracy_before": 0.2, "accuracy_before_se": 0.05}  # sqrt(.2 * .8 / 64)
    rows[1] |= {"alpha": None, "valid_share": 0.0, "easy_share": 0.8}
    rows[5] |= {"accuracy": 0.5, "accuracy_se": 0.0625}  # sqrt(.5 * .5 / 64)
    rows[11] |= {"accuracy": 0.9, "accuracy_se": 0.0375}  # sqrt(.9 * .1 / 64)
    names = [write(tmp_path / "a", rows), write(tmp_path / "b", [row(1, 0.5, 3.0), row(2, 1.0, 4.0)])]
    for seed, name in enumerate(names):
        plot.Path(name, "config.json").write_text(json.dumps({"seed": seed}))
    return names


def cells(text, name):
    """The cells of one line of the table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def curves(axes):
    """Every line of a panel that is a curve, as (steps, values)."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines if line.get_linestyle() != "None"]


def same(values, expected):
    """Equal, where nan equals nan: pytest.approx with nothing to approximate."""
    return values == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)


# --------------------------------------------------------------------------------------------------------------- table


def test_the_table_of_one_run(runs):
    text = plot.markdown(plot.cells({"a": read(plot.Path(runs[0]))}))
    assert cells(text, "run") == COLUMNS
    assert cells(text, "a") == [
        "a",
        "12",
        "0.275",  # (1 + ... + 10) / 20 / 10
        "0.375",  # (3 + ... + 12) / 20 / 10
        "20 ± 5",  # sqrt(.2 * .8 / 64) = .4 / 8
        "90 ± 3.75",
        "45.8",  # 11 steps of 50, one of 0: 550 / 12
        "2",  # the step without one does not count
        "12,000",
        "18",
    ]
    assert len(text.splitlines()) == 3


def test_the_table_of_two_runs_ends_with_mean_and_deviation(runs):
    named = {name: read(plot.Path(run)) for name, run in zip("ab", runs, strict=True)}
    text = plot.markdown(plot.cells(named))
    assert cells(text, "b") == ["b", "2", "0.75", "0.75", "–", "–", "50", "3.5", "2,000", "3"]
    # the sample deviation of two numbers is their distance over sqrt(2)
    assert cells(text, "mean ± sd") == [
        "mean ± sd",
        "7 ± 7.07",  # 12, 2
        "0.512 ± 0.336",  # .275, .75: .5125 (which float64 holds a little below), .475 / sqrt(2) = .33588
        "0.562 ± 0.265",  # .375, .75: .5625 exactly, to even; .375 / sqrt(2) = .26517
        "–",  # b has none
        "–",
        "47.9 ± 2.95",  # 45.8333, 50: 47.917; 4.1667 / sqrt(2) = 2.946
        "2.75 ± 1.06",  # 2, 3.5: 1.5 / sqrt(2) = 1.0607
        "7,000 ± 7,071",
        "10.5 ± 10.6",  # 18, 3; 15 / sqrt(2)
    ]


@pytest.mark.parametrize(
    ("marks", "points"),
    [
        ([{}, {}], []),
        ([{"accuracy_before": 0.2, "accuracy_before_se": 0.04}, {}], [(0, 0.2, 0.04)]),
        ([{}, {"accuracy": 0.5, "accuracy_se": 0.05}], [(2, 0.5, 0.05)]),
        (
            [{"accuracy_before": 0.2, "accuracy_before_se": 0.04}, {"accuracy": 0.5, "accuracy_se": 0.05}],
            [(0, 0.2, 0.04), (2, 0.5, 0.05)],
        ),
    ],
)
def test_evaluations(marks, points):
    run = Run([row(step, 0.5) | mark for step, mark in enumerate(marks, 1)])
    assert accuracy_of(run, scale=1) == points


# ------------------------------------------------------------------------------------------------------------- picture


def test_the_panels(runs):
    names = ("run a", "run b")
    figure = plot.draw({name: read(plot.Path(run)) for name, run in zip(names, runs, strict=True)})
    *panels, legend = figure.axes
    reward, accuracy, length, alpha, *shares = panels
    assert all(axes.get_xlabel() == "optimizer step" and axes.get_ylabel() for axes in panels)
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles[:4] == ["Reward", "Held-out accuracy, greedy", "Completion length", "α, Eq. 7"]
    assert titles[4:] == ["Valid groups", "Easy groups", "Hard groups"]
    assert {"run a", "run b", "mean of 2 runs"} == {text.get_text() for text in legend.get_legend().get_texts()}
    assert not any(axes.get_legend() for axes in panels)

    steps = list(range(1, 13))
    (a, b, mean) = curves(reward)
    assert a == (steps, [step / 20 for step in steps]) and b == ([1, 2], [0.5, 1.0])
    assert mean[0] == [1, 2] and same(mean[1], [0.275, 0.55])  # (.05 + .5) / 2, (.1 + 1) / 2
    (a, b, mean) = curves(alpha)
    assert same(a[1], [2.0, math.nan] + [2.0] * 10)  # no valid group: a gap, in the mean too
    assert same(mean[1], [2.5, math.nan])
    assert curves(length)[1] == ([1, 2], [31.0, 32.0])
    valid, easy, hard = (curves(axes)[0] for axes in shares)  # of run a; b and the mean follow
    assert same(valid[1], [50.0, 0.0] + [50.0] * 10) and same(easy[1][:3], [30.0, 80.0, 30.0]) and hard[1][0] == 20.0

    ((a_steps, a_accuracy),) = curves(accuracy)  # b was never evaluated, so there is no mean
    assert a_steps == [0, 6, 12] and same(a_accuracy, [20.0, 50.0, 90.0])
    ((_, _, (bars,)),) = accuracy.containers
    assert same([top - low for (_, low), (_, top) in bars.get_segments()], [10.0, 12.5, 7.5])  # twice the error


def test_runs_that_differ_in_more_than_their_seed_have_no_mean(runs, tmp_path, capsys):
    usual = {"lr": 1e-4, "seed": 0, "out": "a", "command": "train.py", "versions": {"torch": "2.6"}}
    configs = [usual, usual | {"seed": 1, "out": "b", "command": "train.py --seed 1", "versions": {"torch": "2.7"}}]

    def same(*configs):
        return alike({str(i): Run([], config=config) for i, config in enumerate(configs)})

    assert same(*(config | {"wandb_id": str(i)} for i, config in enumerate(configs)))
    made = [{"made_of": {"problems": "a", "frozen weights": str(seed)}} for seed in (0, 1)]
    assert same(*(config | more for config, more in zip(configs, made, strict=True)))
    assert not same(configs[0] | made[0], configs[1] | {"made_of": {"problems": "b"}})
    assert same(*configs) and not same({}, {}) and not same(usual, usual) and not same(usual, usual | {"lr": 2e-4})
    assert not same(usual, usual | {"clip": None}) and not same(usual)
    for lr, has_mean in ((1e-4, True), (2e-4, False)):
        configs[1]["lr"] = lr
        for run, config in zip(runs, configs, strict=True):
            plot.Path(run, "config.json").write_text(json.dumps(config))
        plot.main([*runs, "--out", str(tmp_path / "both.png"), "--html", str(tmp_path / "both.html")])
        assert ("mean ± sd" in capsys.readouterr().out) == has_mean
        assert ("mean ± sd" in (tmp_path / "both.html").read_text()) == has_mean
    figure = plot.draw({run: read(plot.Path(run)) for run in runs})
    assert [len(curves(axes)) for axes in figure.axes] == [2, 1, 2, 2, 2, 2, 2, 0]
    assert not any("mean of" in text.get_text() for text in figure.axes[-1].get_legend().get_texts())
    assert {line.get_linewidth() for line in figure.axes[0].get_lines()} == {1.6}


def test_short_runs_have_whole_steps_on_the_axis(runs):
    figure = plot.draw({"b": read(plot.Path(runs[1]))})  # steps 1 and 2
    figure.canvas.draw()
    assert all(tick == round(tick) for axes in figure.axes[:-1] for tick in axes.get_xticks())


def test_one_run_has_no_mean_and_may_lack_accuracy(runs):
    figure = plot.draw({"b": read(plot.Path(runs[1]))})
    assert [len(curves(axes)) for axes in figure.axes] == [1, 0, 1, 1, 1, 1, 1, 0]


def test_a_curve_that_is_not_of_every_step_shows_its_points(runs, tmp_path):
    figure = plot.draw({"a": read(plot.Path(runs[0])), "c": read(plot.Path(write(tmp_path / "c", [row(1, 0.5)])))})
    marks = [[line.get_marker() for line in axes.get_lines() if len(line.get_xdata())] for axes in figure.axes[:2]]
    assert marks[0][:2] == ["None", "o"] and marks[1][0] == "o"  # 12 rewards in 12 steps, 1 in 1; 3 evaluations in 12


def test_the_command_writes_a_picture_and_prints_the_table(runs, tmp_path, capsys):
    plot.main([*runs, "--out", str(tmp_path / "new" / "both.png")])
    printed = capsys.readouterr().out
    assert cells(printed, runs[0])[1] == "12" and cells(printed, "mean ± sd")
    pixels = image.imread(tmp_path / "new" / "both.png")  # (1050, 1800, 4)
    assert pixels.shape[1] >= 1200 and pixels.std() > 0.05
    odd = plot.draw({"_a": plot.read(plot.Path(runs[0])), "a$b$": plot.read(plot.Path(runs[1]))})
    odd.savefig(tmp_path / "odd.png")
    assert [text.get_text().strip() for text in odd.axes[-1].get_legend().get_texts()][-2:] == ["_a", r"a\$b\$"]
    plot.main([runs[0] + "/"])
    assert (tmp_path / "a" / "metrics.png").exists() and cells(capsys.readouterr().out, runs[0])[1] == "12"


# -------------------------------------------------------------------------------------------------------------- errors


def error_of(capsys, *flags) -> str:
    """The only line on stderr of a refused command."""
    with pytest.raises(SystemExit) as caught:
        plot.main([str(flag) for flag in flags])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("", "holds no step yet"),
        ('{"step": 1', "holds no step yet"),  # the first row is being written
        ("GOOD\nnonsense\nGOOD\n", "line 2: not an object ('nonsense')"),
        ("GOOD\nnonsense\n", "line 2: not an object"),
        ("GOOD\n5\n", "line 2: not an object"),
        ('{"step": 1, "loss": 2}\n', "or not train.py's"),
    ],
)
def test_a_broken_file_ends_in_one_line(tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text.replace("GOOD", json.dumps(row(1, 0.5))))
    error = error_of(capsys, tmp_path)
    assert words in error and str(tmp_path / "metrics.jsonl") in error
    assert not (tmp_path / "metrics.png").exists()


@pytest.mark.parametrize("content", [b"\xff", b"", b"5", b"[1]"])
def test_a_broken_configuration_ends_in_one_line(tmp_path, capsys, content):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(1, 0.5)) + "\n")
    (tmp_path / "config.json").write_bytes(content)
    assert f"{tmp_path}: config.json or controls.json is not as train.py wrote it" in error_of(capsys, tmp_path)


def test_a_last_line_that_is_cut_is_left_out(tmp_path):
    rows = [row(1, 0.5), row(2, 0.5)]
    folder = write(tmp_path, rows, tail='{"step": 3, "rew')
    assert read(plot.Path(folder)).rows == rows


def test_wrong_flags_end_in_one_line(runs, tmp_path, capsys):
    assert "RUN" in error_of(capsys)
    assert "File name too long" in error_of(capsys, "x" * 300)
    assert "--colour" in error_of(capsys, runs[0], "--colour", "red")
    assert "--out" in error_of(capsys, runs[0], "--out", tmp_path / "picture.doc")
    assert "--out" in error_of(capsys, runs[0], "--out", tmp_path / "a" / "metrics.jsonl" / "picture.png")
