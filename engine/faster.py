"""Parts of a model replaced by faster ones that compute the same: bfloat16 weights to sample from, fused norms.

Under --dtype bfloat16 trained weights stay in float32, and matrix products read them rounded, by autocast. To decode a
token is to read all weights once, so sampling has a rounded copy, refreshed before each rollout: the same to the bit.
There, products of one input are made at once. On a GPU an RMS norm is one kernel, where a model's own is six or more.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.functional import linear, rms_norm
from transformers.pytorch_utils import Conv1D

PRODUCTS = (torch.nn.Linear, Conv1D, torch.nn.Conv2d, torch.nn.Conv3d)
ONE_INPUT = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")  # of most models: one kernel in place of several


def half_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A model that shares all parameters and buffers but those of matrix products, which are bfloat16 copies.

    Products of one input are joined; not where a weight was bfloat16 before, as under adapters: the model reads it too.
    """
    shared = {id(x): x for x in [*model.parameters(), *model.buffers()]}
    half, kept, joined = halve(copy.deepcopy(model, shared)), {p.data_ptr() for p in model.parameters()}, []
    for module in half.modules():
        for names in ONE_INPUT:
            parts = [getattr(module, name, None) for name in names]
            apart = all(type(x) is torch.nn.Linear and x.weight.data_ptr() not in kept for x in parts)
            if apart and len({(x.in_features, x.bias is None) for x in parts}) == 1:
                joined.append((parts, _join(parts)))
    with torch.no_grad(), torch.autocast(half.device.type, torch.bfloat16):
        half(input_ids=torch.zeros((1, 2), dtype=torch.long, device=half.device))
    for parts, made in joined:
        for module in parts if made else ():  # some are not used, as where layers share keys and values
            del module.forward
    return half


def halve(model: torch.nn.Module, frozen_only: bool = False) -> torch.nn.Module:
    """Rounds and freezes the weights of matrix products. frozen_only: those that are frozen already, without the output
    layer's, which may be tied to the embeddings."""
    for module, name, parameter in list(_products(model)):
        if not frozen_only or not (parameter.requires_grad or module is model.get_output_embeddings()):
            setattr(module, name, torch.nn.Parameter(parameter.detach().bfloat16(), requires_grad=False))
    return model


def _join(modules: list[torch.nn.Linear]) -> list:
    """Products of one input become one, made when the first is called and forgotten with the last. -> what is made."""
    sizes, made = [len(module.weight) for module in modules], []  # the input, and each one's part
    bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
    weight = torch.cat([module.weight for module in modules])

    def part(i: int, x: torch.Tensor) -> torch.Tensor:
        if i == 0:
            made[:] = x, linear(x, weight, bias).split(sizes, dim=-1)
        if not made or made[0] is not x:
            return linear(x, modules[i].weight, modules[i].bias)
        mine = made[1][i]
        if i == len(modules) - 1:
            made.clear()
        return mine

    for i, module in enumerate(modules):
        module.forward = partial(part, i)
        module.weight = torch.nn.Parameter(weight.split(sizes)[i], requires_grad=False)
        if bias is not None:
            module.bias = torch.nn.Parameter(bias.split(sizes)[i], requires_grad=False)
    return made


@torch.no_grad()
def refresh(half: torch.nn.Module, model: torch.nn.Module) -> None:
    """The copy again has the model's weights, at the same addresses."""
    for (_, _, mine), (_, _, theirs) in zip(_products(half), _products(model), strict=True):
        if mine is not theirs:
            mine.copy_(theirs)


def _products(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Parameter]]:
    for module in model.modules():
        if isinstance(module, PRODUCTS):
            for name, parameter in module.named_parameters(recurse=False):
                yield module, name, parameter


def fuse_norms(model: torch.nn.Module) -> None:
    """Replaces the forward of every RMS norm that a trial shows to be torch's own."""
    for module in filter(_is_rms_norm, model.modules()):
        module.forward = partial(_norm, module)


def _norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return rms_norm(x, module.weight.shape, module.weight, epsilon).to(x.dtype)


@torch.no_grad()
def _is_rms_norm(module: torch.nn.Module) -> bool:
    """Whether it normalises and multiplies by its weight, and does nothing else: not by 1 + weight, as Gemma's."""
    if not type(module).__name__.endswith("RMSNorm") or getattr(module, "weight", None) is None:
        return False
    n, options = module.weight.numel(), {"dtype": module.weight.dtype, "device": module.weight.device}
    x = torch.linspace(-2, 3, 2 * n, **options).view(2, n)
    return torch.allclose(module(x), _norm(module, x), rtol=1e-5, atol=1e-6)
