"""run/setup.py: whose a folder is, and what a resumed run may change."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
from test_checkpoint import assert_same_run
from test_ddp import torchrun
from transformers import AutoTokenizer

import train
from run import checkpoint, flags


def refused(words, capsys):
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as stopped:
        train.main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1, error
    return error


# ------------------------------------------------------------------------------------------------------------ the lock


HOLDS = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"


def test_a_folder_is_one_jobs_until_it_dies(world, tmp_path, capsys):
    """Of another process, and of this one."""
    out = tmp_path / "out"
    out.mkdir()
    words = [sys.executable, "-c", HOLDS, str(out / checkpoint.LOCK)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        assert "another job is writing there" in refused(world(out), capsys)
        assert [path.name for path in out.iterdir()] == [checkpoint.LOCK]
        train.main(world(out, plan=True))  # writes nothing
        other.kill()
    with checkpoint.locked(out):
        assert "another job is writing there" in refused(world(out), capsys)
        (out / "notes.txt").touch()
    train.main(world(out, steps=1, eval_data=None))


def test_a_mistake_leaves_no_folder_behind_but_what_was_there(tmp_path):
    with checkpoint.locked(tmp_path / "new"):
        assert [path.name for path in (tmp_path / "new").iterdir()] == [checkpoint.LOCK]
    assert not (tmp_path / "new").exists()
    with checkpoint.locked(tmp_path / "new"):
        (tmp_path / "new" / checkpoint.LOCK).unlink()  # by hand
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with checkpoint.locked(tmp_path / "mine"):
        pass
    (tmp_path / "mine").rmdir()  # it was there before
    (tmp_path / "notes.txt").touch()
    with checkpoint.locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_all_ranks_end_where_the_folder_is_taken(world, tmp_path):
    with checkpoint.locked(tmp_path):
        _, errors = torchrun(2, world(tmp_path, overwrite=True), 1)
    assert errors.count("another job is writing there") == 1 and "is gone" not in errors


# --------------------------------------------------------------------------------------------------------- what changed


@pytest.fixture
def ended(world, tmp_path, monkeypatch):
    """A run of two steps on files of its own, given by relative paths; its folder's parent is the current one."""
    for name in ("train.jsonl", "test.jsonl", "rewards.py"):
        shutil.copy(world.folder / name, tmp_path / name)
    shutil.copytree(world.folder / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def run(**changes):
        own = {"data": "train.jsonl[:11]", "eval_data": "test.jsonl", "rewards": "rewards.py:length=0.5,format"}
        own |= {"model": "model", "steps": 2, "dtype": "float32"}
        train.main(world("out", **own | changes))
        return tmp_path / "out"

    return run


def test_a_run_goes_on_from_another_folder(ended, tmp_path, monkeypatch, capsys):
    out = ended()
    config = json.loads((out / "config.json").read_text())
    assert config["data"] == f"{tmp_path / 'train.jsonl'}[:11]" and config["model"] == str(tmp_path / "model")
    assert config["rewards"] == f"{tmp_path / 'rewards.py'}:length=0.5,format"
    shutil.copytree(out, tmp_path / "copy")
    monkeypatch.chdir("/")
    capsys.readouterr()
    train.main(["--out", str(out), "--resume", "--steps", "3"])
    printed = capsys.readouterr().out
    assert "--resume changes --steps from 2 to 3\n" in printed and "--allow-changes" not in printed
    monkeypatch.chdir(tmp_path)
    # the same files by relative paths are no change, and a run whose config.json has no hashes goes on
    del config["made_of"]
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"data": "train.jsonl[:11]"}))
    train.main(["--out", "copy", "--resume", "--steps", "3", "--model", "model"])
    assert "--resume changes --steps from 2 to 3\n" in capsys.readouterr().out
    assert_same_run(out, tmp_path / "copy")


def test_other_prompts_and_rewards_are_named_and_need_leave(ended, tmp_path, capsys):
    out = ended(schedule="cosine")
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join([lines[1], lines[0], *lines[2:]]))  # another order
    with open(tmp_path / "rewards.py", "a") as file:
        file.write("# changed\n")
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    error = refused(["--out", "out", "--resume", "--steps", "3"], capsys)
    assert f"--resume: problems, {tmp_path / 'rewards.py'}: not what out was trained with" in error
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    train.main(["--out", "out", "--resume", "--steps", "3", "--allow-changes", "--lr", "1e-4"])
    printed = capsys.readouterr().out
    assert "--resume changes --steps from 2 to 3, --lr from 0.001 to 0.0001; the cosine is stretched" in printed
    assert f"--allow-changes: problems, {tmp_path / 'rewards.py'}: not what" in printed
    train.main(["--out", "out", "--resume", "--steps", "4"])  # which knows the new ones


def test_a_module_beside_a_reward_is_part_of_it(ended, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "beside_it.py").write_text("SCALE = 1\n")
    with open(tmp_path / "rewards.py", "a") as file:
        file.write("import beside_it\n")
    ended(eval_data=None)
    (tmp_path / "beside_it.py").write_text("SCALE = 2\n")
    error = refused(["--out", "out", "--resume", "--steps", "3"], capsys)
    assert f"--resume: {tmp_path / 'beside_it.py'}: not what out was trained with" in error
    del sys.modules["beside_it"]


def test_what_is_no_model_is_said_in_a_line(world, tmp_path, capsys, monkeypatch):
    """A folder without a configuration, one without a tokenizer, an adapter, and one of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--owner--adapter" / "snapshots" / ("0" * 40)
    for folder in (tmp_path / "empty", tmp_path / "bare", tmp_path / "adapter", snapshot, snapshot.parents[1] / "refs"):
        folder.mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    shutil.copy(world.folder / "model" / "config.json", tmp_path / "bare")
    for folder in (tmp_path / "adapter", snapshot):
        (folder / "adapter_config.json").write_text("{}")
    for model, message in (
        (tmp_path / "empty", "the folder has no config.json"),
        (tmp_path / "bare", "no tokens; has the model's folder a tokenizer?"),
        (tmp_path / "adapter", "an adapter; merge it into its model"),
        ("owner/adapter", "owner/adapter: an adapter; merge it into its model"),
    ):
        assert message in refused(world(tmp_path / "out", model=model), capsys)


def test_a_damaged_folder_is_one_line(ended, capsys):
    """What was edited by hand, is another file, or another optimizer's."""
    resume = ["--out", "out", "--resume", "--steps", "3"]
    out = ended()
    assert "--optimizer sgd: the checkpoint is of adamw" in refused([*resume, "--optimizer", "sgd"], capsys)
    config = json.loads((out / "config.json").read_text())
    for text, message in (
        ("[]", "config.json is damaged"),
        (json.dumps(config | {"group_size": 2.5}), "2.5 is no value of --group-size"),
        (json.dumps(config | {"clip": 5}), "5 is no value of --clip"),
        (json.dumps(config | {"stop": 5}), "5 is no value of --stop"),
        (json.dumps(config | {"rewards": 4}), "4 is no value of --rewards"),
        (json.dumps(config | {"template_args": 3}), "3 is no value of --template-args"),
    ):
        (out / "config.json").write_text(text)
        assert message in refused(resume, capsys)
    (out / "config.json").write_text(json.dumps(config))
    for line in ("\0\n", "[]\n", '{"step": "x"}\n', "\n"):
        (out / "samples.jsonl").write_text(line)
        with pytest.raises(SystemExit) as stopped:
            train.main(resume)
        last = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2 and "out/samples.jsonl" in last
        assert "not an object" in last or "not the rows of a run" in last
    (out / "samples.jsonl").write_text("")
    (out / "config.json").unlink()
    (out / "config.json").mkdir()
    assert "config.json is damaged ([Errno 21] Is a directory" in refused(resume, capsys)


def test_a_model_whose_configuration_or_tokenizer_is_wrong_is_one_line(world, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(world.folder / "model", model)
    config = json.loads((model / "config.json").read_text())
    for change, message in (
        ({"hidden_act": "nonsense"}, "config.json: KeyError: 'nonsense'"),
        ({"num_attention_heads": 0}, "config.json: ZeroDivisionError"),
        ({"vocab_size": 3}, "config.json: AssertionError: Padding_idx"),
        ({"hidden_size": "x"}, "for field 'hidden_size': TypeError: Field 'hidden_size' expected int"),
    ):
        (model / "config.json").write_text(json.dumps(config | change))
        assert message in refused(world(tmp_path / "out", model=model), capsys)
    (model / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).unlink(missing_ok=True)
    assert "no tokens; has the model's folder a tokenizer?" in refused(world(tmp_path / "out", model=model), capsys)


def test_weights_under_adapters_must_be_those_of_before(ended, tmp_path, capsys):
    pytest.importorskip("peft")
    ended(lora_rank=2)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"][0] += 2**-10
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    assert "--resume: frozen weights: not what out" in refused(["--out", "out", "--resume", "--steps", "3"], capsys)
    train.main(["--out", "out", "--resume", "--steps", "3", "--allow-changes"])


def test_whole_paths_are_given_to_what_is_here_and_to_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b", "tiny", "format", "r.py", "sat"):
        (tmp_path / name).touch()
    given = {"model": "tiny", "data": "a.jsonl[:3], owner/name[:4],b", "eval_data": None, "template": "sat"}
    given |= {"rewards": "format,r.py:f = 2,iou>0.5", "lr": 1.0}
    here = os.getcwd()
    expected = {"data": f"{here}/a.jsonl[:3], owner/name[:4],{here}/b", "rewards": f"format,{here}/r.py:f = 2,iou>0.5"}
    assert flags.absolute_paths(given) == given | expected
    assert flags.absolute_paths({"model": "b"}) == {"model": f"{here}/b"}
    for folder in ("lr=1e-5", "a, b"):  # what would cut a path: the run then goes on from its own folder
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        for name in ("a.jsonl", "r.py"):
            (tmp_path / folder / name).touch()
        whole = flags.absolute_paths({"data": "a.jsonl", "rewards": "r.py:f"})
        assert whole["rewards"] == "r.py:f" and (whole["data"] == "a.jsonl") == ("," in folder)


def test_overwrite_never_deletes_the_model_that_the_run_begins_with(ended, capsys):
    out = ended()
    words = ["--model", str(out / "final"), "--data", "train.jsonl", "--max-prompt-tokens", "40", "--out", "out"]
    assert "is in out, which --overwrite deletes" in refused([*words, "--max-new-tokens", "8", "--overwrite"], capsys)
    assert (out / "final" / "model.safetensors").exists()


def test_another_algo_on_resume_is_refused_as_its_flags_would_not_follow(ended, capsys):
    ended()
    words = ["--out", "out", "--resume", "--steps", "3", "--algo"]
    assert "--algo grpo: the run's is gpg; leave it out" in refused([*words, "grpo"], capsys)
    train.main([*words, "gpg"])


def test_a_token_beyond_the_embeddings_is_one_line(world, tmp_path, capsys):
    shutil.copytree(world.folder / "model", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens(["=?"])
    tokenizer.save_pretrained(tmp_path / "model")
    words = world(tmp_path / "out", model=tmp_path / "model")
    for command in (words, [*words, "--doctor"]):
        assert "24 prompts have a token above its 262 embeddings" in refused(command, capsys)


@pytest.mark.parametrize("before, after", [("critic", "batch"), ("batch", "critic")])
def test_a_critic_neither_comes_nor_goes_on_resume(ended, capsys, before, after):
    ended(baseline=before, no_age=True, f_norm="batch")
    words = ["--out", "out", "--resume", "--steps", "3", "--baseline", after]
    assert f"--baseline {after}: the checkpoint is of {before}; leave the flag out" in refused(words, capsys)


def test_a_plan_is_made_beside_a_run_and_overwrite_leaves_nothing_of_it(ended, world, capsys):
    assert "--out: is empty" in refused(["--out", " "], capsys)
    out = ended()
    before = sorted(out.rglob("*"))
    train.main(world("out", plan=True))
    assert "peak" in capsys.readouterr().out and sorted(out.rglob("*")) == before
    (out / "controls.json").write_text("{}")  # as a run with pictures leaves it
    train.main(world("out", overwrite=True))
    assert sorted(out.rglob("*")) == before


def test_checkpoints_that_were_moved_away_and_linked(ended, tmp_path):
    ended(save_every=1, keep=1, eval_data=None)
    (tmp_path / "archive").mkdir()
    (tmp_path / "out" / "checkpoint-1").rename(tmp_path / "archive" / "checkpoint-1")
    (tmp_path / "out" / "checkpoint-1").symlink_to(tmp_path / "archive" / "checkpoint-1")
    train.main(["--out", "out", "--resume", "--steps", "4"])
    assert not (tmp_path / "out" / "checkpoint-1").is_symlink() and not list((tmp_path / "out").glob(".checkpoint*"))
    assert (tmp_path / "archive" / "checkpoint-1" / "trainer.pt").exists()
