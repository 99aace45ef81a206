"""tools/bench.py: the command runs, prints tables and writes them; wrong flags end in one line."""

import importlib.util
import json
from unittest.mock import patch

import pytest

from tools import bench


def flags(*more):
    """Tiny shapes: what is tested is that all runs, and what it prints."""
    shape = {"prompts-per-step": 2, "group-size": 2, "max-new-tokens": 3, "repeats": 1, "max-prompt-tokens": 64}
    return [word for name, value in shape.items() for word in (f"--{name}", str(value))] + list(more)


def of(world):
    return ["--model", str(world.folder / "model"), "--data", str(world.folder / "train.jsonl")]


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.SIZES, "tiny", (32, 64, 1, 4))
    monkeypatch.setattr(bench.tempfile, "gettempdir", lambda: str(tmp_path))
    bench.main(flags("--random", "tiny", "--json", str(tmp_path / "gpu" / "a.json")))
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| ")}
    assert list(cells) == [
        *("machine", "device", "torch", "transformers", "float32 products, GFLOP/s", "copies, GB/s"),
        *("part", "prefill", "decode", "grading", "update", "optimizer"),
        *("lever", "one prefill per prompt", "all rows in one loop", "keys and values in a buffer"),
        *("rows leave when they end", "a loop of our own", "valid groups only", "the prompt once per group"),
        *("logits in slices", "logits computed once", "completions cut by length", "bfloat16"),
    ]
    assert all(float(on) > 0 and float(off) > 0 for name, (_, on, off, *_) in list(cells.items())[13:])
    found = json.loads((tmp_path / "gpu" / "a.json").read_text())
    assert found["command"].startswith("python -m tools.bench --prompts-per-step 2")
    assert found["part"]["update"]["of the limit, %"] > 0 and set(found["lever"]) == set(list(cells)[13:])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="TRL is not installed")
def test_a_step_beside_trls(world, capsys):
    bench.main(flags("--peer", "trl", *of(world)))
    *_, trl, ours = capsys.readouterr().out.splitlines()
    assert trl.startswith("| TRL, 4 samples a forward |") and ours.startswith("| GPG, 1 of 2 groups valid |")
    assert float(trl.split("|")[2]) > 0 and float(ours.split("|")[2]) > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--peer", "verl"], "--peer"),
        (["--random", "70B"], "--random"),
        (["--valid-share", "0"], "--valid-share"),
        (["--valid-share", "0.5", "1"], "--valid-share: several are for --peer"),
        (["--repeats", "0"], "--repeats"),
        ([*flags("--json", "/dev/null/a.json")], "/dev/null"),
        (["--group-size", "1"], "--group-size"),
        (["--model", "x"], "--data"),
        (["--system-prompt", "qwen-8b"], "qwen-8b"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(wrong, said, capsys):
    with pytest.raises(SystemExit) as error:
        bench.main(wrong)
    lines = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2 and len(lines) == 1 and said in lines[0]


def test_a_step_is_compared_also_where_weights_are_frozen(world, capsys):
    pytest.importorskip("peft")
    bench.main(flags("--check", "--lora-rank", "2", *of(world)))
    assert "| CPU and device | 4 | 4 | 0" in capsys.readouterr().out


def test_an_interrupted_random_model_is_made_again(tmp_path):
    from tools import speed

    (tmp_path / "config.json").write_text("{}")
    speed.make_random(str(tmp_path), str(tmp_path / "rows.jsonl"), 1, (32, 64, 1, 4))
    assert (tmp_path / "model.safetensors").exists()


def test_without_trl_it_says_what_to_install(capsys):
    with patch.object(importlib.util, "find_spec", lambda _: None), pytest.raises(SystemExit) as error:
        bench.main(["--peer", "trl"])
    assert error.value.code == 2 and "pip install trl" in capsys.readouterr().err
