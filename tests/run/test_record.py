"""run/record.py: the update of a recorded step, made again, has the same bits; test_ddp.py has it on several ranks.

Tried by hand, each turns this file red: moments that are not restored, masks that stay bytes, what lies beside a token
left out, samples of later steps kept on resume, a file that is not held against its digest.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from rollout import Pictures
from run import checkpoint, models, record


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def file_of(out, step):
    return out / "rollouts" / f"step-{step:06}.safetensors"


def replayed(monkeypatch, capsys, file, *words):
    """What --replay prints, and the weights that it leaves in memory."""
    used = []
    make_policy = models.make_policy
    with monkeypatch.context() as patch:
        patch.setattr(models, "make_policy", lambda model, *a: used.append(model) or make_policy(model, *a))
        capsys.readouterr()
        train.main(["--replay", str(file), *words])
    return json.loads(capsys.readouterr().out.splitlines()[-1]), used[0].state_dict()


def files_of(out):
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in out.rglob("*")}


RUN = {"steps": 3, "record": 1, "save_every": 1, "keep": 0, "eval_data": None, "dtype": "float32"}


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_th": 1, "max_rounds": 2, "grad_clip": 0.1, "rewards": "none_for_short"},
        {"algo": "grpo", "updates": 2, "clip": 0.01},
        {"algo": "ppo"},
    ],
    ids=str,
)
def test_a_replayed_update_has_the_same_bits(world, tmp_path, monkeypatch, capsys, changes):
    rewards = f"{world.folder / 'rewards.py'}:{changes.pop('rewards', 'length')}"
    beta = {} if "beta_th" in changes else {"beta_th": None}  # that of the method
    train.main(world(tmp_path, **RUN | beta | changes, rewards=rewards))
    before, rows = files_of(tmp_path), rows_of(tmp_path)
    for step in (1, 3):
        row, weights = replayed(monkeypatch, capsys, file_of(tmp_path, step))
        assert row["step"] == step and 0 < row["grad_norm"] == rows[step - 1]["grad_norm"]
        assert {row[name] == rows[step - 1][name] for name in ("loss", "alpha", "logprob_gap")} == {True}
        expected = load_file(tmp_path / ("final" if step == 3 else f"checkpoint-{step}") / "model.safetensors")
        assert all(torch.equal(weights[name].cpu(), value) for name, value in expected.items())
    assert files_of(tmp_path) == before


def test_flags_and_model_can_be_others(world, tmp_path, monkeypatch, capsys):
    train.main(world(tmp_path, **RUN | {"steps": 2}))
    file = file_of(tmp_path, 2)
    row, _ = replayed(monkeypatch, capsys, file)
    for words in (["--norm", "token"], ["--model", str(world.folder / "model")]):  # of step 1
        assert replayed(monkeypatch, capsys, file, *words)[0]["grad_norm"] != row["grad_norm"]
    train.main(["--replay", str(file), "--model", str(tmp_path / "final")])
    assert "final is not the checkpoint of step 1, before step 2" in capsys.readouterr().out
    moved = tmp_path / "elsewhere" / "bug" / file.name  # one file, and neither data nor --out of the run are here
    moved.parent.mkdir(parents=True)
    file.rename(moved)
    monkeypatch.chdir(moved.parent)
    again, _ = replayed(monkeypatch, capsys, moved.name, "--model", str(tmp_path / "checkpoint-1"))
    assert again == row
    with pytest.raises(SystemExit) as stopped:
        train.main(["--replay", moved.name])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and "the checkpoint before its step is not there" in error


def test_the_ranks_of_another_world_take_the_shares_of_several_or_none(world, tmp_path, monkeypatch):
    train.main(world(tmp_path, **RUN | {"steps": 1}))
    facts, config, tensors = record.read(str(file_of(tmp_path, 1)))
    # as if a second rank had recorded the same groups, but for the last token of each
    tensors |= {f"1{name[1:]}": (x[..., :-1] if x.dim() == 3 else x).clone() for name, x in tensors.items()}
    header = {"config": json.dumps(config), "facts": json.dumps(facts | {"ranks": 2})}
    save_file(tensors, tmp_path / "two", header | {"sha256": record.digest(tensors, header)})
    for rank, ranks, groups, T in ((0, 1, 10, 8), (1, 2, 5, 7), (2, 3, 0, 8)):
        monkeypatch.setattr(record.dist, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(record.dist, "get_world_size", lambda ranks=ranks: ranks)
        kept, step, _ = record.load(str(tmp_path / "two"), torch.device("cpu"))
        assert kept["rollout"].prompt_mask.dtype == kept["loss_mask"].dtype == torch.long  # as sampled
        assert step == 1 and kept["rewards"].shape == (groups, 4) == kept["rollout"].truncated.shape
        assert kept["loss_mask"].shape == kept["rollout"].completion_ids.shape == (groups, 4, T)


def test_what_is_no_record_ends_in_one_line(world, tmp_path, capsys):
    train.main(world(tmp_path, **RUN | {"steps": 1}))
    file = file_of(tmp_path, 1)
    whole = file.read_bytes()
    spoiled = bytearray(whole)
    spoiled[-3] ^= 1
    (tmp_path / "spoiled").write_bytes(spoiled)
    (tmp_path / "header").write_bytes(whole.replace(b'\\"step\\": 1,', b'\\"step\\": 2,'))
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("{}")
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text("{}")
    for words, message in (
        ([tmp_path / "spoiled"], "is damaged"),
        ([tmp_path / "header"], "is damaged"),
        ([tmp_path / "half"], "can't be read"),
        ([tmp_path / "text"], "can't be read"),
        ([tmp_path / "nowhere"], "can't be read"),
        ([tmp_path], "can't be read"),
        ([tmp_path / "final" / "model.safetensors"], "holds tensors, but not those of a run"),
        ([file, "--resume"], "leave out --resume and --overwrite"),
        ([file, "--model", small], "no causal LM could be read"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train.main(["--replay", *map(str, words)])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error


def test_tokens_that_the_model_has_not_are_named(world, tmp_path, capsys):
    from transformers import LlamaConfig, LlamaForCausalLM

    train.main(world(tmp_path, **RUN | {"steps": 1}))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "small")
    with pytest.raises(SystemExit) as stopped:
        train.main(["--replay", str(file_of(tmp_path, 1)), "--model", str(tmp_path / "small")])
    assert stopped.value.code == 2 and "has tokens that" in capsys.readouterr().err


def test_only_every_nth_step_is_kept_and_later_ones_go_on_resume(world, tmp_path):
    train.main(world(tmp_path, **RUN | {"steps": 5, "record": 2, "save_every": 3}))
    folder = tmp_path / "rollouts"
    assert sorted(file.name for file in folder.iterdir()) == ["step-000002.safetensors", "step-000004.safetensors"]
    (folder / "notes.txt").write_text("mine")
    checkpoint._delete(tmp_path / "final")
    train.main(["--out", str(tmp_path), "--resume", "--record", "0"])  # from step 3
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "step-000002.safetensors"]
    (folder / "notes.txt").unlink()
    (folder / ".step-000004.safetensors.tmp").write_text("half")
    train.main(world(tmp_path, **RUN | {"steps": 1, "record": 0, "overwrite": True}))
    assert not folder.exists()


def test_more_than_ten_pictures_keep_their_order():
    """As text, picture 10 would come before picture 2, and rank 10's would be rank 0's."""
    tensors = {f"0/pictures/1/7/{i}": torch.tensor([i], dtype=torch.uint8) for i in (10, 2, 0, 1)}
    tensors |= {"10/pictures/0/5/0": torch.tensor([99], dtype=torch.uint8)}
    shown = Pictures((b"\x00", b"\x01", b"\x02", b"\x0a"), patches=7)
    assert record.pictures_of(tensors, "0", 2) == [Pictures(), shown]
    assert record.pictures_of(tensors, "1", 2) == [Pictures(), Pictures()]
    assert record.pictures_of(tensors, "10", 1) == [Pictures((b"c",), patches=5)]
