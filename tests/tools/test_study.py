"""tools/study.py on grids of runs of a few steps, and tools/compare.py on made-up runs, with the numbers worked out."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from run.scores import t_quantile
from tools import compare, study

ROOT = Path(study.__file__).parents[1]


# ------------------------------------------------------------------------------------------------------------- numbers


def run(seed, reward, tokens, accuracy, **more):
    """A line of the store; alpha 2, and a gradient norm of 1.5 in the first step."""
    steps = len(reward)
    curves = {"reward": reward, "generated_tokens": tokens, "accuracy": accuracy, "alpha": [2.0] * steps}
    curves |= {"easy_share": [0.25] * steps, "hard_share": [0.5] * steps, "grad_norm": [1.5] + [0.5] * (steps - 1)}
    origin = {"date": "2026-01-01", "commit": "abc", "torch": "2", "cpu_seconds": 60.0, "seconds": 120.0}
    return {"flags": {"seed": seed, "grad_clip": 1.0}} | curves | origin | more


def test_a_windows_mean_weighs_each_step_by_its_tokens_inside():
    values, ends = [0.0, 1.0, 0.5], [100, 300, 400]  # tokens of the steps: 100, 200, 100
    assert compare.window_mean(values, ends, 0, 400) == pytest.approx(0.625)  # (100 * 0 + 200 * 1 + 100 * .5) / 400
    assert compare.window_mean(values, ends, 0, 350) == pytest.approx(225 / 350)  # 200 * 1 + 50 * .5
    assert compare.window_mean(values, ends, 250, 350) == pytest.approx(0.75)  # (50 * 1 + 50 * .5) / 100
    assert compare.window_mean([0.0, None, 0.5], ends, 0, 400) == pytest.approx(0.25)  # (100 * 0 + 100 * .5) / 200
    assert compare.window_mean([None], [100], 0, 100) is None


def test_held_out_accuracy_is_linear_between_evaluations():
    points = [(0, 0.2), (100, 0.4), (300, 0.8)]
    assert compare.line_at(points, 150) == pytest.approx(0.5)  # a quarter of the way from .4 to .8
    assert compare.line_at(points, 500) == 0.8 and compare.line_at([], 5) is None
    # areas: 100 * (.2 + .4) / 2 = 30, 50 * (.4 + .5) / 2 = 22.5
    assert compare.line_mean(points, 150) == pytest.approx(52.5 / 150)


def test_a_run_at_equal_tokens_stops_where_the_shorter_one_of_its_seed_does():
    short = run(0, [0.0, 1.0, 1.0, 1.0], [100, 200, 300, 400], [[0, 0.0], [4, 1.0]])
    long = run(0, [0.0, 0.5, 1.0, 1.0], [200, 400, 600, 800], [[0, 0.0], [4, 1.0]])
    flags = {"A": "--a", "B": "--b"}
    rows = compare.make_rows(compare.Study("", "A", flags, [("A", short), ("B", long)], ""))
    assert [row["at equal tokens"]["tokens"] for row in rows] == [400, 400]
    # 400 tokens are all of A; two steps of B, whose last quarter, tokens 300 to 400, is in step 2; greedy: half way
    assert rows[0]["at equal tokens"] == {"last": 100, "whole": 75, "greedy": 100, "greedy all": 50, "tokens": 400}
    assert rows[1]["at equal tokens"] == {"last": 50, "whole": 25, "greedy": 50, "greedy all": 25, "tokens": 400}
    assert rows[1]["at equal steps"] == {"last": 100, "whole": 62.5, "greedy": 100, "greedy all": 50, "steps": 4}
    assert rows[0]["clipped_share"] == 0.25 and rows[0]["grad_norm"] == 0.75 and rows[0]["flags"] == "--a"


def test_a_method_that_samples_nothing_is_not_compared_by_tokens():
    runs = [run(0, [0.5, 0.5], [10, 20], [[0, 0.0], [2, 1.0]]), run(0, [None, None], [0, 0], [[0, 0.0], [2, 1.0]])]
    rows = compare.make_rows(compare.Study("", "A", {"A": "", "B": ""}, list(zip("AB", runs, strict=True)), ""))
    assert rows[1]["at equal tokens"] == dict.fromkeys(compare.MEASURES) | {"tokens": 20}
    assert rows[1]["at equal steps"]["last"] is None and rows[1]["at equal steps"]["greedy"] == 100


def test_the_interval_of_paired_differences():
    mean, low, high = compare.paired({0: 11.0, 1: 22.0, 2: 36.0, 7: 1.0}, {0: 10.0, 1: 20.0, 2: 30.0})
    # differences 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, variance 7, standard error sqrt(7 / 3); t with 2 is 4.303
    half = pytest.approx(4.303 * math.sqrt(7 / 3), rel=2e-4)
    assert mean == pytest.approx(3) and mean - low == half and high - mean == half
    assert compare.paired({0: 1.0}, {0: 2.0}) is None
    assert t_quantile(19) == pytest.approx(2.093, abs=5e-4)
    assert t_quantile(40) == pytest.approx(2.0211, abs=2e-4)  # as tables have it
    assert t_quantile(120) == pytest.approx(1.9799, abs=2e-4)


def test_the_table_in_words():
    rewards = {"A": (0.10, 0.20, 0.30), "B": (0.11, 0.22, 0.36), "C": (0.15, 0.25, 0.35)}
    runs = [
        (name, run(seed, [reward] * 4, [10, 20, 30, 40], []))
        for name, three in rewards.items()
        for seed, reward in enumerate(three)
    ]
    made = compare.Study("T", "A", dict.fromkeys(rewards, "--x"), runs, "the command")
    text = compare.page(made, compare.make_rows(made))
    # A: mean 20, deviation 10, error 10 / sqrt(3) = 5.77; B - A: as above, 4.303 * 1.5275 = 6.57; C - A: 5, 5, 5
    assert "| A | 20.0 ± 5.8 |" in text
    assert "| B | 23.0 ± 7.2<br>+3.0 [−3.6, +9.6] |" in text
    assert "| C | 25.0 ± 5.8<br>**+5.0 [+5.0, +5.0]** |" in text
    assert "## At equal steps: 4\n" in text and "## At equal generated tokens: 40\n" in text
    assert "9 runs" in text and "9 minutes of CPU, 18 by the clock" in text and "the command" in text


def test_lengths_and_kinds_have_a_table_where_runs_recorded_them():
    lengths = {"tokens, right": [10, None, 20, 30], "tokens, wrong": [40, 40, 60, 80]}
    lengths |= {"accuracy/2 digits": [[0, 0.5], [4, 1.0]], "accuracy/find, with a grey picture": [[4, 0.25]]}
    runs = [(name, run(0, [0.5] * 4, [1, 2, 3, 4], [], **lengths)) for name in "AB"]
    made = compare.Study("T", "A", {"A": "", "B": ""}, runs, "")
    (row, _), page = compare.make_rows(made), compare.page(made, compare.make_rows(made))
    # one step is a quarter of four; between steps 0 and 4 the line's mean is (.5 + 1) / 2
    expected = {"right, first quarter": 10, "right, last quarter": 30, "wrong, first quarter": 40}
    expected |= {"wrong, last quarter": 80, "2 digits, before": 50, "2 digits, end": 100, "2 digits, whole run": 75}
    assert row["details"] == expected | {"find, with a grey picture, end": 25}
    assert "## Tokens of completions" in page and "| A | 10.0 | 30.0 | 40.0 | 80.0 |" in page
    assert "## Greedy, by kind" in page and "| A | 50.0 | 100.0 | 75.0 | 25.0 |" in page
    runs[1] = ("B", run(0, [None] * 4, [0] * 4, [], **{"accuracy/2 digits": [[4, 1.0]]}))  # SFT samples nothing
    assert "| B | –<br>– | 100.0<br>– | –<br>– | –<br>– |" in compare.page(made, compare.make_rows(made))
    runs[1] = ("B", run(0, [0.5] * 4, [1, 2, 3, 4], []))  # an older run
    rows = compare.make_rows(made)
    assert "details" not in rows[1] and "## Tokens" not in compare.page(made, rows)


def test_the_mean_length_of_right_and_of_wrong_samples():
    step = {"rewards": [[1.0, 0.0], [0.0, 0.0]], "tokens": [[10, 20], [30, 70]]}
    assert study.mean_length(step, True) == 10 and study.mean_length(step, False) == 40  # (20 + 30 + 70) / 3
    assert study.mean_length({"rewards": [[0.0]], "tokens": [[5]]}, True) is None


# ---------------------------------------------------------------------------------------------------------------- runs


WRONG = [["nothing"], [], ["kl", "--seeds", "0"], ["kl", "--", "--lr", "-1"], ["kl", "--", "--seed=7"]]
WRONG += [["kl", "--", "--doctor"], ["kl", "--out", "/dev/null/a"]]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_users_mistake_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        study.main(words)
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_run_with_an_odd_line_end_in_a_text_is_found_again(tmp_path):
    run = {"flags": {"system_prompt": "a\u2028b\x85c", "seed": 1}}
    study.append(tmp_path / "runs.jsonl", run)
    assert list(study.load(tmp_path / "runs.jsonl").values()) == [run]


def test_presets_parse_and_have_their_reference():
    for title, _, reference, variants in study.PRESETS.values():
        assert title and reference in variants
        known = {study.key(study.make_job("", variants[reference], 0, []).flags): {"alpha": [1.5, None, 2.5]}}
        keys = [study.key(job.flags) for job in study.make_jobs(variants, reference, range(1), [], known)]
        assert len(set(keys)) == len(keys) == len(variants)


def test_a_rate_by_the_mean_alpha_waits_for_the_reference_of_its_seed():
    _, _, reference, variants = study.PRESETS["step-size"]
    own_rate = "α = 1, lr × the run's mean α"
    first = study.make_jobs(variants, reference, range(2), [], {})
    assert [job.variant for job in first] == [reference, "α = 1"] * 2
    known = {study.key(first[2].flags): {"alpha": [1.0, None, 3.0]}}  # of seed 1; the mean is 2
    own = [job for job in study.make_jobs(variants, reference, range(2), [], known) if job.variant == own_rate]
    assert [(job.flags["seed"], job.flags["lr"], job.flags["age"]) for job in own] == [(1, 1.5e-4, False)]


def test_presets_share_runs_and_older_runs_have_the_defaults_of_newer_flags():
    def keys(name):
        return {study.key(study.make_job(*each, 0, []).flags) for each in study.PRESETS[name].variants.items()}

    assert len(keys("table1") & keys("table10")) == 2 and len(keys("table12") - keys("table1")) == 1
    flags = study.make_job("x", "", 3, []).flags
    assert study.key({name: value for name, value in flags.items() if name != "optimizer"}) == study.key(flags)
    assert study.key(flags | {"optimizer": "sgd"}) != study.key(flags) != study.key(flags | {"seed": 4})


@pytest.mark.slow
def test_a_grid_goes_on_after_an_interruption(world, tmp_path, monkeypatch, capsys):
    small = world(None, steps=2, prompts_per_step=2, group_size=2, max_new_tokens=3, eval_every=1)
    words = ["table12", "--seeds", "1", "--out", str(tmp_path / "t"), "--", *small]
    command = [sys.executable, "-m", "tools.study", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout:
            if line.startswith("[1/3]"):
                break
        process.terminate()
        assert process.wait(timeout=60) == 128 + 15
    for _ in range(100):  # a killed process needs a moment
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process of the study is left")
    assert not (tmp_path / "t").exists()
    store = tmp_path / "runs.jsonl"
    made = store.read_text().splitlines()
    assert 1 <= len(made) < 3
    with open(store, "a") as file:
        file.write('{"flags": {"se')  # as a kill in a write leaves it

    monkeypatch.chdir(ROOT)
    name = next(iter(study.PRESETS["table12"].variants))
    failing = {name: study.PRESETS["table12"].variants[name], "bad": "--max-prompt-tokens 1"}
    monkeypatch.setitem(study.PRESETS, "table12", study.Preset("T", 1, name, failing))
    with pytest.raises(SystemExit, match="2 runs failed"):
        study.main([words[0], "--seeds", "2", *words[3:]])
    said = capsys.readouterr().out
    assert "table12: 4 runs, 1 of them in" in said
    assert said.count("bad, seed") == 2 and "all prompts are longer" in said
    kept = study.load(store)
    rows = [json.loads(line) for line in (tmp_path / "t" / "rows.jsonl").read_text().splitlines()]
    assert store.read_text().splitlines()[: len(made)] == made and len(kept) == len(made) + 1
    assert [(row["variant"], row["seed"]) for row in rows] == [(name, 0), (name, 1)]
    assert (tmp_path / "t" / "curves.png").stat().st_size > 10_000

    monkeypatch.setattr(study, "run_one", lambda _: pytest.fail("a finished run is run again"))
    del failing["bad"]
    study.main([words[0], "--seeds", "2", *words[3:]])
    assert "2 runs, 2 of them in" in capsys.readouterr().out
