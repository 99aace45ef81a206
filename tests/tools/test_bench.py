"""Tests of tools/bench.py: it counts right, and what it calls the same work without a lever is the same work."""

import importlib.util
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from test_rollout import FOUR, PROMPTS, TOKENIZER, make_model

from rollout import rollout
from tasks import addition
from tools import bench


@pytest.mark.parametrize("kind", FOUR)
def test_a_part_without_a_lever_does_the_same(kind):
    model = make_model(kind).eval()
    args = SimpleNamespace(group_size=4, max_new_tokens=14, dtype="float32", cache_tokens=10**6)
    args.valid, args.tokens_per_micro_batch = [1], 4096
    draw = partial(bench.sample, args, TOKENIZER, model, [{"prompt_ids": ids} for ids in PROMPTS])
    plain = draw()
    levers = bench.levers(args, model, bench.policy_of(model, "float32"), draw)
    for name, (part, on, off) in levers.items():
        results = []
        for work in (on, off):
            result = work()
            grads = torch.cat([p.grad.flatten() for p in model.parameters()]) if part.startswith("update") else None
            results.append((result, grads))
        (ours, expected), (theirs, other) = results
        if part.startswith("update"):
            close = 0.1 if name == "bfloat16" else 1e-4
            assert expected.norm() > 0 and torch.linalg.norm(other - expected) <= close * torch.linalg.norm(expected)
        elif name != "one prefill per prompt":  # whose samples are other ones
            same(ours, theirs)
        lengths = ours.completion_mask.sum(dim=2).flatten() if part == "rollout, uneven" else None
        assert lengths is None or len(lengths.unique()) > 3
    same(plain, draw())  # all is put back


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


def flags(world, *more):
    """Tiny shapes: what is tested is that all runs, and what it prints."""
    shape = {"prompts-per-step": 2, "group-size": 2, "max-new-tokens": 3, "repeats": 1}
    shape |= {"model": world.folder / "model", "data": world.folder / "train.jsonl", "max-prompt-tokens": 64}
    return [word for name, value in shape.items() for word in (f"--{name}", str(value))] + list(more)


@pytest.mark.slow
def test_the_command_prints_tables(world, capsys):
    with patch.object(bench, "in_a_process", lambda function, *arguments: function(*arguments)):  # an import less
        bench.main(flags(world))
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| ")}
    assert list(cells) == [
        *("part", "prefill", "decode", "grading", "update"),
        *("lever", "one prefill per prompt", "keys and values in a buffer", "rows leave when they end"),
        *("valid groups only", "the prompt once per group", "logits in slices", "logits computed once"),
        *("completions cut by length", "bfloat16"),
    ]
    assert all(float(on) > 0 and float(off) > 0 for name, (_, on, off, *_) in list(cells.items())[6:])
    assert any(line.startswith("update: ") and "GFLOP/s" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="TRL is not installed")
def test_a_step_beside_trls(world, capsys):
    bench.main(flags(world, "--peer", "trl"))
    *_, trl, ours = capsys.readouterr().out.splitlines()
    assert trl.startswith("| TRL, 4 samples a forward |") and ours.startswith("| GPG, 1 of 2 groups valid |")
    assert float(trl.split("|")[2]) > 0 and float(ours.split("|")[2]) > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--peer", "verl"], "--peer"),
        (["--valid-share", "0"], "--valid-share"),
        (["--repeats", "0"], "--repeats"),
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


def test_without_trl_it_says_what_to_install(capsys):
    with patch.object(importlib.util, "find_spec", lambda _: None), pytest.raises(SystemExit) as error:
        bench.main(["--peer", "trl"])
    assert error.value.code == 2 and "pip install trl" in capsys.readouterr().err
