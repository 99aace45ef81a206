"""bfloat16 weights for matrix products, so that autocast has none to cast: what it would compute, to the bit.

Under --dtype bfloat16 trained weights stay in float32, and a product reads them rounded. To decode a token is to read
all weights once, so sampling has a rounded copy of them, refreshed before each rollout. Embeddings, norms and the sum
of layers stay in float32, as under autocast.
"""

import copy
from collections.abc import Iterator

import torch
from transformers.pytorch_utils import Conv1D

PRODUCTS = (torch.nn.Linear, Conv1D, torch.nn.Conv2d, torch.nn.Conv3d)


def half_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A model that shares all parameters and buffers but those of matrix products, which are bfloat16 copies."""
    shared = {id(x): x for x in [*model.parameters(), *model.buffers()]}
    return halve(copy.deepcopy(model, shared))


def halve(model: torch.nn.Module, frozen_only: bool = False) -> torch.nn.Module:
    """Rounds the weights of matrix products, and freezes them. frozen_only: those that are frozen already, but for the
    output layer, which may be tied to the embeddings."""
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
