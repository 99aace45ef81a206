"""Who trains on what: the valid groups of all ranks, redistributed so that no rank waits for another.

How many groups of a rank are valid, and how long, is chance. Token ids and weights are small compared with the update's
work: every rank gets all of them and takes a share of about equally many tokens. The gradient is a sum over samples
whose weights are already global, so any rank may compute any part of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from rollout import Rollout, cat, join, pick

SLACK = 1.1  # a group is split, and its prompt forwarded twice, if a rank has more than this times the mean


class Share(NamedTuple):
    """What this rank trains on: `samples`, places in the flattened (S, G) of the valid groups of all ranks."""

    rollout: Rollout  # of S groups
    weights: torch.Tensor  # (S, G, T)
    extras: dict[str, torch.Tensor]  # (S, G, T) each: what a compared method needs per token, see methods.prepare
    samples: torch.Tensor  # (n,)
    count: int  # samples of all ranks
    tokens: int  # completion tokens of all ranks
    before: float  # the fullest rank's tokens over the mean, as sampled
    after: float  # the same, as shared out


def share_out(r: Rollout, weights: torch.Tensor, extras: dict[str, torch.Tensor] | None = None) -> Share:
    """This rank's groups and weights (P, G, T) -> its share of all ranks' samples that have a weight. A collective.

    extras: more tensors (P, G, T) that travel along; "scale" among them is a weight too.
    """
    device, tensors = weights.device, {"weights": weights} | (extras or {})
    weighted = weights.any(dim=2) | tensors.get("scale", weights).any(dim=2)  # (P, G)
    valid = weighted.any(dim=1).nonzero().squeeze(1)
    mine = pick(r, valid, "cpu")
    mine = mine, weighted[valid].cpu(), {name: x[valid].cpu() for name, x in tensors.items()}
    parts = [mine] * dist.get_world_size()
    if len(parts) > 1:  # or it would be pickled, a copy and a second of a large step, for nobody
        dist.all_gather_object(parts, mine)
    joined = join([part for part, _, _ in parts])
    tensors = {name: cat([x[name] for _, _, x in parts]).to(device) for name in tensors}  # (S, G, T) each

    all_weighted = torch.cat([w for _, w, _ in parts])  # (S, G)
    G, prompts = all_weighted.shape[1], prompt_costs(joined)
    lengths = joined.completion_mask.sum(dim=2).flatten().tolist()
    groups = [[s * G + g for g in row.nonzero().squeeze(1).tolist()] for s, row in enumerate(all_weighted)]

    def tokens(samples: list[int]) -> int:
        return prompts[samples[0] // G] + sum(lengths[i] for i in samples)

    each = iter(groups)
    sampled = [[next(each) for _ in part.truncated] for part, *_ in parts]  # as each rank sampled them
    shares = even_shares(groups, tokens, len(parts))
    samples = [i for part in shares[dist.get_rank()] for i in part]
    return Share(
        pick(joined, torch.arange(len(joined.truncated)), device),
        weights=tensors.pop("weights"),
        extras=tensors,
        samples=torch.tensor(samples, dtype=torch.long, device=device),
        count=sum(map(len, groups)),
        tokens=sum(lengths[i] for group in groups for i in group),
        before=imbalance(sampled, tokens),
        after=imbalance(shares, tokens),
    )


def prompt_costs(r: Rollout) -> list[int]:
    """What each prompt costs a forward, in tokens: its own, and the patches of its pictures."""
    patches = [pictures.patches for pictures in r.images] or [0] * len(r.truncated)
    return [tokens + n for tokens, n in zip(r.prompt_mask.sum(dim=1).tolist(), patches, strict=True)]


def even_shares(groups: list[list[int]], tokens: Callable, ranks: int) -> list[list[list[int]]]:
    """Groups of samples -> for each rank its groups, or parts of them, of about equally many tokens.

    The largest part goes to the emptiest rank. While a rank is above SLACK times the mean, its largest part is halved.
    """
    parts = [group for group in groups if group]
    while True:
        shares, loads = [[] for _ in range(ranks)], [0] * ranks
        for part in sorted(parts, key=lambda part: (-tokens(part), part)):
            least = loads.index(min(loads))
            shares[least].append(part)
            loads[least] += tokens(part)
        splittable = [part for part in shares[loads.index(max(loads))] if len(part) > 1]
        if max(loads) * ranks <= SLACK * sum(loads) or not splittable:
            return shares
        largest = max(splittable, key=tokens)
        parts.remove(largest)
        parts += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]


def imbalance(shares: list[list[list[int]]], tokens: Callable) -> float:
    """The fullest rank's tokens over the mean of all ranks; 1: all have equally much to do."""
    loads = [sum(map(tokens, share)) for share in shares]
    return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0
