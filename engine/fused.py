"""Norms as one kernel on a GPU, where a model's own are six or more, each reading and writing all of its input."""

from functools import partial

import torch
from torch.nn.functional import rms_norm


def fuse_norms(model: torch.nn.Module) -> int:
    """Replaces the forward of every RMS norm that a trial shows to be torch's own -> how many."""
    found = [module for module in model.modules() if _is_rms_norm(module)]
    for module in found:
        module.forward = partial(_forward, module)
    return len(found)


def _forward(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, module.weight.shape, module.weight, _epsilon(module)).to(x.dtype)


def _epsilon(module: torch.nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


@torch.no_grad()
def _is_rms_norm(module: torch.nn.Module) -> bool:
    """Whether it normalises and multiplies by its weight, and does nothing else: not by 1 + weight, as Gemma's."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or _epsilon(module) is None:
        return False
    x = torch.linspace(-2, 3, 2 * weight.numel(), dtype=weight.dtype, device=weight.device).view(2, -1)
    return torch.allclose(module(x), _forward(module, x), rtol=1e-5, atol=1e-6)
