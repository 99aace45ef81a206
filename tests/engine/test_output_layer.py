"""engine/output_layer.py: logits in slices give the plain log-probabilities and gradients, and no large tensor."""

import itertools
import math

import pytest
import torch
from test_gpg import EXACT, f64
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from engine.output_layer import sliced_logprobs, token_logprobs


def output_layer(seed, N=3, T=5, D=4, V=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, T, D, generator=generator, dtype=dtype)
    weight = torch.randn(V, D, generator=generator, dtype=dtype)
    bias = torch.randn(V, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (hidden, weight, bias)], torch.randint(V, (N, T), generator=generator)


def gradients(logprobs, inputs):
    upstream = torch.linspace(-1, 2, logprobs.numel(), dtype=torch.float64).view_as(logprobs)
    return torch.autograd.grad((logprobs * upstream).sum(), inputs)


@pytest.mark.parametrize("slice_tokens", [1, 4, 15, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_l8_slices_give_the_plain_values_and_gradients(slice_tokens, temperature, dtype, tolerance):
    for seed, with_bias in itertools.product(range(3), (True, False)):
        (hidden, weight, bias), ids = output_layer(seed, dtype=dtype)
        inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
        logits = hidden @ weight.T + (bias if with_bias else 0)
        plain = torch.log_softmax(logits / temperature, dim=-1).gather(-1, ids[..., None]).squeeze(-1)
        options = {"temperature": temperature, "slice_tokens": slice_tokens, "bias": bias if with_bias else None}
        sliced = sliced_logprobs(hidden, weight, ids, **options)
        assert_close(sliced, plain, rtol=tolerance, atol=tolerance / 10)
        assert_close(token_logprobs(logits, ids, temperature), plain, rtol=tolerance, atol=tolerance / 10)
        for ours, theirs in zip(gradients(sliced, inputs), gradients(plain, inputs), strict=True):
            assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_l4_temperature_by_hand():
    # logits 0 and ln 9 at temperature 2 are 0 and ln 3: probabilities 1/4 and 3/4
    logits = f64([[0.0, math.log(9)]]).requires_grad_()
    logprob = token_logprobs(logits, torch.tensor([1]), temperature=2.0)
    assert_close(logprob, f64([math.log(3 / 4)]), **EXACT)
    # (onehot - p) / temperature = (0 - 1/4, 1 - 3/4) / 2
    assert_close(torch.autograd.grad(logprob.sum(), logits)[0], f64([[-1 / 8, 1 / 8]]), **EXACT)


def test_no_tensor_of_tokens_times_vocabulary_ever_exists():
    (hidden, weight, _), ids = output_layer(0, N=8, T=25, D=2, V=301)

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                Largest.size = max(Largest.size, x.numel() if isinstance(x, torch.Tensor) else 0)
            return out

    with Largest():
        sliced_logprobs(hidden, weight, ids, slice_tokens=10).sum().backward()
    assert Largest.size == 10 * 301  # of 200 * 301


def test_a_frozen_output_layer_gets_no_gradient_and_costs_none():
    (hidden, weight, _), ids = output_layer(0)
    frozen = weight.detach()
    (gradient,) = torch.autograd.grad(sliced_logprobs(hidden, frozen, ids).sum(), hidden)
    (expected,) = torch.autograd.grad(sliced_logprobs(hidden, weight, ids).sum(), hidden)
    assert torch.equal(gradient, expected)


def test_l6_the_softmax_is_float32_whatever_the_logits_are():
    logits = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.arange(4)
    exact = torch.log_softmax(logits.double(), dim=-1)[ids, ids]
    assert token_logprobs(logits, ids).dtype == torch.float32
    assert_close(token_logprobs(logits, ids).double(), exact, rtol=1e-5, atol=0)


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    (hidden, weight, _), ids = output_layer(0, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs = sliced_logprobs(hidden, weight, ids, slice_tokens=4)
    assert logprobs.dtype == torch.float32
    ours, theirs = (
        gradients(logprobs, [hidden, weight]),
        gradients(sliced_logprobs(hidden, weight, ids), [hidden, weight]),
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32 and not torch.equal(a, b)
        assert_close(a, b, rtol=0, atol=0.05)  # bfloat16 keeps 8 bits
