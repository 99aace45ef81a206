"""engine/parallel.py: a model in shards is the whole model: gradients, optimizer, samples, checkpoints, runs.

Tried by hand, each turns this file red: gradients averaged; the root left whole, so that the optimizer gets no shard of
it; forwards by length; a rank without its share of micro-batches (a hang); moments not cut, or not made whole, for a
checkpoint; tied layers saved twice.
"""

import gc
import json
import signal
import time

import pytest
import torch
import torch.distributed as dist
from forked import on_ranks
from safetensors.torch import load_file
from test_ddp import torchrun
from test_policy import random_rollout
from test_rollout import PROMPTS, TOKENIZER, make_model
from torch.testing import assert_close

import rollout as R
from engine import lora, parallel
from engine import policy as P
from engine.float64 import keep_float64
from engine.micro_batches import micro_batches, sample_rows


def two_steps(kind, rank, checkpointing, lora_rank=0):
    """What two steps of this rank's share leave: gradients' norms, sampled ids, weights, moments, all whole."""
    model = make_model("llama", dtype=torch.float64, tie_word_embeddings=True).train()
    keep_float64(model)
    if lora_rank:
        lora.add(model, lora_rank, 0)
    if checkpointing:
        model.activation_checkpointing_enable()
    policy = parallel.spread(P.Policy(model, 0.7), kind)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    r, seen = random_rollout(rank, prompts=3 + rank), []
    for step in range(2):
        with parallel.gathered(policy) as sampler:  # ranks sample different numbers of tokens: no collective may run
            sampled = R.rollout(sampler, TOKENIZER, PROMPTS, 2, 3 + 4 * rank, key=(step,))
        pieces = micro_batches(r, torch.arange(r.truncated.numel()), 40)[: 1 + 2 * rank]
        count = parallel.common_count(policy, len(pieces), torch.device("cpu"))
        one = torch.ones((1, 1), dtype=torch.long)
        for i in range(count):
            samples = sample_rows(r, pieces[i]) if i < len(pieces) else (one, one, one, one, one[0] - 1)
            w = torch.full((int(samples[3].sum()),), float(i < len(pieces)), dtype=torch.float64)
            with parallel.accumulating(policy, last=i == count - 1):
                (policy(*samples, grad=w) * w).sum().backward()
        seen.append(parallel.full_tensors(torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)))
        seen.append(sampled.completion_ids)
        optimizer.step()
        optimizer.zero_grad()
    saved = parallel.full_tensors(optimizer.state_dict())
    optimizer.load_state_dict(parallel.cut_state(saved, optimizer))
    again = parallel.full_tensors(optimizer.state_dict())
    weights = parallel.full_tensors(model.state_dict(keep_vars=True))
    assert weights["lm_head.weight"] is weights["model.embed_tokens.weight"]  # one tensor is saved once
    return seen, {name: x.detach() for name, x in weights.items()}, saved["state"], again["state"]


def rank_main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for checkpointing in (False, True):
        seen, weights, moments, again = two_steps("ddp", rank, checkpointing)
        for other in two_steps("fsdp", rank, checkpointing)[2:]:
            assert_close(other, moments, rtol=1e-10, atol=1e-14)
        assert_close(again, moments, rtol=0, atol=0)
        result = two_steps("fsdp", rank, checkpointing)
        assert_close(result[0], seen, rtol=1e-12, atol=0)
        assert_close(result[1], weights, rtol=1e-10, atol=1e-13)
    if dist.get_world_size() == 2:
        expected, adapters = (two_steps(kind, rank, True, lora_rank=2) for kind in ("ddp", "fsdp"))
        assert_close(adapters, expected, rtol=1e-10, atol=1e-13)
    gc.collect()  # what spreads a model holds itself in circles, and must be gone before the group is
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_shards_are_the_whole_model(world, tmp_path):
    on_ranks(world, tmp_path, rank_main)


def rows_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: x for k, x in row.items() if not k.startswith(("seconds", "imbalance", "logprob_gap"))} for row in rows]


@pytest.mark.slow
def test_a_run_in_shards_is_the_run_on_one_and_goes_on_as_either(world, tmp_path):
    """Samples, rows and parameters of five steps; saved in shards by 2 ranks, gone on with whole by 1, and back."""
    import train

    changes = {"steps": 5, "beta_th": 0.8, "max_rounds": 2, "norm": "token", "eval_every": 2, "noise_every": 2}
    train.main(world(tmp_path / "one", **changes))
    on_ranks(2, tmp_path, train.main, world(tmp_path / "two", **changes, parallel="fsdp"))
    on_ranks(2, tmp_path, train.main, world(tmp_path / "back", **changes | {"steps": 2}, parallel="fsdp"))
    train.main(["--out", str(tmp_path / "back"), "--resume", "--steps", "4", "--parallel", "ddp"])
    on_ranks(
        2, tmp_path, train.main, ["--out", str(tmp_path / "back"), "--resume", "--steps", "5", "--parallel", "fsdp"]
    )
    expected = load_file(tmp_path / "one" / "final" / "model.safetensors")
    for name in ("two", "back"):
        weights = load_file(tmp_path / name / "final" / "model.safetensors")
        assert weights.keys() == expected.keys()
        for key in weights:
            assert_close(weights[key], expected[key], rtol=1e-10, atol=1e-13)
        samples = [(tmp_path / out / "samples.jsonl").read_text() for out in ("one", name)]
        assert samples[0] == samples[1]
    for a, b in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        assert b == pytest.approx(a, rel=1e-9)


@pytest.mark.slow
def test_a_signal_stops_all_ranks_at_one_step_with_a_checkpoint(world, tmp_path):
    import train

    out = tmp_path / "run"
    rows = out / "metrics.jsonl"

    def stop_it(process):
        deadline = time.monotonic() + 100
        while not rows.exists() or rows.read_text().count("\n") < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)

    torchrun(2, world(out, steps=500, parallel="fsdp", eval_data=None, save_every=0), code=1, during=stop_it)
    [folder] = out.glob("checkpoint-*")
    steps = int(folder.name.split("-")[1])
    assert steps == rows.read_text().count("\n") >= 2
    on_ranks(2, tmp_path, train.main, ["--out", str(out), "--resume", "--steps", str(steps + 1)])
    assert len(rows_of(out)) == steps + 1


def test_auto_cuts_the_model_only_where_it_does_not_fit(world, tmp_path, monkeypatch, capsys):
    import train
    from run import memory

    train.main(world(tmp_path / "a", parallel="auto", plan=True))
    assert "--parallel auto: ddp, as a full copy takes" in capsys.readouterr().out
    monkeypatch.setattr(memory, "room", lambda _: (1 << 20, 0))
    train.main(world(tmp_path / "a", parallel="auto", plan=True))
    assert "--parallel auto: fsdp, as a full copy takes" in capsys.readouterr().out


@pytest.mark.parametrize("shared", [True, False])
def test_in_shards_single_tokens_are_predicted_by_what_is_before_them(world, tmp_path, monkeypatch, shared):
    """With max_new_tokens 1, and where completions can't continue from their prompt's cache."""
    import train

    if not shared:
        monkeypatch.setattr(P, "prompts_can_be_shared", lambda _: False)
    rows, file = [], tmp_path / "by_id.py"
    file.write_text("def by_id(completion_ids, **_):\n    return [float(ids[0] % 3) for ids in completion_ids]\n")
    for kind in ("ddp", "fsdp"):
        changes = {"steps": 1, "parallel": kind, "max_new_tokens": 1, "grad_clip": 0, "eval_data": None}
        train.main(world(tmp_path / kind, **changes, rewards=f"{file}:by_id"))
        rows.append(json.loads((tmp_path / kind / "metrics.jsonl").read_text()))
    assert rows[1]["logprob_gap"] < 1e-12 and rows[0]["grad_norm"] > 0
    assert rows[1]["grad_norm"] == pytest.approx(rows[0]["grad_norm"], rel=1e-10)


def test_in_shards_the_padding_of_a_forward_counts_in_its_budget(world, tmp_path, monkeypatch):
    """It is not cut by length there, as all ranks must make equally many forwards."""
    import train
    from run import models

    def suit(policy):
        policy.forward_tokens = 1  # cut wherever a token is saved
        return policy

    sizes, plain = [], P.completion_states
    monkeypatch.setattr(models, "suit", suit)
    monkeypatch.setattr(
        P, "completion_states", lambda *a, **o: sizes.append(a[2].numel() + a[4].numel()) or plain(*a, **o)
    )
    lengths = {"max_new_tokens": 16, "stop": "1"}  # of 2 to 16 tokens
    train.main(world(tmp_path, steps=2, parallel="fsdp", tokens_per_micro_batch=60, eval_data=None, **lengths))
    assert 40 < max(sizes) <= 60


@pytest.mark.slow
def test_in_shards_a_rank_that_sampled_nothing_makes_the_same_collectives(world, tmp_path):
    """FSDP gathers ahead what ran before, also in sampling: with fewer prompts than ranks that would hang."""
    import train

    changes = {"prompts_per_step": 1, "steps": 3, "eval_data": None, "rank_timeout": 30}
    train.main(world(tmp_path / "one", **changes))
    on_ranks(2, tmp_path, train.main, world(tmp_path / "two", **changes, parallel="fsdp"))
    one, two = (load_file(tmp_path / out / "final" / "model.safetensors") for out in ("one", "two"))
    for name, weights in one.items():
        assert_close(two[name], weights, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_bfloat16_in_shards_keeps_float32_weights(world, tmp_path):
    """Gathered in bfloat16, kept and summed in float32: a step near that of ddp, whose products alone are bfloat16."""
    import train

    changes = {"steps": 2, "dtype": "bfloat16", "lr": 1e-6}
    train.main(world(tmp_path / "one", **changes))
    on_ranks(2, tmp_path, train.main, world(tmp_path / "two", **changes, parallel="fsdp"))
    one, two = (load_file(tmp_path / out / "final" / "model.safetensors") for out in ("one", "two"))
    before = load_file(world.folder / "model" / "model.safetensors")
    for name, weights in two.items():
        assert weights.dtype == torch.float32 and not torch.equal(weights, before[name])  # O1: 1e-6 still moves them
        assert (weights - one[name]).abs().max() <= 5e-6  # two steps of 1e-6, in whatever direction
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["logprob_gap"] < 0.3 for row in rows)
