"""train.py: a step is the method's, whatever the flags that must not matter; and a user's mistake is one line.

Tried by hand, each turns this file red: clipping a micro-batch, an update without a valid group, dropout on, warm-up
from 0, a left-out sample in the baseline, --norm not passed on, all rounds as groups of the step, no stop at beta_th,
the temperature left out of the log-probabilities, decay on norms.
"""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import rollout
import train
from engine import parallel
from engine.batch import Batch, fill_left_out
from engine.float64 import keep_float64
from engine.micro_batches import micro_batches, sample_rows
from engine.optimizer import make_optimizer
from engine.policy import Policy
from gpg import NORMS
from run import flags, models
from run.checkpoint import State
from tasks.built_in import DEFAULTS

ROOT = Path(train.__file__).parent
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_of(out, name="final"):
    return load_file(out / name / "model.safetensors")


def optimizer_of(out, name="final"):
    return torch.load(out / name / "trainer.pt", weights_only=True)["optimizer"]


def run(world, out, **changes):
    train.main(world(out, **changes))
    return weights_of(out)


def untimed(row):
    return {name: value for name, value in row.items() if not name.startswith("seconds")}


# ----------------------------------------------------------------------------------------------------------- one step


def test_sgd_step_is_the_gradient_of_eq_8_worked_out_apart(world, tmp_path, monkeypatch):
    """The whole path, against a plain forward of each sample alone and Eq. 5 to 8 in loops (N10)."""
    kept = []
    collect = train.collect
    monkeypatch.setattr(train, "collect", lambda *a: kept.append(collect(*a)) or kept[-1])
    options = {"optimizer": "sgd", "lr": 0.5, "weight_decay": 0, "grad_clip": 0, "temperature": 0.7}
    after = run(world, tmp_path, steps=1, **options)

    model = AutoModelForCausalLM.from_pretrained(world.folder / "model", dtype=torch.float64)
    keep_float64(model)  # as the run does
    (batch,) = kept
    P, G = 5, 4
    r = rollout.pick(batch.rollout, torch.arange(P), model.device)  # the run may have been on a GPU
    valid = [len(set(group)) > 1 for group in batch.rewards.tolist()]
    loss = 0.0
    for p in range(P):
        if not valid[p]:
            continue
        mean = sum(batch.rewards[p].tolist()) / G
        tokens = int(r.completion_mask[p].sum())
        for g in range(G):
            prompt = r.prompt_ids[p][r.prompt_mask[p].bool()]
            completion = r.completion_ids[p, g][r.completion_mask[p, g].bool()]
            logits = model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
            logprob = torch.log_softmax(logits / 0.7, dim=-1).gather(1, completion[:, None]).sum()
            # alpha * A / (P * tokens of the group) with alpha = P / valid
            loss = loss - (P / sum(valid)) * (batch.rewards[p, g].item() - mean) / (P * tokens) * logprob
    loss.backward()
    assert 0 < sum(valid)
    assert rows_of(tmp_path)[0]["loss"] == pytest.approx(loss.item(), rel=1e-10)
    for name, parameter in model.named_parameters():
        if name in after:  # the output layer is tied to the embedding
            assert_close(after[name], (parameter - 0.5 * parameter.grad).detach(), **EXACT)


NEUTRAL = [{"tokens_per_micro_batch": 1}, {"tokens_per_micro_batch": 90}, {"gradient_checkpointing": True}]


@pytest.mark.parametrize(
    ("norm", "changes"),
    [*itertools.product(NORMS, NEUTRAL), ("group", {"cache_tokens": 160})],  # sampling does not know of --norm
    ids=str,
)
def test_n1_what_must_not_matter_does_not(world, tmp_path, changes, norm):
    plain = run(world, tmp_path / "plain", norm=norm, beta_th=1, max_rounds=3)
    other = run(world, tmp_path / "other", norm=norm, beta_th=1, max_rounds=3, **changes)
    for name in plain:
        assert_close(other[name], plain[name], **EXACT)
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("plain", "other")]
    assert samples[0] == samples[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"f_norm": "group"},
        {"f_norm": "batch"},
        {"norm": "token"},
        {"norm": "sequence"},
        {"norm": "valid_token"},
        {"norm": "constant"},
        {"no_age": True},
        {"beta_th": 1.0},
        {"mask_truncated": True},
        {"temperature": 0.8},
        {"top_p": 0.5},
        {"top_k": 3},
        {"group_size": 3},
        {"prompts_per_step": 4},
        {"max_new_tokens": 6},
        {"lr": 2e-3},
        {"warmup": 2},
        {"schedule": "cosine"},
        {"schedule": "cosine", "lr_floor": 0.5},
        {"weight_decay": 0.0},
        {"grad_clip": 0.1},
        {"seed": 1},
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"system_prompt": "be brief please"},
        {"rewards": "format"},
    ],
    ids=str,
)
def test_every_flag_that_should_matter_does(world, tmp_path, changes):
    # seed 3: one group of the first step is invalid, so that alpha and the norms differ
    plain = run(world, tmp_path / "plain", seed=3, **({"schedule": "cosine"} if "lr_floor" in changes else {}))
    other = run(world, tmp_path / "other", **({"seed": 3} | changes))
    assert any(not torch.equal(plain[name], other[name].to(plain[name].dtype)) for name in plain)
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("plain", "other")]
    assert any(configs[0][name] != configs[1][name] for name in configs[0] if name != "out" and name != "command")


def test_n6_o3_without_a_valid_group_nothing_moves(world, tmp_path):
    after = run(world, tmp_path, rewards=f"{world.folder / 'rewards.py'}:easy")
    before = load_file(world.folder / "model" / "model.safetensors")
    for name in after:
        assert torch.equal(after[name], before[name].double())
    assert optimizer_of(tmp_path)["state"] == {}
    for row in rows_of(tmp_path):
        assert row["alpha"] is None and row["valid_share"] == 0 and row["easy_share"] == 1 and row["grad_norm"] == 0


def test_o3_an_invalid_step_leaves_weights_and_moments_of_a_valid_one_and_the_rate_goes_on(world, tmp_path):
    reward = tmp_path / "later.py"
    reward.write_text(
        "calls = 0\n"
        "def later_easy(completions, **_):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    return [float(len(c) % 2) if calls == 1 else 1.0 for c in completions]\n"
    )
    out = tmp_path / "out"
    train.main(world(out, rewards=f"{reward}:later_easy", steps=2, warmup=4, save_every=1, eval_data=None))
    first, after = (weights_of(out, name) for name in ("checkpoint-1", "final"))
    before = load_file(world.folder / "model" / "model.safetensors")
    assert all(torch.equal(after[name], x) for name, x in first.items())
    assert any(not torch.equal(before[name].double(), x) for name, x in first.items())
    first, after = (optimizer_of(out, name)["state"] for name in ("checkpoint-1", "final"))
    assert first and all(torch.equal(after[i][name], x) for i in first for name, x in first[i].items())
    assert [row["lr"] for row in rows_of(out)] == [1e-3 / 4, 2e-3 / 4]


def test_m6_rewards_that_are_all_none_move_nothing(world, tmp_path):
    reward = tmp_path / "nobody.py"
    reward.write_text("def nobody(completions, **_):\n    return [None for _ in completions]\n")
    out = tmp_path / "out"
    after = run(world, out, rewards=f"{reward}:nobody", steps=2, eval_data=None, norm="valid_token")
    before = load_file(world.folder / "model" / "model.safetensors")
    assert all(torch.equal(x, before[name].double()) for name, x in after.items())
    for row in rows_of(out):
        assert row["left_out_share"] == 1 and row["grad_norm"] == row["valid_share"] == row["reward"] == 0


def test_n10_clip_after_the_whole_gradient_and_log_the_norm_before(world, tmp_path):
    free = run(world, tmp_path / "free", steps=1, grad_clip=0)
    assert free
    clipped = run(world, tmp_path / "clipped", steps=1, grad_clip=1e-3, tokens_per_micro_batch=1)
    assert clipped
    norms = [rows_of(tmp_path / name)[0]["grad_norm"] for name in ("free", "clipped")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-10) and norms[0] > 1e-3
    # AdamW's first moment is 0.1 * gradient: its norm is 0.1 * 1e-3 after clipping (torch adds 1e-6 to the norm)
    moments = optimizer_of(tmp_path / "clipped")["state"].values()
    norm = math.sqrt(sum(float((m["exp_avg"] ** 2).sum()) for m in moments))
    assert norm == pytest.approx(1e-4, rel=1e-4)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out_and_ten_in_a_row_end_the_run(world, tmp_path, monkeypatch, broken):
    backward = train.backward

    def spoiled(*arguments, **options):
        gradient = backward(*arguments, **options)
        return gradient._replace(loss=math.inf) if broken == "loss" else gradient._replace(norm=math.nan)

    monkeypatch.setattr(train, "backward", spoiled)
    with pytest.raises(SystemExit, match="train.py: no finite gradient in the last 10 steps"):
        train.main(world(tmp_path, steps=30, save_every=5))
    rows = rows_of(tmp_path)
    assert len(rows) == 10 and rows[-1]["skipped"] == 10
    assert rows[0]["loss" if broken == "loss" else "grad_norm"] is None
    before = load_file(world.folder / "model" / "model.safetensors")
    for name, value in weights_of(tmp_path, "checkpoint-5").items():
        assert torch.equal(value, before[name].double())


def test_weights_that_are_not_finite_end_in_one_clear_line(world, tmp_path, capsys):
    spoiled = tmp_path / "spoiled"
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    model.save_pretrained(spoiled)
    AutoTokenizer.from_pretrained(world.folder / "model").save_pretrained(spoiled)
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", model=spoiled, eval_data=None))
    assert stopped.value.code == 2 and "logits are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # found before the first step


def test_d1_every_forward_that_is_trained_goes_through_the_wrapper(world, tmp_path, monkeypatch):
    seen = []
    forward = parallel.DistributedDataParallel.forward
    monkeypatch.setattr(
        parallel.DistributedDataParallel, "forward", lambda self, *a, **k: seen.append(1) or forward(self, *a, **k)
    )
    run(world, tmp_path, steps=1, tokens_per_micro_batch=1)
    assert len(seen) > 5


def test_invalid_groups_and_zero_advantages_never_meet_the_model_again(world, tmp_path, monkeypatch):
    rows, batches = [], []
    policy, collect = Policy.forward, train.collect
    monkeypatch.setattr(Policy, "forward", lambda self, *a, **k: rows.append(len(a[2])) or policy(self, *a, **k))
    monkeypatch.setattr(train, "collect", lambda *a: batches.append(collect(*a)) or batches[-1])
    run(world, tmp_path, steps=1, prompts_per_step=12, group_size=3)
    r = batches[0].rewards
    assert [rows.pop(0), rows.pop(0)] == [3, 3]  # trials: of what text reaches, and of the order of sums over ranks
    assert sum(rows) == int((r != r.mean(dim=1, keepdim=True)).sum()) < r.numel()


def test_t16_dropout_is_off_so_that_the_policy_that_is_scored_is_the_one_that_sampled(world, tmp_path):
    folder = tmp_path / "gpt2"
    config = GPT2Config(
        vocab_size=262, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=259, bos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)  # 0.1 of dropout by default
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
    tokenizer.save_pretrained(folder)
    args = flags.parse_args(world(tmp_path / "out", model=folder))
    model = models.load_model(args, folder, torch.device("cpu"))
    assert model.training
    prompts = [[1, 2, 3], [4, 5]]
    r = rollout.rollout(model, tokenizer, prompts, 3, 9)
    [piece] = micro_batches(r, torch.arange(6), 1000)
    samples = sample_rows(r, piece)
    logprobs = Policy(model, 1.0)(*samples)
    sampled = r.logprobs.flatten(0, 1)[piece, : samples[3].shape[1]][samples[3].bool()]
    assert_close(logprobs, sampled, rtol=1e-4, atol=1e-5)


def test_o1_small_updates_survive_bfloat16(world, tmp_path):
    after = run(world, tmp_path, dtype="bfloat16", lr=1e-6, steps=1)
    before = load_file(world.folder / "model" / "model.safetensors")
    moved = sum(int((after[name] != before[name]).sum()) for name in after)
    # in bfloat16 weights of 0.05 a change of 1e-6 would round to nothing nearly everywhere
    assert moved > 0.5 * sum(x.numel() for x in after.values())
    assert all(x.dtype == torch.float32 for x in after.values())


# ---------------------------------------------------------------------------------------------- rounds, left out, rates


def test_a9_rounds_are_collected_until_beta_th_of_p_is_valid(world, tmp_path, monkeypatch):
    batches, tokenizer = [], AutoTokenizer.from_pretrained(world.folder / "model")
    collect = train.collect
    monkeypatch.setattr(train, "collect", lambda *a: batches.append(collect(*a)) or batches[-1])
    run(world, tmp_path, steps=4, beta_th=1.0, max_rounds=6, prompts_per_step=3, group_size=2)
    rows = rows_of(tmp_path)
    position = 0
    for batch, row in zip(batches, rows, strict=True):
        assert row["rounds"] == batch.rounds and len(batch.rewards) == 3 * batch.rounds
        valid = [len(set(group)) > 1 for group in batch.rewards.tolist()]
        assert sum(valid) == batch.num_valid and row["valid_share"] == pytest.approx(sum(valid) / len(valid))
        assert sum(valid[: 3 * (batch.rounds - 1)]) < 3  # it would have ended before
        assert batch.rounds == 6 or batch.num_valid >= 3
        assert row["alpha"] == max(1.0, 3 / batch.num_valid)
        texts = rollout.completion_texts(tokenizer, batch.rollout)  # of all rounds, each beside its own reward
        assert batch.rewards.flatten().tolist() == [len(text) % 2 for text in texts]
        position += 3 * batch.rounds
    assert max(row["rounds"] for row in rows) > 1
    state = torch.load(tmp_path / "final" / "trainer.pt", weights_only=True)["state"]
    assert state["position"] == position and state["step"] == 4  # R2: the cursor is what was consumed


@pytest.mark.parametrize(("num_valid", "counted"), [(2, 3), (5, 5)])
def test_a9_a_step_counts_as_p_groups_or_as_the_valid_ones_if_they_are_more(world, tmp_path, num_valid, counted):
    args = flags.parse_args(world(tmp_path, prompts_per_step=3, no_age=True))
    rewards = torch.tensor([[1.0, 0.0]] * num_valid + [[1.0, 1.0]] * (6 - num_valid), dtype=torch.float64)
    sampled = rollout.Rollout(None, None, None, torch.ones(6, 2, 1), None, torch.zeros(6, 2))
    batch = Batch(sampled, rewards, sampled.completion_mask, num_valid, 2, None, {}, [])
    # six groups in two rounds of P = 3; without alpha a token of a valid group weighs 1/2 / (counted * 2 tokens)
    assert train.weigh(batch, args)[0, 0, 0].item() == pytest.approx(1 / (4 * counted), rel=1e-12)


def test_n8_the_constant_is_max_new_tokens_not_the_padded_width(world, tmp_path):
    args = flags.parse_args(world(tmp_path, prompts_per_step=1, norm="constant", max_new_tokens=8))
    rewards, mask = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.ones(1, 2, 3)
    sampled = rollout.Rollout(None, None, None, mask, None, torch.zeros(1, 2))
    batch = Batch(sampled, rewards, mask, 1, 1, None, {}, [])
    for advantages in (
        None,
        rewards[:, :, None] - 0.5,
    ):  # GPG's, and those of another method: 1/2 / (1 group * 2 samples * 8)
        weights = train.weigh(replace(batch, advantages=advantages), args)
        assert weights[0, 0].tolist() == pytest.approx([1 / 32] * 3, rel=1e-12)


def test_max_rounds_ends_a_step_that_finds_nothing(world, tmp_path):
    run(world, tmp_path, steps=1, beta_th=0.6, max_rounds=3, rewards=f"{world.folder / 'rewards.py'}:easy")
    assert rows_of(tmp_path)[0]["rounds"] == 3


def test_a7_left_out_samples_move_neither_baseline_nor_validity():
    nan, kept = math.nan, False
    rewards = torch.tensor([[1, 0, nan, 1], [0.1, 0.1, 0.1, nan], [nan] * 4, [1, 0, 0, 1]], dtype=torch.float64)
    left_out = rewards.isnan() | torch.tensor([[kept] * 4] * 3 + [[True, kept, kept, kept]])
    filled = fill_left_out(rewards, left_out)
    # (1 + 0 + 1) / 3; 0.1 exactly, though (0.1 + 0.1 + 0.1) / 3 is not; 0 for all; (0 + 0 + 1) / 3
    expected = [[1, 0, 2 / 3, 1], [0.1] * 4, [0] * 4, [1 / 3, 0, 0, 1]]
    assert filled.tolist() == expected
    assert filled[0].mean().item() == pytest.approx(2 / 3, rel=1e-12)


@pytest.mark.parametrize("how", ["none_for_short", "mask_truncated"])
def test_samples_that_are_left_out_have_no_weight(world, tmp_path, monkeypatch, how):
    seen = []
    weigh = train.weigh
    monkeypatch.setattr(train, "weigh", lambda batch, args: seen.append((batch, weigh(batch, args))) or seen[-1][1])
    if how == "mask_truncated":
        run(world, tmp_path, mask_truncated=True, max_new_tokens=14, prompts_per_step=12)
    else:
        run(world, tmp_path, rewards=f"{world.folder / 'rewards.py'}:none_for_short", max_new_tokens=5)
    assert any(row["left_out_share"] > 0 for row in rows_of(tmp_path))
    for batch, weights in seen:
        out = ~batch.loss_mask.any(dim=2)
        if how == "mask_truncated":
            assert torch.equal(out, batch.rollout.truncated)
        assert not weights[out].any()
        for rewards, gone in zip(batch.rewards, out, strict=True):
            assert gone.all() or rewards.mean() == pytest.approx(rewards[~gone].mean().item(), rel=1e-12)


def test_o4_learning_rates_by_hand(world, tmp_path):
    args = flags.parse_args(world(tmp_path, lr=8.0, warmup=4, steps=9))
    # 8 * 1/4, 2/4, 3/4, 4/4, and from then on 8
    assert [train.rate(args, State(step=step)) for step in range(6)] == [2, 4, 6, 8, 8, 8]
    args.schedule, args.lr_floor = "cosine", 0.25
    # down from 8 to 2 over steps 4 to 8: 2 + 6 * (1 + cos(pi * k / 4)) / 2
    expected = [8, 2 + 3 * (1 + math.sqrt(0.5)), 5, 2 + 3 * (1 - math.sqrt(0.5)), 2]
    assert [train.rate(args, State(step=step)) for step in range(4, 9)] == pytest.approx(expected, rel=1e-12)


def test_o5_norms_and_biases_do_not_decay(world, tmp_path):
    args = flags.parse_args(world(tmp_path, weight_decay=0.3))
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model")
    decayed, others = make_optimizer(model, kind="adamw", lr=args.lr, weight_decay=args.weight_decay).param_groups
    assert decayed["weight_decay"] == 0.3 and others["weight_decay"] == 0.0
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in others["params"]} == {n for n in names.values() if "norm" in n or "bias" in n}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


# ------------------------------------------------------------------------------------------------------- rows and files


def test_rows_hold_what_the_design_promises(world, tmp_path):
    run(world, tmp_path, steps=4, eval_every=2, save_every=1, keep=2)
    rows = rows_of(tmp_path)
    promised = """step reward reward_std valid_share easy_share hard_share alpha rounds completion_tokens
    truncated_share grad_norm lr generated_tokens seconds_rollout seconds_reward seconds_update seconds""".split()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert set(promised) <= set(row)
        assert row["valid_share"] + row["easy_share"] + row["hard_share"] == pytest.approx(1)
        assert row["reward"] == row["reward/length"]
        assert ("accuracy" in row) == (row["step"] % 2 == 0)
    assert sum(20 * row["completion_tokens"] for row in rows) == pytest.approx(rows[-1]["generated_tokens"])
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-2", "checkpoint-3", "config.json", "final", "groups.jsonl", "metrics.jsonl", "samples.jsonl",
    ]  # fmt: skip
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {1, 2, 3, 4}
    assert set(samples[0]) == {"step", "problem", "answer", "completion", "reward"}


def test_the_final_checkpoint_is_a_hugging_face_folder_with_the_trained_weights(world, tmp_path):
    weights = run(world, tmp_path, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    AutoTokenizer.from_pretrained(tmp_path / "final")
    for name, value in model.state_dict().items():
        if name in weights:
            assert torch.equal(value, weights[name])


def test_the_same_seed_gives_the_same_bits(world, tmp_path):
    one, two = (run(world, tmp_path / name, dtype="float32", beta_th=1, max_rounds=2) for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    a, b = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert [untimed(row) for row in a] == [untimed(row) for row in b]


def test_w_a_reward_that_raises_is_counted_shown_once_and_zero(world, tmp_path, capsys):
    """The first round must have a sample on which it does not."""
    file = tmp_path / "r.py"
    file.write_text(
        "from pathlib import Path\n"
        "def raises(completions, **_):\n"
        "    first = Path(__file__ + '.seen')\n"
        "    if len(completions) > 1 or first.exists():\n"
        "        raise RuntimeError('no luck')\n"
        "    first.touch()\n"
        "    return [0]\n"
    )
    run(world, tmp_path / "out", rewards=f"{file}:raises,{world.folder / 'rewards.py'}:length")
    rows = rows_of(tmp_path / "out")
    assert [row["reward_errors"] for row in rows] == [19, 20, 20] and all(row["reward/raises"] == 0 for row in rows)
    assert any(row["reward"] > 0 for row in rows)
    assert capsys.readouterr().err.count("no luck") == 1


def test_a_reward_that_raises_on_all_of_the_first_round_ends_the_run(world, tmp_path, capsys):
    file = world.folder / "rewards.py"
    line = file.read_text().split("\n").index('    raise RuntimeError("no luck")') + 1
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", rewards=f"{file}:length,{file}:raises=0", beta_th=1, eval_data=None))
    last = capsys.readouterr().err.splitlines()[-1]
    where = f"RuntimeError: no luck ({file}, line {line})"
    assert stopped.value.code == 2 and last.endswith(
        f"reward 'raises' raised on every sample of the first round: {where}"
    )
    assert (tmp_path / "out" / "metrics.jsonl").exists() is False


def test_stop_texts_end_completions_in_training_and_in_evaluation(world, tmp_path, monkeypatch):
    """A random model draws a digit in a quarter of its completions of eight tokens."""
    seen = []
    draw = train.rollout
    monkeypatch.setattr(train, "rollout", lambda *a, **k: seen.append(draw(*a, **k)) or seen[-1])
    train.main([*world(tmp_path, steps=1), "--stop", *"0123456789"])
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
    ended = {2: 0, 4: 0}  # of the two evaluations, of one sample each, and of the step
    for sampled in seen:
        lengths = sampled.completion_mask.sum(dim=2).flatten().tolist()
        for text, n, cut in zip(
            rollout.completion_texts(tokenizer, sampled), lengths, sampled.truncated.flatten().tolist(), strict=True
        ):
            digits = sum(c in "0123456789" for c in text)
            assert digits <= 1 and (not digits or text[-1] in "0123456789" and not cut) and (n == 8 or not cut)
            ended[4 if sampled.truncated.shape[1] == 4 else 2] += digits
    assert ended[4] > 2
    train.main(["--out", str(tmp_path), "--resume", "--steps", "2", "--stop", "a b"])  # replaces them
    assert json.loads((tmp_path / "config.json").read_text())["stop"] == ["a b"]


def test_overlong_prompts_are_skipped_and_counted_t2(world, tmp_path, capsys):
    long = tmp_path / "long.jsonl"
    text = (world.folder / "train.jsonl").read_text()
    long.write_text(text + json.dumps({"problem": "1" * 90 + "+1=?", "answer": "1"}) + "\n")
    run(world, tmp_path / "out", data=long)
    assert "skipped 1 of 13 prompts, longer than --max-prompt-tokens" in capsys.readouterr().out


def test_e5_held_out_problems_that_are_trained_on_are_said(world, tmp_path, capsys):
    run(world, tmp_path / "apart", steps=1)
    assert "warning: " not in capsys.readouterr().out
    run(world, tmp_path / "shared", steps=1, eval_data=f"{world.folder / 'train.jsonl'}[:7]")
    assert "warning: 7 problems of --eval-data are in --data too" in capsys.readouterr().out


def test_a4_answer_i_is_graded_with_problem_and_tokens_i(world, tmp_path, monkeypatch):
    tokenizer, score_all, seen = AutoTokenizer.from_pretrained(world.folder / "model"), train.score_all, []

    def watched(scorer, rows, texts, sampled, lengths):
        """Holds what a reward gets against the rollout: completion i continues the prompt of problem i."""

        def checked(problems, texts, ids, columns):
            for i, problem in enumerate(problems):
                p, g = divmod(i, 4)
                prompt = tokenizer.decode(sampled.prompt_ids[p][sampled.prompt_mask[p].bool()])
                drawn = sampled.completion_ids[p, g][sampled.completion_mask[p, g].bool()].tolist()
                assert prompt.count(problem) == 1 and problem.count("=") == prompt.count("=") and ids[i] == drawn
                seen.append(
                    (problem, columns["answer"][i], texts[i] == tokenizer.decode(drawn, skip_special_tokens=True))
                )
            return scorer(problems, texts, ids, columns)

        return score_all(checked, rows, texts, sampled, lengths)

    monkeypatch.setattr(train, "score_all", watched)
    reward = tmp_path / "aligned.py"
    reward.write_text(
        "def aligned(prompts, completions, completion_ids, answer, level, **_):\n"
        "    sums = [sum(map(int, p.removesuffix('=?').split('+'))) for p in prompts]\n"
        "    lengths = [len(c.encode()) <= 3 * len(i) for c, i in zip(completions, completion_ids, strict=True)]\n"
        "    assert len(level) == len(answer) == 20\n"
        "    return [float(str(s) == a and ok) for s, a, ok in zip(sums, answer, lengths, strict=True)]\n"
    )
    run(world, tmp_path / "out", rewards=f"{reward}:aligned", cache_tokens=160)
    assert all(row["reward"] == 1 and row["reward_errors"] == 0 for row in rows_of(tmp_path / "out"))
    assert len(seen) == 60 and all(same for *_, same in seen) and len({problem for problem, *_ in seen}) > 10


# --------------------------------------------------------------------------------------------------- a user's mistakes

MISTAKES = [
    ({"steps": 0}, "--steps 0: must be 1 or more"),
    ({"steps": "many"}, "--steps: invalid int value: 'many'"),
    ({"group_size": 1}, "--group-size 1: one has no baseline; use 2 or more"),
    ({"temperature": 0}, "--temperature 0.0: must be above 0"),
    ({"temperature": "nan"}, "--temperature nan: must be above 0"),
    ({"top_p": 1.5}, "--top-p 1.5: must be above 0, and at most 1"),
    ({"top_k": -1}, "--top-k -1: must be 0 or more"),
    ({"beta_th": 1.1}, "--beta-th 1.1: must be from 0 to 1"),
    ({"lr": -1}, "--lr -1.0: must be above 0"),
    ({"lr": "inf"}, "--lr inf: must be above 0"),
    ({"seed": -1}, "--seed -1: must be 0 or more"),
    ({"norm": "mean"}, "--norm: invalid choice: 'mean'"),
    ({"data": None}, "give --data"),
    ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
    ({"model": "nowhere/at-all"}, "nowhere/at-all"),
    ({"model": None}, "the built-in model reads only its own; give --model"),
    ({"rewards": "accurate"}, "accuracy, format"),
    ({"rewards": "nowhere.py:f"}, "nowhere.py"),
    ({"stop": ""}, "--stop: an empty text"),
    ({"keep_best": True, "eval_data": None}, "--keep-best: needs --eval-data"),
    ({"record": 1, "lora_rank": 2}, "--record, --replay: not with --lora-rank"),
    ({"keep_best": True, "eval_every": 0}, "--keep-best: needs --eval-data, and --eval-every above 0"),
    ({"system_prompt": "qwen"}, "qwen-7b"),
    ({"template": "nowhere.txt"}, "nowhere.txt"),
    ({"max_prompt_tokens": 2}, "--max-prompt-tokens 2: all prompts are longer"),
    ({"max_new_tokens": 10_000}, "is above the 1024 positions of"),
    ({"group_siz": 4}, "--group-siz: no such flag; did you mean --group-size?"),
    ({"resume": True}, "no run in"),
    ({"resume": True, "overwrite": True}, "no run in"),
    ({"wandb": "x"}, "pip install wandb"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_a_mistake_ends_in_one_line_and_exit_code_2(world, tmp_path, capsys, changes, message):
    if "wandb" in changes and __import__("importlib.util").util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", **changes))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-new-tokens", "2000"], "is above the 1024 positions of tiny"),
        (["--max-prompt-tokens", "2"], "all prompts are longer"),
        (["--rewards", "nowhere.py:f"], "nowhere.py"),
    ],
)
def test_a_mistake_is_found_before_the_built_in_model_is_made(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path / "out"), *words])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_a_broken_row_names_file_and_line(world, tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text((world.folder / "train.jsonl").read_text() + '{"problem": "1+1=?"}\n')
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", data=broken))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "broken.jsonl" in error and "13" in error and "--skip-bad-rows" in error and error.count("\n") == 1
    train.main(world(tmp_path / "out", data=broken, skip_bad_rows=True))
    assert "12 problems to train on, 12 held out; bad rows skipped: 1 and 0" in capsys.readouterr().out


def test_nan_rewards_are_an_error_not_a_zero(world, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path, rewards=f"{world.folder / 'rewards.py'}:nan"))
    assert stopped.value.code == 2
    assert "nan" in capsys.readouterr().err


def test_a_run_is_never_overwritten_unasked(world, tmp_path, capsys):
    run(world, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    rows = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path))
    assert stopped.value.code == 2 and "--resume continues it, --overwrite deletes it" in capsys.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_text() == rows
    run(world, tmp_path, steps=1, overwrite=True)
    assert len(rows_of(tmp_path)) == 1 and (tmp_path / "notes.txt").read_text() == "mine"


def test_the_command_line_itself_prints_one_line_and_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "--beta-th", "2", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "train.py: --beta-th 2.0: must be from 0 to 1\n"


def test_help_names_every_flag_with_the_papers_value():
    text = flags.make_parser().format_help()
    for flag in "--model --data --lr --beta-th --group-size --norm --f-norm --no-age --max-rounds --resume".split():
        assert flag in text
    for group in flags.make_parser()._action_groups[2:6]:
        for action in group._group_actions:
            assert action.help and len(action.help) > 10


def test_mistakes_in_a_recipe_or_of_the_folder_are_one_line(tmp_path, capsys):
    (tmp_path / "open.args").write_text("--lr '1\n")
    (tmp_path / "file").write_text("")
    for words, message in (
        ([f"@{tmp_path / 'open.args'}"], 'open.args, line "--lr \'1": No closing quotation'),
        ([f"@{tmp_path / 'nowhere.args'}"], "nowhere.args"),
        (["--out", str(tmp_path / "file")], "is a file; give a folder"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ):
        with pytest.raises(SystemExit) as stopped:
            args = flags.parse_args(words)
            flags.user_input(Path(args.out).mkdir, parents=True)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_recipes_are_read_before_the_users_flags(tmp_path):
    recipe = tmp_path / "mine.args"
    recipe.write_text("# a comment\n--lr 3e-6  # another\n--system-prompt 'two words'\n--data x.jsonl --model m\n")
    args = flags.parse_args([f"@{recipe}", "--lr", "1e-5", "--out", str(tmp_path)])
    assert (args.lr, args.system_prompt, args.data) == (1e-5, "two words", "x.jsonl")


def test_defaults_are_the_papers_but_for_the_built_in_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the default --out may hold a run of the user's
    args = flags.parse_args(["--model", "m", "--data", "d"])
    paper = {"lr": 1e-6, "weight_decay": 0.1, "group_size": 8, "beta_th": 0.6, "f_norm": "none", "age": True}
    assert {name: getattr(args, name) for name in paper} == paper
    assert args.norm == "group" and args.schedule == "constant" and args.prompts_per_step == 144 and args.steps == 1100
    built_in = flags.parse_args([])
    assert {name: getattr(built_in, name) for name in DEFAULTS["tiny"]} == DEFAULTS["tiny"]
    assert flags.parse_args(["--lr", "0.5"]).lr == 0.5


def test_state_survives_its_file():
    state = replace(State(), step=3, position=17, seconds=1.5)
    assert State(**json.loads(json.dumps(asdict(state)))) == state
