"""Tests of engine/faster.py: what sampling and a GPU read in place of a model's own parts."""

import copy

import pytest
import torch
from test_rollout import PROMPTS, TOKENIZER, make_model
from torch.testing import assert_close

import rollout as R
from engine import faster, lora, parallel
from engine.faster import fuse_norms, half_copy, halve, refresh
from engine.policy import Policy, autocast


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gpt2"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_copy_computes_what_autocast_computes_to_the_bit(kind, tied):
    model = make_model(kind, tie_word_embeddings=tied)
    half = half_copy(model)
    assert half.get_output_embeddings().weight.dtype == torch.bfloat16
    assert half.get_input_embeddings().weight is model.get_input_embeddings().weight  # in float32, and no copy
    for seed in (0, 1):
        with autocast("bfloat16", torch.device("cpu")):
            ours, theirs = (R.rollout(m, TOKENIZER, PROMPTS, 2, 12, key=(seed,)) for m in (half, model))
        assert torch.equal(ours.completion_ids, theirs.completion_ids)
        assert torch.equal(ours.logprobs, theirs.logprobs)
        with torch.no_grad():  # a step of training
            for p in model.parameters():
                p.mul_(1.25)
        addresses = [p.data_ptr() for p in half.parameters()]
        refresh(half, model)
        assert addresses == [p.data_ptr() for p in half.parameters()]


@pytest.mark.parametrize("kind, products", [("llama", 4), ("qwen2", 4), ("gemma3", 4), ("gpt2", 0)])
def test_products_of_one_input_are_one(kind, products, monkeypatch):
    """Two layers: queries, keys and values are one, and so are the gate and what it lets through. GPT-2's were."""
    half, calls = half_copy(make_model(kind)), []
    monkeypatch.setattr(faster, "linear", lambda *x: calls.append(x) or torch.nn.functional.linear(*x))
    with autocast("bfloat16", torch.device("cpu")):
        half(torch.tensor(PROMPTS[1])[None])
    assert len(calls) == products


def test_other_inputs_and_orders_than_expected_cost_more_and_change_nothing():
    layers = [torch.nn.Linear(3, n, bias=True, dtype=torch.float64) for n in (4, 2, 2)]
    plain = [copy.deepcopy(layer) for layer in layers]
    x, y = torch.linspace(-2, 3, 30, dtype=torch.float64).view(2, 5, 3)
    with torch.no_grad():
        faster._join(layers)
        for order in ([(0, x), (1, x), (2, x)], [(0, x), (1, y), (2, y)], [(2, x), (0, x), (0, y), (1, x), (1, y)]):
            for i, each in order:
                assert_close(layers[i](each), plain[i](each), rtol=1e-14, atol=1e-15)


class Layers(torch.nn.Module):
    """Two layers that have queries, keys and values; the second uses the first one's values."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        linear = torch.nn.Linear
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({f"{x}_proj": linear(3, 3) for x in "qkv"}) for _ in range(2)
        )

    def forward(self, input_ids):
        x, values = input_ids[..., None].float().expand(-1, -1, 3), None
        for layer in self.layers:
            values = layer["v_proj"](x) if values is None else values
            x = layer["q_proj"](x) + layer["k_proj"](x) + values
        return x


def test_products_that_are_not_all_used_in_order_stay_apart():
    """Or the input and products would be kept in vain. Here the first layer asks for values first."""
    layers = half_copy(Layers()).layers
    assert not any("forward" in vars(module) for layer in layers for module in layer.values())


def test_weights_under_adapters_and_frozen_ones_are_not_copied():
    model = make_model("llama")
    model.model.layers[0].requires_grad_(False)  # it gets no adapters
    lora.add(model, 2, 0)
    halve(model, frozen_only=True)
    frozen = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert {"model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.base_layer.weight"} <= frozen
    places = [
        {name: p.data_ptr() for name, p in m.named_parameters() if name in frozen} for m in (model, half_copy(model))
    ]
    assert places[0] == places[1]


def test_the_model_itself_stays_as_it_is():
    model = make_model("qwen2").train()
    before = {name: (p, p.dtype, p.requires_grad) for name, p in model.named_parameters()}
    policy = Policy(model, 1.0, "bfloat16")
    with parallel.gathered(policy) as sampler:
        R.rollout(sampler, TOKENIZER, PROMPTS, 2, 4)
    assert all(module.training for module in model.modules())
    after = dict(model.named_parameters())
    assert all(
        after[name] is p and (p.dtype, p.requires_grad) == rest
        for name, (p, *rest) in before.items()
        for rest in [tuple(rest)]
    )
    assert {name for name, _ in policy.named_parameters()} == {
        f"model.{name}" for name in before
    }  # the copy is no part


def test_float32_and_float64_sample_from_the_model_itself():
    for dtype in ("float32", "float64"):
        policy = Policy(make_model("llama"), 1.0, dtype)
        with parallel.gathered(policy) as sampler:
            assert sampler is policy.model


def test_only_frozen_weights_are_halved_and_not_the_output_layer():
    model = make_model("llama")
    model.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.requires_grad_(True)
    halve(model, frozen_only=True)
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == dtypes["lm_head.weight"] == torch.float32
    assert dtypes["model.layers.0.mlp.down_proj.weight"] == torch.bfloat16
    assert dtypes["model.norm.weight"] == dtypes["model.embed_tokens.weight"] == torch.float32


@pytest.mark.parametrize("kind, norms", [("llama", 5), ("qwen2", 5), ("gemma3", 0), ("gpt2", 0)])
def test_norms_are_fused_where_they_are_torchs_own(kind, norms):
    """Two layers of two norms and a last one. Gemma multiplies by 1 + weight, GPT-2 has no RMS norm."""
    model = make_model(kind, dtype=torch.float64)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 2)
    ids = torch.tensor(PROMPTS[1])[None]
    before = model(ids).logits
    before.sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    fuse_norms(model)
    assert sum("forward" in vars(module) for module in model.modules()) == norms
    after = model(ids).logits
    after.sum().backward()
    # HF's norm is in float32 even here
    assert_close(after, before, rtol=1e-4, atol=1e-4)
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert_close(p.grad, grad, rtol=1e-3, atol=1e-3 * float(grad.abs().max()))
