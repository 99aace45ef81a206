"""The optimizer: its parameter groups, the learning rate, the clip of the gradient, a step."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from engine.parallel import full_tensors


class Gradient(NamedTuple):
    """What a backward pass left in the parameters' .grad, in numbers."""

    norm: float  # over all ranks, before the clip
    loss: float  # this rank's part
    gap: float  # this rank's greatest difference between a token's log-probability here and in sampling
    noise: dict[str, float | None] = {}  # {"grad_cosine": ...} if it was measured, see run/noise.py

    def is_finite(self) -> bool:
        return math.isfinite(self.norm + self.loss)


def make_optimizer(
    model, critic=None, *, kind: str, lr: float, weight_decay: float, critic_lr_factor: float = 1.0, fused: bool = False
) -> torch.optim.Optimizer:
    """kind "adamw", or "sgd" without momentum. Weight decay on matrices, none on norms and biases.

    A critic, a module like the model, learns at critic_lr_factor * lr. Frozen parameters have no gradient, and an
    optimizer leaves them alone. fused: one kernel without temporaries, on a GPU.
    """
    groups = []
    for module, factor in [(model, 1.0), (critic, critic_lr_factor)][: 2 if critic else 1]:
        for is_matrix in (True, False):
            params = [p for p in module.parameters() if (p.dim() >= 2) == is_matrix]
            groups.append({"params": params, "weight_decay": weight_decay * is_matrix, "factor": factor})
    return {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind](groups, lr=lr, **{"fused": True} if fused else {})


def learning_rate(step: int, *, lr: float, steps: int, schedule: str, warmup: int, lr_floor: float) -> float:
    """Of step 0, 1, ...: linear over the warm-up, then constant or a cosine down to lr * lr_floor at the last step."""
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return lr * (lr_floor + (1 - lr_floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def clip_gradient(module: torch.nn.Module, grad_clip: float) -> torch.Tensor:
    """Scales the gradient down to a norm of grad_clip (0: never) -> its norm before that, over all ranks."""
    return full_tensors(torch.nn.utils.clip_grad_norm_(module.parameters(), grad_clip or math.inf))


def fill_missing_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """0 where fsdp leaves no gradient, as for a tower without a picture in a step; ddp leaves 0."""
    for p in parameters:
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)


def take_step(optimizer: torch.optim.Optimizer, lr: float, learn: bool) -> None:
    """One step, and the gradient is gone. If not learn, no step: AdamW moves weights even for a gradient of 0."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)
    if learn:
        fill_missing_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()
    optimizer.zero_grad()
