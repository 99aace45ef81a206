"""--noise-every: how much of a gradient is noise, at the cost of one copy of it and no forward pass."""

import math
from collections.abc import Callable

import torch
from torch.nn import Module

from engine.balance import Share
from engine.optimizer import Gradient, clip_gradient, fill_missing_gradients
from engine.parallel import full_tensors


def in_halves(backward: Callable, module: Module, share: Share, budget: int, grad_clip: float) -> Gradient:
    """The gradient as `backward` makes it, in two halves of the groups, and noise["grad_cosine"], their cosine or None.

    What groups have in common is signal, the rest is noise: with a cosine c, signal is about c of the squared norm of a
    half's gradient, and 2c / (1 + c) of the sum's.
    """
    first, second = (share._replace(samples=samples) for samples in split_groups(share))
    one = backward(module, first, budget=budget, grad_clip=0.0)
    trained = [p for p in module.parameters() if p.requires_grad]
    fill_missing_gradients(trained)
    firsts = [p.grad.clone() for p in trained]  # summed over ranks, as after each half
    module.zero_grad(set_to_none=False)
    two = backward(module, second, budget=budget, grad_clip=0.0)
    grads = [p.grad for p in trained]
    ab, aa, bb = (dot(x, y) for x, y in ((firsts, grads), (firsts, firsts), (grads, grads)))
    for grad, other in zip(grads, firsts, strict=True):
        grad += other
    noise = {"grad_cosine": ab / math.sqrt(aa * bb) if aa * bb > 0 else None}
    norm = float(clip_gradient(module, grad_clip))
    return Gradient(norm, one.loss + two.loss, max(one.gap, two.gap), noise)


def split_groups(share: Share) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's samples of two halves of all ranks' groups, (n,) each; one group has an empty second half.

    Groups alternate in the order of their tokens, so a half depends neither on the number of ranks nor on rewards.
    """
    r, (S, G) = share.rollout, share.rollout.truncated.shape

    def tokens(s: int) -> list:
        pairs = ((r.prompt_ids, r.prompt_mask), (r.completion_ids, r.completion_mask))
        # problems with different pictures may have the same ids
        return [*(ids[s][mask[s].bool()].tolist() for ids, mask in pairs), r.images[s].encoded if r.images else ()]

    order = sorted(range(S), key=tokens)
    is_second = torch.zeros(S, dtype=torch.bool, device=share.samples.device)
    is_second[order[1::2]] = True
    in_second = is_second[share.samples // G]  # (n,)
    return share.samples[~in_second], share.samples[in_second]


def dot(xs: list[torch.Tensor], ys: list[torch.Tensor]) -> float:
    """The inner product of two gradients, one tensor per parameter; a collective where they are shards."""
    return float(full_tensors(sum((x * y).sum(dtype=torch.float64) for x, y in zip(xs, ys, strict=True))))
