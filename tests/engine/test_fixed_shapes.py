"""Tests of engine/fixed_shapes.py: it draws the tokens that rollout.decode_packed draws, whatever its shapes are.

The loop is the one of a GPU, without graphs. Mutants of it that were tried and turn this file red: the mask, the
positions or the streams not packed with their rows; a place of the cache off by one; the first look missed; rows of no
sample counted as unfinished; buffers kept when weights move; tokens after the last of a row's width not masked.
"""

from types import SimpleNamespace

import pytest
import test_picture_models as pictures
import torch
from test_rollout import PROMPTS, TOKENIZER, bigram_model, make_model
from torch.testing import assert_close
from transformers import DynamicCache, FalconConfig, FalconForCausalLM

import rollout as R
from engine import fixed_shapes
from engine.fixed_shapes import FixedShapes, fit


@pytest.fixture(autouse=True)
def small_shapes(monkeypatch):
    """Several widths and numbers of rows within short completions."""
    monkeypatch.setattr(fixed_shapes, "ROWS", (1, 2, 3, 5, 8, 13))
    monkeypatch.setattr(fixed_shapes, "WIDTH", 8)


def same(model, prompts, decode, *args, tokenizer=TOKENIZER, rtol=1e-12, **options):
    """Whether both loops draw the same tokens, with the same log-probabilities; the rollout."""
    r = R.rollout(model, tokenizer, prompts, *args, **options)
    other = R.rollout(model, tokenizer, prompts, *args, **options, decode=decode)
    for name in ("prompt_ids", "completion_ids", "completion_mask", "truncated"):
        assert torch.equal(getattr(r, name), getattr(other, name)), name
    assert_close(other.logprobs, r.logprobs, rtol=rtol, atol=rtol)
    return r


@pytest.mark.parametrize("look", [1, 4, 16])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_same_tokens_in_float64(kind, look):
    model, decode = make_model(kind, dtype=torch.float64), FixedShapes(look=look)
    for seed in range(4):  # also with buffers that a rollout before has left
        r = same(model, PROMPTS, decode, 3, 30, key=(seed,))
        lengths = r.completion_mask.sum(dim=2)
        assert lengths.min() < 8 and lengths.max() > 16  # rows leave between looks, and widths grow
    assert decode.size == (fit(15), 48, 30)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_same_tokens_in_float32(kind):
    model = make_model(kind)
    same(model, PROMPTS, FixedShapes(look=4), 3, 30, key=(5,), rtol=2e-4)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 5}, {"cache_tokens": 100}]
)
def test_the_same_tokens_with_every_option(options):
    same(make_model("qwen2", dtype=torch.float64), PROMPTS, FixedShapes(look=4), 3, 20, **options)


def test_the_same_tokens_for_one_prompt_and_for_one_token():
    model, decode = make_model("llama", dtype=torch.float64), FixedShapes(look=4)
    same(model, PROMPTS[:1], decode, 8, 20)
    same(model, PROMPTS, decode, 2, 1)
    same(model, PROMPTS[1:], decode, 3, 24)  # more rows and tokens than the buffers have


@pytest.mark.parametrize("kind", pictures.KINDS)
def test_the_same_tokens_after_pictures(kind):
    prompts, images = pictures.prompts_of(kind)
    model, decode = pictures.make_model(kind), FixedShapes(look=4)
    same(model, prompts, decode, 3, 12, tokenizer=pictures.TOKENIZER, images=images)
    assert (decode.size == (0, 0, 0)) == (kind == "gemma3")


def test_ends_at_a_look_before_it_and_after_it():
    """A model that counts: from i it says i + 1, ..., 9, 0. EOS 0 comes after 10 - i tokens."""
    count = bigram_model(60 * torch.eye(10).roll(1, dims=1), 0)
    tokenizer = SimpleNamespace(eos_token_id=0, pad_token_id=None)
    for look in (1, 2, 3, 4, 5):
        r = same(count, [[9], [8], [7], [6], [5], [1]], FixedShapes(look=look), 2, 9, tokenizer=tokenizer)
        assert r.completion_mask.sum(dim=2).tolist() == [[n, n] for n in (1, 2, 3, 4, 5, 9)]
    r = same(count, [[9], [9]], FixedShapes(look=1), 2, 9, tokenizer=tokenizer)  # all end with their first token
    assert r.completion_ids.flatten().tolist() == [0] * 4


def test_weights_that_move_or_change_in_place_are_the_ones_sampled_from():
    decode = FixedShapes(look=4)
    for seed in (0, 1):
        same(make_model("qwen2", seed=seed, dtype=torch.float64), PROMPTS, decode, 2, 12)
    model = make_model("qwen2", dtype=torch.float64)
    same(model, PROMPTS, decode, 2, 12)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    same(model, PROMPTS, decode, 2, 12)


@pytest.mark.parametrize("kind", ["gemma3", "cohere2"])
def test_sliding_windows_are_left_to_the_loop_that_knows_them(kind):
    decode = FixedShapes()
    same(make_model(kind, dtype=torch.float64), PROMPTS, decode, 2, 12)
    assert decode.size == (0, 0, 0)


class Replayed:
    """What a CUDA graph is to its user: work that can be done again."""

    def __init__(self, work, pool, made):
        work()
        self.work, self.shared = work, pool
        made.append(self)

    def replay(self):
        self.work()

    def pool(self):
        return "pool"


def test_alibi_is_left_to_the_loop_that_knows_it():
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FalconForCausalLM(FalconConfig(**shape, alibi=True, eos_token_id=2, initializer_range=0.3)).eval()
    same(model, PROMPTS, FixedShapes(), 2, 12, rtol=1e-5)


def test_a_graph_is_made_once_for_rows_width_and_options():
    model, made, said = make_model("qwen2", dtype=torch.float64), [], []
    decode = FixedShapes(lambda work, pool: Replayed(work, pool, made), said.append, look=4)
    for seed in range(3):
        same(model, PROMPTS, decode, 3, 30, key=(seed,))
    assert len(made) == len(decode.recorded) and not said
    shapes = {(n, width) for n, width, *_ in decode.recorded}
    assert (fit(15), 16) in shapes and {n for n, _ in shapes} > {3, 8} and {w for _, w in shapes} > {16, 24}
    assert [graph.shared for graph in made] == [None] + ["pool"] * (len(made) - 1)
    before = len(made)
    same(model, PROMPTS, decode, 3, 30, key=(0,))
    assert len(made) == before
    same(model, PROMPTS, decode, 3, 30, temperature=0.0)
    assert len(made) > before


def raises(*_):
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Wrong(Replayed):
    """A graph that reads what is no longer there."""

    def replay(self):
        self.work()
        self.state.logprobs += self.by


@pytest.mark.parametrize("fault", ["cannot be recorded", 0.01, float("nan")])
def test_without_a_graph_to_trust_the_kernels_are_started_one_by_one(fault):
    model, made, said = make_model("qwen2", dtype=torch.float64), [], []
    decode = FixedShapes(raises, said.append, look=4)
    if fault != "cannot be recorded":
        decode.record = lambda work, pool: Wrong(work, pool, made)
        Wrong.state, Wrong.by = decode, fault
    same(model, PROMPTS, decode, 3, 30)
    by = f"differ by up to {fault}"
    reason = "operation not permitted when stream is capturing" if fault == "cannot be recorded" else by
    assert len(said) == 1 and said[0].startswith("CUDA graphs are off") and said[0].endswith(reason)
    same(model, PROMPTS, decode, 3, 30, key=(1,))
    assert len(said) == 1 and not decode.recorded


def test_a_rank_draws_for_its_prompts_what_one_rank_draws_for_all():
    model = make_model("llama", dtype=torch.float64)
    whole = R.rollout(model, TOKENIZER, PROMPTS, 2, 16, key=(3,))
    for rank in (0, 1):
        mine = range(rank, len(PROMPTS), 2)
        options = {"key": (3,), "indices": mine, "decode": FixedShapes(look=4)}
        r = R.rollout(model, TOKENIZER, [PROMPTS[p] for p in mine], 2, 16, **options)
        width = r.completion_ids.shape[2]
        assert torch.equal(r.completion_ids, whole.completion_ids[rank::2, :, :width])
        assert torch.equal(r.truncated, whole.truncated[rank::2])


def test_no_wait_between_looks(monkeypatch):
    """Nothing but the looks reads a number back: .nonzero(), .item(), bool() and .tolist() are counted."""
    counts = {"nonzero": 0}
    nonzero = torch.Tensor.nonzero

    def counted(x):
        counts["nonzero"] += 1
        return nonzero(x)

    monkeypatch.setattr(torch.Tensor, "nonzero", counted)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(f"{name} waits for the device"))
    count = bigram_model(60 * torch.eye(10).roll(1, dims=1), 0)
    decode, T = FixedShapes(look=4), 20
    inputs = {"attention_mask": torch.ones(2, 2, dtype=torch.long), "position_ids": torch.arange(2).expand(2, 2)}
    cache = DynamicCache()
    with torch.no_grad():
        out = count(torch.tensor([[3], [4]]), cache=cache, use_cache=True)
        zeros = torch.zeros(2, T)
        draws = R.Draws(zeros.double() + 0.5, zeros.long(), zeros.double(), torch.tensor([77]), {"temperature": 1.0})
        decode(count, inputs | {"cache": out.cache}, torch.arange(2), out.logits[:, -1], draws)
    assert draws.tokens[0].equal(torch.arange(4, 24) % 10)
    assert counts["nonzero"] == 4  # at tokens 4, 8, 12 and 16


def test_rows_that_have_graphs():
    fixed_shapes.ROWS = (8, 16, 1024)
    assert [fit(n) for n in (1, 8, 9, 17, 1024, 1025, 2048)] == [8, 8, 16, 1024, 1024, 1536, 2048]
