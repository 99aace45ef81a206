"""Parts of a model replaced by faster ones that compute the same: bfloat16 weights to sample from, fused norms.

Under --dtype bfloat16 trained weights stay in float32, and matrix products read them rounded, by autocast. To decode a
token is to read all weights once, so sampling has a rounded copy, refreshed before each rollout: the same to the bit.
An RMS norm is one kernel on a GPU, where a model's own is six or more.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.functional import rms_norm
from transformers.pytorch_utils import Conv1D

PRODUCTS = (torch.nn.Linear, Conv1D, torch.nn.Conv2d, torch.nn.Conv3d)


def half_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A model that shares all parameters and buffers but those of matrix products, which are bfloat16 copies."""
    shared = {id(x): x for x in [*model.parameters(), *model.buffers()]}
    return halve(copy.deepcopy(model, shared))


def halve(model: torch.nn.Module, frozen_only: bool = False) -> torch.nn.Module:
    """Rounds and freezes the weights of matrix products. frozen_only: those that are frozen already, without the output
    layer's, which may be tied to the embeddings."""
    for module, name, parameter in list(_products(model)):
        if not frozen_only or not (parameter.requires_grad or module is model.get_output_embeddings()):
            setattr(module, name, torch.nn.Parameter(parameter.detach().bfloat16(), requires_grad=False))
    return model


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
