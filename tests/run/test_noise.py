"""--noise-every: the cosine between the gradients of two halves of the groups; test_ddp.py and test_parallel.py have it
on several ranks, in whole models and in shards.

Tried by hand, each turns this file red: the first half left in the second, halves by samples, the first half lost.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

import train
from engine.balance import Share
from engine.float64 import keep_float64
from rollout import Pictures, Rollout
from run import memory, noise
from tasks import addition

OPTIONS = {"steps": 1, "optimizer": "sgd", "lr": 0.5, "weight_decay": 0, "grad_clip": 0, "eval_data": None}


def row_of(out):
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


def gradient_of(world, batch, groups):
    """Of Eq. 8 over some of the valid groups, each sample forwarded alone: all parameters in one vector."""
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model", dtype=torch.float64)
    keep_float64(model)  # as the run does
    r, loss = batch.rollout, 0.0
    for p in groups:
        tokens = int(r.completion_mask[p].sum())
        for g, reward in enumerate(batch.rewards[p]):
            prompt = r.prompt_ids[p][r.prompt_mask[p].bool()]
            completion = r.completion_ids[p, g][r.completion_mask[p, g].bool()]
            logits = model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
            logprob = torch.log_softmax(logits, dim=-1).gather(1, completion[:, None]).sum()
            # alpha / P is one over the number of valid groups
            loss = loss - (reward - batch.rewards[p].mean()) / (batch.num_valid * tokens) * logprob
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("tokens", [1, 120, 16384])
def test_the_cosine_is_that_of_gradients_by_hand_and_their_sum_is_the_gradient(world, tmp_path, monkeypatch, tokens):
    kept = []
    collect = train.collect
    monkeypatch.setattr(train, "collect", lambda *a: kept.append(collect(*a)) or kept[-1])
    for name, every in (("plain", 0), ("noisy", 1)):
        train.main(world(tmp_path / name, **OPTIONS, noise_every=every, tokens_per_micro_batch=tokens))
    batch = kept[0]
    r = batch.rollout
    valid = [p for p in range(5) if len(set(batch.rewards[p].tolist())) > 1]
    assert len(valid) >= 3
    # by turns, in the order of prompts, which are all different
    valid.sort(key=lambda p: r.prompt_ids[p][r.prompt_mask[p].bool()].tolist())
    one, two = (gradient_of(world, batch, half) for half in (valid[::2], valid[1::2]))
    plain, noisy = (row_of(tmp_path / name) for name in ("plain", "noisy"))
    assert noisy["grad_cosine"] == pytest.approx(float(one @ two / (one.norm() * two.norm())), rel=1e-10)
    assert noisy["grad_norm"] == pytest.approx(float((one + two).norm()), rel=1e-10)
    assert "grad_cosine" not in plain and plain["loss"] == pytest.approx(noisy["loss"], rel=1e-10)
    expected, weights = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("plain", "noisy"))
    for name, value in expected.items():
        assert_close(weights[name], value, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("rewards", "prompts", "valid"), [("easy", 3, 0), ("length", 1, 1)])
def test_without_two_groups_there_is_no_cosine(world, tmp_path, rewards, prompts, valid):
    options = OPTIONS | {"rewards": f"{world.folder / 'rewards.py'}:{rewards}", "prompts_per_step": prompts}
    train.main(world(tmp_path, **options, noise_every=1))
    row = row_of(tmp_path)
    assert row["valid_share"] * prompts == valid and row["grad_cosine"] is None
    assert (row["grad_norm"] > 0) == bool(valid)


@pytest.mark.parametrize("changes", [{"kl_coef": 0.5}, {"algo": "ppo"}])
def test_the_halves_of_a_loss_that_is_not_linear_add_up_to_its_gradient(world, tmp_path, changes):
    options = OPTIONS | {"algo": "grpo", "beta_th": None, "steps": 2, "lr": 0.05, "dtype": "float64"} | changes
    for name, every in (("plain", 0), ("noisy", 1)):
        train.main(world(tmp_path / name, **options, noise_every=every))
    expected, weights = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("plain", "noisy"))
    for name, value in expected.items():
        assert_close(weights[name], value, rtol=1e-9, atol=1e-12)
    assert row_of(tmp_path / "noisy")["grad_cosine"] is not None


def test_it_is_measured_every_so_many_steps_from_the_first_on(world, tmp_path):
    train.main(world(tmp_path, **OPTIONS | {"steps": 5}, noise_every=2))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "grad_cosine" in row] == [1, 3, 5]


def test_the_plan_counts_the_gradient_that_is_kept_aside(world, tmp_path):
    shape = memory.shape_of(addition.make_config(addition.make_tokenizer()))
    plans = []
    for every in (0, 3):
        args = train.parse_args(world(tmp_path / "out", noise_every=every))
        plans.append(memory.moments(shape, memory.load_of(args, ranks=2, shards=2)))
    extra = {moment: sum(plans[1][moment].values()) - sum(plans[0][moment].values()) for moment in plans[0]}
    # float64, cut over two ranks
    assert extra == {"rollout": 0, "update": shape.parameters * 8 // 2, "optimizer step": 0}


@pytest.mark.parametrize("seed", range(5))
def test_halves_of_groups_that_differ_by_their_pictures_alone_do_not_depend_on_their_order(seed):
    """Trap 3 of pictures: ids no longer tell prompts apart."""
    S, G = 6, 2
    order = torch.randperm(S, generator=torch.Generator().manual_seed(seed)).tolist()
    ones = torch.ones(S, G, 3, dtype=torch.long)
    images = tuple(Pictures((bytes([name]),), patches=1) for name in order)
    r = Rollout(ones[:, 0], ones[:, 0], ones, ones, ones.double(), ones[..., 0].bool(), images)
    share = Share(r, ones.double(), {}, torch.arange(S * G), S * G, 3 * S * G, 1.0, 1.0)
    halves = [{order[i // G] for i in half.tolist()} for half in noise.split_groups(share)]
    assert halves == [{0, 2, 4}, {1, 3, 5}]
