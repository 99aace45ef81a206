"""Tests of tools/bench.py: it counts right, and what it calls the same work without a lever is the same work."""

import importlib.util
import json
from unittest.mock import patch

import pytest
import torch
from test_rollout import FOUR, PROMPTS, TOKENIZER, make_model

import rollout as rollout_module
from engine import policy as policy_module
from engine.policy import Policy
from gpg import token_weights
from rollout import rollout
from tasks import addition
from tools import bench


def gradients(model, function, *arguments, **options):
    model.zero_grad()
    function(*arguments, **options)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", FOUR)
def test_the_update_without_a_lever_has_the_same_gradient(kind):
    model = make_model(kind).eval()
    r = rollout(model, TOKENIZER, PROMPTS, 4, 14)
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0]] + [[0.0] * 4] * (len(PROMPTS) - 1), dtype=torch.float64)
    weights = token_weights(rewards, r.completion_mask)
    policy, budget = Policy(model, 1.0), 4096
    expected = gradients(model, bench.update, policy, r, weights, budget)
    assert expected.norm() > 0
    others = [
        gradients(model, bench.update, policy, r, weights, budget, everyone=True),
        gradients(model, bench.update, policy, r, weights, budget, known=False),
    ]
    changes = (policy, "shared", False), (policy, "sliced", False), (policy_module, "FORWARD_TOKENS", 10**9)
    for owner, name, value in changes:
        with patch.object(owner, name, value):
            others.append(gradients(model, bench.update, policy, r, weights, budget))
    for other in others:
        assert torch.linalg.norm(other - expected) <= 1e-4 * torch.linalg.norm(expected)


@pytest.mark.parametrize("kind", FOUR)
def test_the_rollout_without_a_lever_draws_the_same(kind):
    model = make_model(kind)
    plain = rollout(model, TOKENIZER, PROMPTS, 3, 14)
    with patch.object(rollout_module, "_rows_of_cache", bench.concatenated):
        same(plain, rollout(model, TOKENIZER, PROMPTS, 3, 14))
    with bench.uneven(model, 14):
        ragged = rollout(model, TOKENIZER, PROMPTS, 3, 14)
        with patch.object(rollout_module, "_compact", lambda rows: torch.arange(len(rows))):
            same(ragged, rollout(model, TOKENIZER, PROMPTS, 3, 14))
    same(plain, rollout(model, TOKENIZER, PROMPTS, 3, 14))  # all is put back
    lengths = ragged.completion_mask.sum(dim=2).flatten()
    assert len(lengths.unique()) > 3


def same(a, b):
    assert torch.equal(a.completion_ids, b.completion_ids)
    torch.testing.assert_close(a.logprobs, b.logprobs, rtol=1e-4, atol=1e-4)


def test_no_completion_ends_before_its_tokens():
    tokenizer = addition.make_tokenizer()
    model = addition.make_model(tokenizer)
    bench.never_end(model, tokenizer)
    assert tokenizer.eos_token_id >= model.config.vocab_size
    assert rollout(model, tokenizer, [[1, 2, 3], [4]], 16, 40).completion_mask.all()


def test_the_share_of_valid_groups_is_what_was_asked_for():
    places = [0, 0, 0, 0, 1, 1, 1, 1]
    rewards = bench.fixed_rewards(places, ["1"] * 8, ["1"] * 8, valid=1)
    assert rewards == [1, 0, 1, 0, 0, 0, 0, 0]


def flags(world, tmp_path, *more):
    """Tiny shapes: what is tested is that all runs, and what it leaves."""
    shape = {"prompts-per-step": 2, "group-size": 2, "max-new-tokens": 3, "repeats": 1, "json": tmp_path / "bench.json"}
    shape |= {"model": world.folder / "model", "data": world.folder / "train.jsonl", "max-prompt-tokens": 64}
    return [word for name, value in shape.items() for word in (f"--{name}", str(value))] + list(more)


def test_the_command_prints_tables_and_leaves_all_figures(world, tmp_path, capsys):
    with patch.object(bench, "in_a_process", lambda function, *arguments: function(*arguments)):  # an import less
        bench.main(flags(world, tmp_path))
    printed, figures = capsys.readouterr().out, json.loads((tmp_path / "bench.json").read_text())
    for name in ("prefill", "decode", "grading", "update", *bench.LEVERS, "twice the samples", "bare loop"):
        assert name in printed
    assert set(figures["parts"]) == {"prefill", "decode", "grading", "update"}
    assert figures["parts"]["update"]["tokens"] == 2 * 3 and figures["machine_flops"] > 1e8
    assert 0 < figures["update_reaches"] < 1
    assert all(figures["taken"][name]["seconds"] > 0 for names in bench.LEVERS.values() for name in names)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="TRL is not installed")
def test_a_step_beside_trls(world, tmp_path, capsys):
    bench.main(flags(world, tmp_path, "--peer", "trl"))
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert "TRL, 4 samples" in capsys.readouterr().out
    assert figures["trl"]["seconds"] > figures["trl"]["rollout"] > 0 and figures["ours"][0]["seconds"] > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--peer", "verl"], "--peer"),
        (["--valid-share", "0"], "--valid-share"),
        (["--repeats", "0"], "--repeats"),
        (["--group-size", "1"], "--group-size"),
        (["--json", "no/such/folder/x.json"], "--json"),
        (["--model", "x"], "--data"),
        (["--system-prompt", "qwen-8b"], "qwen-8b"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(wrong, said, capsys):
    with pytest.raises(SystemExit) as error:
        bench.main(wrong)
    lines = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2 and len(lines) == 1 and said in lines[0]


def test_without_trl_it_says_what_to_install(capsys):
    with patch.object(importlib.util, "find_spec", lambda _: None), pytest.raises(SystemExit) as error:
        bench.main(["--peer", "trl"])
    assert error.value.code == 2 and "pip install trl" in capsys.readouterr().err
