"""tools/speed.py: what it calls the same work without a lever is the same work, and its limits by hand."""

import argparse
import math
import time
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from pretend_device import NAME, missing, pretend_device, workers
from test_rollout import FOUR, PROMPTS, TOKENIZER, make_model

from engine.fixed_shapes import FixedShapes
from engine.methods import Method
from engine.parallel import spread
from engine.policy import Policy
from rollout import rollout
from run import flags, ranks
from run.models import Trained
from tasks import addition
from tools import bench, speed

CPU = torch.device("cpu")


@pytest.fixture
def alone():
    yield ranks.init_distributed(60)
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", FOUR)
def test_a_part_without_a_lever_does_the_same(kind):
    model = make_model(kind).eval()
    trained = Trained(model, spread(Policy(model, 1.0, "float32"), "ddp"), TOKENIZER, None, Method())
    args = argparse.Namespace(group_size=4, max_new_tokens=14, cache_tokens=10**6, prompts_per_step=len(PROMPTS))
    vars(args).update(valid=[1], tokens_per_micro_batch=4096, algo="gpg", baseline="group", dtype="float32", stop=None)
    vars(args).update(temperature=1.0, top_p=1.0, top_k=0)
    rows = [{"prompt_ids": ids} for ids in PROMPTS]
    plain, names = speed.sample(args, trained, rows), []
    for name, part, on, off in speed.levers(args, trained, rows):
        names.append(name)
        results = []
        for work in (on, off):
            result = work()
            grads = torch.cat([p.grad.flatten() for p in model.parameters()]) if part.startswith("update") else None
            results.append((result, grads))
        (ours, expected), (theirs, other) = results
        if part.startswith("update"):
            close = 0.1 if name == "bfloat16" else 1e-4
            assert expected.norm() > 0 and torch.linalg.norm(other - expected) <= close * torch.linalg.norm(expected)
        elif name == "a loop of our own":
            assert theirs.shape == (len(PROMPTS) * 4, max(map(len, PROMPTS)) + 14)
        elif name != "one prefill per prompt":  # whose samples are other ones
            same(ours, theirs, started=part == "rollout, uneven")
    assert len(set(names)) == len(names) == 11
    same(plain, speed.sample(args, trained, rows))  # all is put back


def same(a, b, started=False):
    """Equal; started: a row's end is where its first loop stopped."""
    longest = min(a.completion_ids.shape[2], b.completion_ids.shape[2])
    mask = a.completion_mask[..., :longest].bool()
    mask &= (a.logprobs[..., :longest] != 0) | (not started)  # 0: never drawn
    assert started or a.completion_ids.shape == b.completion_ids.shape
    assert len(mask.sum(dim=2).unique()) > 3
    assert torch.equal(a.completion_ids[..., :longest][mask], b.completion_ids[..., :longest][mask])
    torch.testing.assert_close(a.logprobs[..., :longest][mask], b.logprobs[..., :longest][mask], rtol=1e-4, atol=1e-4)


def on_a_gpu(words):
    """The tables of the levers and of the check, on a device without clocks of its own."""
    with pretend_device(), ExitStack() as stack:
        start = partial(ranks.init_distributed, backend=f"cpu:gloo,{NAME}:gloo")
        for place, name, value in (
            (ranks, "init_distributed", start),
            (ranks, "has_bfloat16", lambda: True),
            (speed, "clock", lambda _: time.perf_counter()),
            (speed, "settle", lambda _: None),
            (speed, "held", lambda *_, **__: 0.0),
            (speed, "limits_of", lambda *_: (1e9, 1e9)),
        ):
            stack.enter_context(patch.object(place, name, value))
        args = bench.parse_args(words)
        (checked,), (*_, measured) = speed.check(args), speed.parts_and_levers(args)
        return checked["compared"], measured["lever"]


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_gpus_own_levers_on_a_pretend_device(world):
    words = ["--model", str(world.folder / "model"), "--data", str(world.folder / "train.jsonl"), "--repeats", "1"]
    words += ["--prompts-per-step", "3", "--group-size", "2", "--max-new-tokens", "4", "--max-prompt-tokens", "64"]
    with workers() as worker:
        compared, levers = worker.submit(on_a_gpu, words).result()
    assert compared["with and without graphs"]["equal"] == 6 and compared["CPU and device"]["gradients apart"] < 0.1
    loops = {"graphs", "fixed shapes", "rows leave when they end", "a bfloat16 copy", "a loop of our own"}
    assert loops | {"larger slices than a CPU's", "fewer forwards than a CPU's"} < levers.keys()
    assert "keys and values in a buffer" not in levers
    assert all(row["on, s"] > 0 and row["off, s"] > 0 for row in levers.values())


def test_no_completion_ends_before_its_tokens():
    tokenizer = addition.make_tokenizer()
    model = addition.make_model(tokenizer)
    speed.never_end(model, tokenizer)
    assert tokenizer.eos_token_id >= model.config.vocab_size
    assert rollout(model, tokenizer, [[1, 2, 3], [4]], 16, 40).completion_mask.all()


def test_the_share_of_valid_groups_is_what_was_asked_for():
    places = [0, 0, 0, 0, 1, 1, 1, 1]
    rewards = speed.fixed_rewards(places, ["1"] * 8, ["1"] * 8, valid=1)
    assert rewards == [1, 0, 1, 0, 0, 0, 0, 0]


def test_what_does_not_fit_is_nan_and_the_rest_is_measured():
    def too_large():
        raise torch.OutOfMemoryError

    found = speed.measure({"a": too_large, "b": lambda: sum(range(1000))}, CPU, repeats=1)
    assert math.isnan(found["a"]["s"]) and found["b"]["s"] > 0


def test_the_least_seconds_by_hand(monkeypatch):
    """10 parameters, prompts of 2 and 4 tokens, 2 samples of each, of 5 tokens; 100 FLOP/s and 1000 bytes/s."""
    monkeypatch.setattr(speed.memory, "shape_of", lambda _: SimpleNamespace(layers=2, key=3))
    trained = SimpleNamespace(model=SimpleNamespace(num_parameters=lambda: 10, config=None))
    args = SimpleNamespace(group_size=2, max_new_tokens=5, valid=[1], dtype="bfloat16")
    found = speed.least_seconds(args, trained, [2, 4], 100, 1000)
    assert found["prefill"] == 2 * 10 * 6 / 100
    # keys and values of 2 layers of 3 numbers of 2 bytes are 24 bytes a token, of 2 rows of 2 + 2.5 and 2 of 4 + 2.5:
    # 22 tokens. Weights: 20 bytes in .02 s; products of 4 rows: 80 in .8 s, which is more
    assert found["decode"] == pytest.approx(4 * (24 * 22 / 1000 + 0.8))
    assert found["update"] == 6 * 10 * (2 + 1 * 2 * 5) / 100
    assert found["optimizer"] == 7 * 4 * 10 / 1000


def test_a_step_is_the_same_on_the_same_device(world, monkeypatch):
    """Here both are the CPU, and graphs are the other loop without them."""
    args = flags.parse_args(world(None, max_new_tokens=3, prompts_per_step=2, group_size=2, dtype="float32"))
    (found,) = speed.check(args)
    devices, graphs = found["compared"].values()
    assert devices["samples"] == devices["equal"] == graphs["samples"] == graphs["equal"] == 4
    assert devices["gradients apart"] == devices["log π apart"] == 0 and 0 < devices["logprob_gap"] < 1e-4
    assert 0 <= graphs["log π apart"] < 1e-4
    draw = FixedShapes._draw

    def wrong(self, logits, n, options):
        draw(self, -logits, n, options)

    monkeypatch.setattr(FixedShapes, "_draw", wrong)
    (found,) = speed.check(args)
    assert found["compared"]["with and without graphs"]["equal"] < 4
