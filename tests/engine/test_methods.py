"""The compared methods: each formula by hand, each identity against a surrogate written apart, each loss against TRL's.

Tried by hand, each turns this file red: the maximum in place of the clip's minimum, a clip of the first update, k2 and
k3 exchanged, GAE without its mask, a baseline of all samples for RLOO, a reference that is trained, a critic that is
not restored.
"""

import importlib.util
import json
import math
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from forked import on_ranks
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

import train
from engine import methods
from engine.batch import Batch
from engine.float64 import keep_float64
from engine.methods import (
    Method,
    baseline_advantages,
    clipped_objective,
    gae,
    kl_estimate,
    overlong_penalty,
    whiten,
)
from engine.output_layer import token_logprobs
from gpg import gpg_loss, token_scale, token_weights
from run import flags
from run.flags import ALGOS, BASELINES

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def f64(x):
    return torch.tensor(x, dtype=torch.float64)


def mask_of(lengths, T):
    return (torch.arange(T) < torch.as_tensor(lengths)[..., None]).long()


def batch_of(seed, P=5, G=4, T=7):
    """Log-probabilities (P, G, T) that ask for a gradient, rewards with an easy and a hard group, a ragged mask."""
    generator = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(P, G, T, generator=generator, dtype=torch.float64) * 3
    rewards = (torch.rand(P, G, generator=generator) < 0.5).double()
    rewards[0], rewards[1] = 1.0, 0.0
    rewards[2] = f64([1.0] + [0.0] * (G - 1))
    lengths = torch.randint(1, T + 1, (P, G), generator=generator)
    return logprobs.requires_grad_(), rewards, mask_of(lengths, T)


def gradient(loss, logprobs):
    (grad,) = torch.autograd.grad(loss, logprobs)
    return grad


# ---------------------------------------------------------------------------------------- on policy: weights are enough


def surrogate(name, logprobs, rewards, mask):
    """The loss of a method as its own paper writes it, in loops over samples, with ratios and clips, as nothing else
    here writes it."""
    P, G, T = logprobs.shape
    old, low, high = logprobs.detach(), 0.2, 0.28 if name == "dapo" else 0.2
    kept = [p for p in range(P) if len(set(rewards[p].tolist())) > 1] if name == "dapo" else range(P)
    all_rewards = rewards.flatten().tolist()
    mean_of_all = sum(all_rewards) / len(all_rewards)
    std_of_all = math.sqrt(sum((r - mean_of_all) ** 2 for r in all_rewards) / (len(all_rewards) - 1))
    total, tokens_of_all = 0.0, sum(int(mask[p].sum()) for p in kept)
    for p in kept:
        group = rewards[p].tolist()
        mean = sum(group) / G
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (G - 1))
        for i in range(G):
            if name == "rloo":
                A = group[i] - sum(group[:i] + group[i + 1 :]) / (G - 1)
            elif name == "reinforce++":
                A = (group[i] - mean_of_all) / std_of_all
            elif name in ("grpo", "dapo"):
                A = (group[i] - mean) / std if std else 0.0
            else:
                A = group[i] - mean
            tokens = int(mask[p, i].sum())
            of_sample = 0.0
            for t in range(tokens):
                ratio = (logprobs[p, i, t] - old[p, i, t]).exp()
                of_sample = of_sample + torch.minimum(ratio * A, ratio.clamp(1 - low, 1 + high) * A)
            if name == "grpo":
                total = total + of_sample / tokens / (P * G)
            elif name in ("dr-grpo", "rloo"):
                total = total + of_sample / T / (P * G)
            elif name == "reinforce":
                total = total + of_sample / int(mask[p].sum()) / P
            else:
                total = total + of_sample / tokens_of_all
    return -total


def weights_of(name, rewards, mask, **changes):
    """What train.py makes of the method's flags: train.weigh on a batch."""
    options = {"f_norm": "none", "norm": "group", "age": True} | ALGOS[name] | changes
    num_valid = int((rewards.amax(1) != rewards.amin(1)).sum())
    prompts = num_valid if name == "dapo" else len(rewards)  # DAPO samples until so many prompts are valid
    args = SimpleNamespace(**options | {"algo": name, "prompts_per_step": prompts, "max_new_tokens": mask.shape[2]})
    method = Method(baseline=options.get("baseline", "group"), f_norm=args.f_norm, norm=args.norm)
    rollout = SimpleNamespace(logprobs=torch.zeros(mask.shape))
    batch = Batch(rollout, rewards, mask, num_valid, 1, None, {}, [])
    return train.weigh(methods.prepare(batch, method, None, None, budget=1), args)


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "dapo", "reinforce", "rloo", "reinforce++"])
def test_with_one_update_a_method_is_its_weights(name):
    for seed in range(20):
        logprobs, rewards, mask = batch_of(seed)
        expected = gradient(surrogate(name, logprobs, rewards, mask), logprobs)
        assert_close(gradient(-(weights_of(name, rewards, mask) * logprobs).sum(), logprobs), expected, **EXACT)
        assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["group", "token", "sequence", "constant", "valid_token"])
def test_alpha_acts_with_the_mean_of_the_others_too(norm):
    _, rewards, mask = batch_of(0)  # 4 samples in a group: its others' mean gives 4 / 3 of the advantage
    got = weights_of("gpg", rewards, mask, baseline="others", norm=norm)
    expected = 4 / 3 * token_weights(rewards, mask, norm=norm, max_len=mask.shape[2])
    assert_close(got, expected, **EXACT)
    without = weights_of("gpg", rewards, mask, baseline="others", norm=norm, age=False)
    assert torch.allclose(got, without) == (norm == "valid_token")  # which has no other alpha


def test_dapos_mean_is_that_of_tokens_when_every_group_is_valid():
    logprobs, rewards, mask = batch_of(3)
    rewards[0], rewards[1] = f64([1, 0, 0, 1]), f64([0, 0, 1, 0])
    loss = gpg_loss(logprobs, rewards, mask, f_norm="group", norm="token", age=False)
    expected = gradient(surrogate("dapo", logprobs, rewards, mask), logprobs)
    assert_close(gradient(loss, logprobs), expected, **EXACT)


@pytest.mark.parametrize("recipe", ["grpo", "dr-grpo", "dapo"])
def test_the_recipes_are_the_bundles(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(flags.Path(flags.__file__).parents[1])
    args = flags.parse_args([f"@config/math-7b-{recipe}.args", "--out", str(tmp_path)])
    bundle = flags.parse_args(["@config/math-7b.args", "--algo", recipe, "--out", str(tmp_path)])
    for name in ("f_norm", "norm", "age", "beta_th", "baseline", "updates", "kl_coef"):
        assert getattr(args, name) == getattr(bundle, name)


# ------------------------------------------------------------------------------------------------------------ by hand


def test_baselines_by_hand():
    rewards, greedy = f64([[1, 0, 0, 1], [1, 1, 1, 1]]), f64([1, 0])
    assert_close(baseline_advantages(rewards, "group"), f64([[0.5, -0.5, -0.5, 0.5], [0] * 4]), **EXACT)
    # 1 - (0 + 0 + 1) / 3 = 2/3 and 0 - (1 + 0 + 1) / 3 = -2/3
    assert_close(baseline_advantages(rewards, "others"), f64([[2 / 3, -2 / 3, -2 / 3, 2 / 3], [0] * 4]), **EXACT)
    # the mean of all eight is 6/8: 1 - 3/4 and 0 - 3/4, in the group of equal rewards too
    expected = f64([[0.25, -0.75, -0.75, 0.25], [0.25] * 4])
    assert_close(baseline_advantages(rewards, "batch"), expected, **EXACT)
    # squares: 6 / 16 + 2 * 9 / 16 = 24 / 16, over 7
    assert_close(baseline_advantages(rewards, "batch", "batch"), expected / math.sqrt(1.5 / 7), **EXACT)
    assert_close(baseline_advantages(rewards, "greedy", "none", greedy), f64([[0, -1, -1, 0], [1] * 4]), **EXACT)
    # the mean of the three scored ones is 2/3; squares 1/9 + 4/9 + 1/9, over 2: the others only get what they leave
    got = baseline_advantages(f64([[1, 0], [1, 5]]), "batch", "batch", scored=mask_of([[1, 1], [1, 0]], 1)[:, :, 0])
    assert_close(got, f64([[1 / 3, -2 / 3], [1 / 3, 13 / 3]]) * math.sqrt(3), **EXACT)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.7, -0.3, 1e6 / 3])
def test_equal_rewards_have_no_spread_though_their_mean_is_rounded(value):
    for shape in ((2, 2), (6, 4), (8, 8), (144, 8)):
        rewards = torch.full(shape, value, dtype=torch.float64)
        assert not baseline_advantages(rewards, "batch", "batch").any()
        assert not whiten(rewards[None], torch.ones_like(rewards)[None]).any()
    assert not whiten(rewards[None], torch.zeros_like(rewards)[None]).any()  # no token at all


def test_gae_by_hand():
    rewards, values = f64([[[0, 0, 1, 9]]]), f64([[[0.5, 0.2, 0.4, 7]]])
    mask = mask_of([[3]], 4)  # what stands after the end, 9 and 7, is no one's
    # deltas: 0 + 0.2 - 0.5 = -0.3;  0 + 0.4 - 0.2 = 0.2;  1 + 0 - 0.4 = 0.6;  lambda 0.5
    # A: 0.6;  0.2 + 0.5 * 0.6 = 0.5;  -0.3 + 0.5 * 0.5 = -0.05
    got, returns = gae(rewards, values, mask, lam=0.5)
    assert_close(got, f64([[[-0.05, 0.5, 0.6, 0]]]), **EXACT)
    assert_close(returns, f64([[[0.45, 0.7, 1.0, 0]]]), **EXACT)
    # lambda 1: the reward to come less the value; lambda 0: one step's delta
    assert_close(gae(rewards, values, mask, 1.0)[0], f64([[[0.5, 0.8, 0.6, 0]]]), **EXACT)
    assert_close(gae(rewards, values, mask, 0.0)[0], f64([[[-0.3, 0.2, 0.6, 0]]]), **EXACT)


def test_whitened_tokens_by_hand():
    # tokens 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, over 3
    got = whiten(f64([[[1, 2, 50], [3, 6, -9]]]), mask_of([[2, 2]], 3))
    assert_close(got, f64([[[-2, -1, 0], [0, 3, 0]]]) / math.sqrt(14 / 3), **EXACT)
    assert torch.equal(whiten(torch.ones(1, 1, 2), torch.ones(1, 1, 2)), torch.zeros(1, 1, 2))


def test_the_clip_by_hand():
    ratios, weights = f64([1.0, 1.5, 1.5, 0.5, 0.5, 1.25]), f64([2, 2, -2, 2, -2, 2])
    logprobs = ratios.log().requires_grad_()
    objective, clipped = clipped_objective(logprobs, torch.zeros(6, dtype=torch.float64), weights, (0.2, 0.28))
    # 2;  min(3, 2.56);  min(-3, -2.56);  min(1, 1.6);  min(-1, -1.6);  1.25 is below 1.28
    assert_close(objective, f64([2, 2.56, -3, 1, -1.6, 2.5]), **EXACT)
    # d (ratio * w) / d log pi = ratio * w; nothing where the clip was the smaller
    assert_close(gradient(objective.sum(), logprobs), f64([2, 0, -3, 1, 0, 2.5]), **EXACT)
    assert clipped.tolist() == [False, True, False, False, True, False]


def test_kl_estimates_by_hand():
    logprobs, reference = f64([math.log(0.5)]).requires_grad_(), f64([math.log(0.25)])  # d = log 2
    # k1 = log 2, gradient 1;  k2 = log(2)^2 / 2, gradient log 2;  k3 = 1/2 - 1 + log 2, gradient 1 - 1/2
    for kind, value, slope in (
        ("k1", math.log(2), 1),
        ("k2", math.log(2) ** 2 / 2, math.log(2)),
        ("k3", math.log(2) - 0.5, 0.5),
    ):
        estimate = kl_estimate(logprobs, reference, kind)
        assert estimate.item() == pytest.approx(value, rel=1e-12)
        assert gradient(estimate.sum(), logprobs).item() == pytest.approx(slope, rel=1e-12)


def test_o6_whose_gradient_a_kl_term_has_by_enumeration():
    """A policy over three tokens: the expectation over all outcomes is a sum of three, exact."""
    theta = f64([0.3, -0.5, 0.9]).requires_grad_()
    reference = f64([0.1, 0.4, -0.7]).log_softmax(0)

    def expected(term):  # E over tokens drawn from pi, which is not differentiated: as samples are
        log_pi = theta.log_softmax(0)
        return gradient((log_pi.detach().exp() * term(log_pi)).sum(), theta)

    log_pi = theta.log_softmax(0)
    of_kl = gradient((log_pi.exp() * (log_pi - reference)).sum(), theta)  # KL(pi || reference)
    log_pi = theta.log_softmax(0)
    of_reverse = gradient((reference.exp() * (reference - log_pi)).sum(), theta)  # KL(reference || pi)
    assert (of_kl - of_reverse).abs().max() > 0.05
    assert_close(expected(lambda x: kl_estimate(x, reference, "k1")), torch.zeros(3, dtype=torch.float64), **EXACT)
    assert_close(expected(lambda x: kl_estimate(x, reference, "k2")), of_kl, **EXACT)
    assert_close(expected(lambda x: kl_estimate(x, reference, "k3")), of_reverse, **EXACT)
    # in the reward, -log pi * (-k1): the score function's gradient, right
    assert_close(expected(lambda x: x * kl_estimate(x.detach(), reference, "k1")), of_kl, **EXACT)
    # and both k1 and k3 have the value of KL(pi || reference)
    log_pi = theta.log_softmax(0).detach()
    value = (log_pi.exp() * (log_pi - reference)).sum()
    for kind in ("k1", "k3"):
        assert_close((log_pi.exp() * kl_estimate(log_pi, reference, kind)).sum(), value, **EXACT)


def test_the_overlong_penalty_by_hand():
    # 20 tokens at most, the last 8 of them punished: nothing up to 12, half of it at 16, all at 20
    assert overlong_penalty(torch.tensor([3, 12, 13, 16, 20]), 20, 8).tolist() == [0, 0, -0.125, -0.5, -1]


def test_token_scale_is_the_weight_of_an_advantage_of_one():
    _, rewards, mask = batch_of(1)
    for norm in ("group", "token", "sequence", "constant", "valid_token"):
        for age in (True, False):
            options = {"norm": norm, "age": age, "max_len": 9}
            scale = token_scale(rewards, mask, **options)
            A = rewards - rewards.mean(1, keepdim=True)
            assert_close((A * scale)[:, :, None] * mask, token_weights(rewards, mask, **options), **EXACT)
    none = torch.ones(2, 3, dtype=torch.float64)
    assert token_scale(none, torch.ones(2, 3, 4)).tolist() == [[0] * 3] * 2  # alpha would be infinite
    assert token_scale(none, torch.ones(2, 3, 4), age=False).tolist() == [[1 / 24], [1 / 24]]


# ---------------------------------------------------------------------------------------------------- in a run, by hand


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def run(world, out, monkeypatch=None, **changes):
    """-> the parameters after it and the batches of its steps"""
    kept = []
    if monkeypatch:
        collect = train.collect
        monkeypatch.setattr(train, "collect", lambda *a: kept.append(collect(*a)) or kept[-1])
    train.main(world(out, **{"optimizer": "sgd", "weight_decay": 0, "grad_clip": 0, "warmup": 0, "steps": 1} | changes))
    return load_file(out / "final" / "model.safetensors"), kept


def of_each_sample(r, tokens):
    """(P, G, T) of what tokens(prompt, ids) says of each completion token, (t,): each sample alone, no padding."""
    P, G, T = r.completion_ids.shape
    rows = []
    for p in range(P):
        prompt = r.prompt_ids[p][r.prompt_mask[p].bool()]
        for g in range(G):
            ids = r.completion_ids[p, g][: int(r.completion_mask[p, g].sum())]
            rows.append(torch.nn.functional.pad(tokens(prompt, ids), (0, T - len(ids))))
    return torch.stack(rows).view(P, G, T)


def plain_logprobs(model, r):
    """(P, G, T), each sample alone, no cache, no padding."""

    def tokens(prompt, ids):
        logits = model(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]  # (t, V)
        return token_logprobs(logits, ids)

    return of_each_sample(r, tokens)


def start_of(world):
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model", dtype=torch.float64)
    keep_float64(model)
    return model


def stepped(model, loss, lr):
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= lr * p.grad


def assert_same(model, after):
    for name, p in model.named_parameters():
        if name in after:
            assert_close(after[name], p.detach(), rtol=1e-9, atol=1e-12)


def test_three_updates_with_a_clip_worked_out_apart(world, tmp_path, monkeypatch):
    lr = 30.0  # so large that ratios leave the clip at once
    options = {"algo": "grpo", "updates": 3, "clip": "0.1,0.2", "lr": lr}
    after, (batch,) = run(world, tmp_path, monkeypatch, **options)
    model, r = start_of(world), batch.rollout
    w = token_weights(batch.rewards, r.completion_mask, f_norm="group", norm="sequence", age=False)
    old = plain_logprobs(model, r).detach()
    for _ in range(3):
        ratio = (plain_logprobs(model, r) - old).exp()
        taken = ((w > 0) & (ratio > 1.2)) | ((w < 0) & (ratio < 0.9))
        stepped(model, -torch.minimum(ratio * w, ratio.clamp(0.9, 1.2) * w).sum(), lr)
    assert_same(model, after)
    weighted = (w != 0) & r.completion_mask.bool()
    assert rows_of(tmp_path)[0]["clipped_share"] == pytest.approx(float(taken[weighted].double().mean()), rel=1e-12)
    assert 0.02 < taken[weighted].double().mean() < 0.98


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_a_kl_term_in_the_loss_worked_out_apart(world, tmp_path, monkeypatch, kind):
    """Two steps, as on the first one the policy is its reference. Groups without spread take part in the term."""
    options = {"kl_coef": 0.7, "kl": kind, "lr": 3.0, "steps": 2, "beta_th": 0}
    after, batches = run(world, tmp_path, monkeypatch, **options)
    model, reference = start_of(world), start_of(world)
    for batch in batches:
        r, mask = batch.rollout, batch.rollout.completion_mask
        logprobs, of_reference = plain_logprobs(model, r), plain_logprobs(reference, r).detach()
        d, tokens = logprobs - of_reference, mask.sum(dim=(1, 2))[:, None, None]
        kl = {"k1": d, "k2": d**2 / 2, "k3": (-d).exp() - 1 + d}[kind]
        loss = gpg_loss(logprobs, batch.rewards, mask) + 0.7 * (kl * mask / tokens).sum() / len(batch.rewards)
        expected = float((((-d).exp() - 1 + d) * mask).sum().detach() / mask.sum())
        stepped(model, loss, 3.0)
    assert_same(model, after)
    assert rows_of(tmp_path)[0]["kl"] == pytest.approx(0, abs=1e-12)
    assert rows_of(tmp_path)[1]["kl"] == pytest.approx(expected, rel=1e-8) and expected > 1e-5


def test_a_kl_penalty_in_the_reward_worked_out_apart(world, tmp_path, monkeypatch):
    options = {"algo": "rloo", "kl_coef": 0.7, "kl": "k1", "kl_in": "reward", "lr": 20.0, "steps": 2}
    after, batches = run(world, tmp_path, monkeypatch, **options)
    model, reference = start_of(world), start_of(world)
    for batch in batches:
        r, mask, G = batch.rollout, batch.rollout.completion_mask, 4
        logprobs, of_reference = plain_logprobs(model, r), plain_logprobs(reference, r)
        rewards = batch.rewards - 0.7 * (logprobs - of_reference).detach().sum(dim=2)
        A = rewards - (rewards.sum(1, keepdim=True) - rewards) / (G - 1)
        stepped(model, -(A[:, :, None] * logprobs * mask).sum() / (8 * rewards.numel()), 20.0)  # 8: max_new_tokens
    assert_same(model, after)


SOME = """
def some(completions, **_):
    return [None if len(c) % 4 == 3 else float(len(c)) for c in completions]
"""


@pytest.mark.parametrize("algo", ["rloo", "reinforce++"])
def test_a_sample_that_is_left_out_moves_no_baseline(world, tmp_path, monkeypatch, algo):
    """Penalties in the reward, and the mean of a step: those of the samples that are scored."""
    (tmp_path / "some.py").write_text(SOME)
    options = {"algo": algo, "norm": "constant", "f_norm": "none", "clip": "off", "lr": 0.3, "steps": 3}
    options |= {"kl_coef": 0.7, "kl": "k1", "kl_in": "reward", "rewards": f"{tmp_path / 'some.py'}:some"}
    after, batches = run(world, tmp_path / "run", monkeypatch, **options)
    model, reference, kls = start_of(world), start_of(world), []
    for batch in batches:
        r, (P, G) = batch.rollout, batch.rewards.shape
        scored = batch.loss_mask.any(dim=2)
        logprobs, d = plain_logprobs(model, r), plain_logprobs(model, r) - plain_logprobs(reference, r)
        d = (d * batch.loss_mask).detach()
        A = torch.zeros_like(batch.rewards)
        rewards = batch.rewards - 0.7 * d.sum(dim=2)
        for p, g in scored.nonzero().tolist():
            group = rewards[p][scored[p]] if algo == "rloo" else rewards[scored]
            A[p, g] = rewards[p, g] - group.mean()
        A *= G / (G - 1) if algo == "rloo" else 1
        kls.append(float((((-d).exp() - 1 + d) * batch.loss_mask).sum() / batch.loss_mask.sum()))
        stepped(model, -(A[:, :, None] * logprobs * batch.loss_mask).sum() / (8 * P * G), 0.3)
    assert_same(model, after)
    assert all(0 < int((~batch.loss_mask.any(dim=2)).sum()) < P * G for batch in batches)
    assert [row["kl"] for row in rows_of(tmp_path / "run")] == pytest.approx(kls, rel=1e-8, abs=1e-12)


def test_ppo_worked_out_apart(world, tmp_path, monkeypatch):
    """Values, GAE, whitened advantages, and a critic that is fitted at each of two updates: two steps."""
    lr, factor = 0.5, 0.25
    options = {"algo": "ppo", "lr": lr, "critic_lr_factor": factor, "gae_lambda": 0.6, "steps": 2, "clip": "off"}
    after, batches = run(world, tmp_path, monkeypatch, **options)
    model, critic = start_of(world), start_of(world)
    head, bias = torch.zeros(128, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    head, bias, errors = head.requires_grad_(), bias.requires_grad_(), []

    def value(prompt, ids):
        hidden = critic.base_model(torch.cat([prompt, ids])[None]).last_hidden_state[0]
        return hidden[len(prompt) - 1 : -1] @ head + bias  # (t, D) -> (t,)

    for batch in batches:
        r, mask = batch.rollout, batch.rollout.completion_mask

        V = of_each_sample(r, value).detach()
        A, R = torch.zeros_like(V), torch.zeros_like(V)
        for p in range(len(V)):
            for g in range(V.shape[1]):
                n, later = int(mask[p, g].sum()), 0.0
                for t in reversed(range(n)):
                    reward = float(batch.rewards[p, g]) if t == n - 1 else 0.0
                    later = reward + (float(V[p, g, t + 1]) if t < n - 1 else 0.0) - float(V[p, g, t]) + 0.6 * later
                    A[p, g, t], R[p, g, t] = later, later + V[p, g, t]
        errors.append(float((((V - R) ** 2) * mask).sum() / mask.sum()))
        kept = A[mask.bool()]
        A = (A - kept.mean()) / kept.std() * mask
        for _ in range(2):
            stepped(model, -(A * plain_logprobs(model, r) * mask).sum() / mask.sum(), lr)
            critic.zero_grad()
            head.grad = bias.grad = None
            (((of_each_sample(r, value) - R) ** 2 / 2 * mask).sum() / mask.sum()).backward()
            with torch.no_grad():
                for p in [*critic.base_model.parameters(), head, bias]:
                    p -= lr * factor * p.grad
    assert_same(model, after)
    kept = load_file(tmp_path / "final" / "critic.safetensors")
    assert_close(kept["head.weight"][0], head.detach(), rtol=1e-9, atol=1e-12)
    for name, p in critic.base_model.named_parameters():
        assert_close(kept[f"model.{name}"], p.detach(), rtol=1e-9, atol=1e-12)
    assert [row["value_error"] for row in rows_of(tmp_path)] == pytest.approx(errors, rel=1e-9)


def test_remax_counts_and_subtracts_greedy_completions(world, tmp_path, monkeypatch):
    after, (batch,) = run(world, tmp_path, monkeypatch, algo="remax", lr=1.0)
    model, r = start_of(world), batch.rollout
    A = (batch.rewards - batch.greedy[:, None])[:, :, None] * r.completion_mask
    stepped(model, -(A * plain_logprobs(model, r)).sum() / (8 * batch.rewards.numel()), 1.0)
    assert_same(model, after)
    drawn = rows_of(tmp_path)[0]["generated_tokens"] - int(r.completion_mask.sum())
    assert len(batch.greedy) <= drawn <= 8 * len(batch.greedy)


def test_a_critic_whose_gradient_overflows_makes_no_step(world, tmp_path):
    """Whitened advantages stay finite, while the squares of returns do not."""
    (tmp_path / "huge.py").write_text("def huge(completions, **_):\n    return [1e200 * len(c) for c in completions]\n")
    options = {"algo": "ppo", "beta_th": None, "rewards": f"{tmp_path / 'huge.py'}:huge", "eval_data": None}
    after, _ = run(world, tmp_path / "run", **options)
    start = load_file(world.folder / "model" / "model.safetensors")
    assert all(torch.equal(x, start[name].to(x.dtype)) for name, x in after.items())
    assert rows_of(tmp_path / "run")[0]["skipped"] == 1
    assert all(x.isfinite().all() for x in load_file(tmp_path / "run" / "final" / "critic.safetensors").values())


def test_a_critic_too_may_be_checkpointed_and_still_share_prompts(world):
    model = start_of(world).train()
    model.activation_checkpointing_enable()
    assert methods.Critic(model).shared


def test_a_greedy_completion_that_is_not_scored_gives_way_to_the_mean_of_the_samples(world, tmp_path, monkeypatch):
    greedy = "    if len(completions) == 5:\n        return [None, None, 3.0, 4.0, 5.0]\n"
    (tmp_path / "some.py").write_text(SOME.replace("    return", greedy + "    return").replace("None if", "0.5 if"))
    graded, grade = [], train.grade
    monkeypatch.setattr(train, "grade", lambda *a: graded.append(grade(*a)) or graded[-1])
    options = {"algo": "remax", "rewards": f"{tmp_path / 'some.py'}:some", "eval_data": None}
    _, (batch,) = run(world, tmp_path / "run", monkeypatch, **options)
    scored = graded[1].loss_mask.any(dim=2).squeeze(1)
    assert 0 < int(scored.sum()) < len(scored)
    assert torch.equal(batch.greedy[scored], graded[1].rewards[scored, 0])
    assert torch.equal(batch.greedy[~scored], batch.rewards.mean(dim=1)[~scored]) and batch.greedy[~scored].all()


def test_sft_is_the_mean_of_its_tokens(world, tmp_path, monkeypatch):
    rows = [{"problem": f"{n}+1=?", "answer": str(n + 1), "worked": "7" * (n % 5 + 1)} for n in range(8)]
    rows.append(rows[0] | {"worked": "8" * 40})  # longer than --max-new-tokens
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"algo": "sft", "data": tmp_path / "data.jsonl", "solution_field": "worked", "group_size": None}
    after, (batch,) = run(world, tmp_path / "out", monkeypatch, lr=1.0, **options)
    model, r = start_of(world), batch.rollout
    stepped(model, -plain_logprobs(model, r).sum() / r.completion_mask.sum(), 1.0)
    assert_same(model, after)
    lengths = r.completion_mask.sum(dim=2).flatten().tolist()
    ids = [row[:n] for row, n in zip(r.completion_ids.flatten(0, 1).tolist(), lengths, strict=True)]
    assert all(row[-1] == 259 for row in ids)  # it learns to stop
    assert len(ids) == 5 and all(len(set(row[:-1])) == 1 and 2 <= len(row) <= 6 for row in ids)
    row = rows_of(tmp_path / "out")[0]
    expected = -plain_logprobs(start_of(world), r).sum().item() / int(r.completion_mask.sum())
    assert row["loss"] == pytest.approx(expected, rel=1e-10) and row["logprob_gap"] is None and row["alpha"] is None


def test_an_overlong_answer_costs_reward(world, tmp_path, monkeypatch):
    with_it, (batch,) = run(world, tmp_path / "a", monkeypatch, overlong_buffer=4)
    lengths = batch.rollout.completion_mask.sum(dim=2)
    got, plain = rows_of(tmp_path / "a")[0], float(overlong_penalty(lengths, 8, 4).double().mean())
    run(world, tmp_path / "b")
    assert got["reward"] == pytest.approx(rows_of(tmp_path / "b")[0]["reward"] + plain, rel=1e-12) and plain < 0


# ------------------------------------------------------------------------------------------------- runs that are cut


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
def test_a_run_that_goes_on_is_the_run_never_stopped(world, tmp_path, algo):
    options = {"algo": algo, "updates": 2, "kl_coef": 0.1, "optimizer": "adamw", "save_every": 2, "dtype": "float32"}
    whole, _ = run(world, tmp_path / "whole", **options | {"steps": 4})
    run(world, tmp_path / "cut", **options | {"steps": 2})
    train.main(["--out", str(tmp_path / "cut"), "--resume", "--steps", "4"])
    resumed = load_file(tmp_path / "cut" / "final" / "model.safetensors")
    assert all(torch.equal(resumed[name], x) for name, x in whole.items())
    words = ["--out", str(tmp_path / "cut"), "--resume", "--steps", "5", "--weight-decay", "0.25"]
    train.main([*words, "--critic-lr-factor", "3"])
    saved = torch.load(tmp_path / "cut" / "final" / "trainer.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [(group["weight_decay"], group["factor"]) for group in saved][:2] == [(0.25, 1), (0, 1)]
    if algo == "ppo":
        assert [(group["weight_decay"], group["factor"]) for group in saved][2:] == [(0.25, 3), (0, 3)]
        run(world, tmp_path / "cut", **options | {"steps": 4, "overwrite": True})
        kept, other = (load_file(tmp_path / name / "final" / "critic.safetensors") for name in ("whole", "cut"))
        assert all(torch.equal(other[name], x) for name, x in kept.items()) and kept["head.weight"].any()


def rank_main(commands):
    torch.distributed.init_process_group("gloo")
    for words in commands:
        train.train(flags.parse_args(words), torch.device("cpu"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_make_the_run_of_one(world, tmp_path):
    options = {"optimizer": "sgd", "weight_decay": 0, "steps": 2, "lr": 3.0, "eval_data": None}
    runs = {
        "ppo": {"algo": "ppo", "kl_coef": 0.2, "kl_in": "reward", "kl": "k1", "critic_lr_factor": 0.1},
        "grpo": {"algo": "grpo", "updates": 2, "kl_coef": 0.3, "prompts_per_step": 3},
        "remax": {"algo": "remax", "f_norm": "batch"},
        "reinforce++": {"algo": "reinforce++"},
    }
    for name, changes in runs.items():
        train.main(world(tmp_path / "one" / name, **options | changes))
    commands = [world(tmp_path / "two" / name, **options | changes) for name, changes in runs.items()]
    on_ranks(2, tmp_path, rank_main, commands)
    for name in runs:
        one, two = (load_file(tmp_path / ranks / name / "final" / "model.safetensors") for ranks in ("one", "two"))
        start = load_file(world.folder / "model" / "model.safetensors")
        moved = max(float((one[key] - start[key]).abs().max()) for key in one)
        assert moved > 1e-4
        for key in one:
            assert_close(two[key], one[key], rtol=1e-9, atol=1e-11)


# ----------------------------------------------------------------------------------------------------- wrong flags


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo": "ppo", "beta_th": 0.5}, "--beta-th and --norm valid_token are for groups"),
        ({"baseline": "batch"}, "with --baseline batch"),
        ({"kl_coef": 0.1, "kl_in": "reward"}, "--kl-in reward all have one"),
        ({"algo": "remax", "f_norm": "group"}, "--f-norm group: not with --baseline greedy"),
        ({"kl_coef": 0.1, "parallel": "fsdp"}, "a reference and a critic need a full copy on each rank"),
        ({"clip": "1.5"}, "--clip (1.5, 1.5): LOW between 0 and 1"),
        ({"clip": "x"}, "argument --clip: invalid clip_range value: 'x'"),
        ({"updates": 0}, "--updates 0: must be 1 or more"),
        ({"algo": "sft", "beta_th": None, "kl_coef": 1, "kl_in": "reward"}, "--algo sft: there is no reward"),
        ({"kl_coef": -1}, "--kl-coef -1.0: must be 0 or more"),
        ({"gae_lambda": 2}, "--gae-lambda 2.0: must be from 0 to 1"),
        ({"overlong_buffer": 9}, "--overlong-buffer: must be at most --max-new-tokens"),
        ({"algo": "trpo"}, "invalid choice: 'trpo'"),
        ({"algo": "sft"}, "--solution-field solution: not a text in 12 of 12 rows"),
        ({"algo": "sft", "solution_field": "problem", "max_new_tokens": 2}, "all solutions are longer"),
    ],
)
def test_what_can_not_be_ends_in_one_line(world, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as ended:
        train.main(world(tmp_path / "out", **changes))
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_flag_wins_over_the_bundle(world, tmp_path):
    args = flags.parse_args(world(tmp_path, algo="grpo", norm="token", beta_th=None))
    assert (args.norm, args.f_norm, args.age, args.beta_th, args.clip) == ("token", "group", False, 0.0, (0.2, 0.2))


# ---------------------------------------------------------------------------------------------------- beside TRL's


@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="TRL is not installed")
@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "dapo", "rloo"])
def test_loss_and_gradient_are_trls_on_the_same_tensors(name):
    """Off policy, so that clips act, and with a KL term where TRL has it in the loss."""
    if name == "rloo":
        from trl.trainer.rloo_trainer import RLOOTrainer as Trainer
    else:
        from trl.trainer.grpo_trainer import GRPOTrainer as Trainer
    logprobs, rewards, mask = batch_of(4)
    P, G, T = mask.shape
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(2, P, G, T, generator=generator, dtype=torch.float64) * 0.3
    old, reference = logprobs.detach() + noise[0], logprobs.detach() + noise[1]
    beta = 0.04 if name != "rloo" else 0.0
    if name == "rloo":
        old = logprobs.detach()  # its ratio is a sample's; on policy, where ours is the same
    options = {"grpo": ("group", "sequence"), "dr-grpo": ("none", "constant"), "dapo": ("group", "token")}
    f_norm, norm = options.get(name, ("none", "constant"))
    A = baseline_advantages(rewards, "others" if name == "rloo" else "group", f_norm)  # (P, G)
    scale = token_scale(rewards, mask, norm=norm, age=False, max_len=T)[:, :, None] * mask
    kept = mask.bool()
    w = (A[:, :, None] * scale)[kept]
    ours = -clipped_objective(logprobs[kept], old[kept], w, (0.2, 0.28))[0].sum()
    ours = ours + beta * (scale.expand_as(mask)[kept] * kl_estimate(logprobs[kept], reference[kept], "k3")).sum()

    flat = logprobs.flatten(0, 1)
    peer = MagicMock()
    peer._get_per_token_logps_and_entropies = lambda *_, **__: (flat, torch.zeros_like(flat), None)
    peer.accelerator.num_processes, peer.accelerator.gather = 1, lambda x: x
    peer.accelerator.reduce = lambda x, **_: x
    peer.current_gradient_accumulation_steps = peer.args.steps_per_generation = 1
    peer.loss_type, peer.importance_sampling_level = name.replace("-", "_"), "token"
    peer.beta, peer.epsilon_low, peer.epsilon_high, peer.max_completion_length = beta, 0.2, 0.28, T
    peer.args.delta, peer.args.use_bias_correction_kl, peer.off_policy_mask_threshold = None, False, None
    peer.use_vllm = peer.aux_loss_enabled = peer._entropy_bonus_enabled = False
    peer.top_entropy_quantile, peer.model.training = 1.0, True
    ids = torch.zeros((P * G, T), dtype=torch.long)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask.flatten(0, 1)}
    inputs |= {
        "advantages": A.flatten(),
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": reference.flatten(0, 1),
    }
    old = old.flatten(0, 1)
    inputs |= {"old_per_token_logps": old, "old_logps": (old * mask.flatten(0, 1)).sum(1)}
    theirs = Trainer._compute_loss(peer, None, inputs)
    of_ours, of_theirs = gradient(ours, logprobs), gradient(theirs, logprobs)
    if name == "rloo":  # a sum over tokens there, a mean over max_len here
        of_ours, theirs, ours = of_ours * T, theirs.detach() * 0, ours.detach() * 0
    assert_close(of_ours * mask, of_theirs * mask, **EXACT)
    assert_close(ours, theirs, **EXACT)
    assert of_theirs.abs().max() > 1e-3


def test_baselines_are_those_of_the_flags():
    assert set(BASELINES) >= {bundle.get("baseline", "group") for bundle in ALGOS.values()}
