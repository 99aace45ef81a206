"""Who trains on what: the valid groups of all ranks, shared out again so that none waits for the unluckiest.

Each rank samples as many prompts as the others, but groups are valid by chance, and long by chance. Their token ids and
weights are small beside what the update does with them: every rank gets all, and takes a share of about as many tokens.
The gradient is a sum over samples with weights that are global already, so it does not matter where one is computed.
"""

from dataclasses import fields
from typing import NamedTuple

import torch
import torch.distributed as dist

from rollout import Rollout, join

SLACK = 1.1  # groups are taken apart, and their prompt forwarded twice, where a rank has more than this over the mean


class Share(NamedTuple):
    """What this rank trains on: `samples`, places in the flattened (S, G) of the valid groups of all ranks."""

    rollout: Rollout  # of S groups
    weights: torch.Tensor  # (S, G, T)
    beside: dict[str, torch.Tensor]  # what else a method in engine/methods.py wants to know of each token, (S, G, T)
    samples: torch.Tensor  # (n,)
    count: int  # samples of all ranks
    tokens: int  # of their completions
    before: float  # the longest rank's tokens over the mean, as sampled
    after: float  # as shared out


def share_out(r: Rollout, weights: torch.Tensor, beside: dict[str, torch.Tensor] | None = None) -> Share:
    """This rank's groups and weights (P, G, T) -> its share of those of all ranks that have a weight. A collective.

    beside: more of each token, (P, G, T), that goes along; "scale" among it is a weight too.
    """
    device, told = weights.device, {"weights": weights} | (beside or {})
    weighted = weights.any(dim=2) | told.get("scale", weights).any(dim=2)  # (P, G)
    valid = weighted.any(dim=1).nonzero().squeeze(1)
    mine = Rollout(**{field.name: getattr(r, field.name)[valid].cpu() for field in fields(r)})
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (mine, weighted[valid].cpu(), {name: x[valid].cpu() for name, x in told.items()}))
    whole = join([part for part, _, _ in parts])
    T = whole.completion_ids.shape[2]
    told = {
        name: torch.cat([torch.nn.functional.pad(x[name], (0, T - x[name].shape[2])) for _, _, x in parts]).to(device)
        for name in told
    }  # (S, G, T) each
    all_weighted = torch.cat([w for _, w, _ in parts])  # (S, G)

    prompts, lengths = whole.prompt_mask.sum(dim=1).tolist(), whole.completion_mask.sum(dim=2).tolist()
    G = all_weighted.shape[1]
    groups = [[s * G + g for g in row.nonzero().squeeze(1).tolist()] for s, row in enumerate(all_weighted)]

    def tokens(samples: list[int]) -> int:
        return prompts[samples[0] // G] + sum(lengths[i // G][i % G] for i in samples)

    owners = [rank for rank, (part, *_) in enumerate(parts) for _ in range(len(part.truncated))]
    sampled = [[group for group, owner in zip(groups, owners, strict=True) if owner == k] for k in range(len(parts))]
    shares = even_shares(groups, tokens, len(parts))
    samples = [i for part in shares[dist.get_rank()] for i in part]
    moved = Rollout(**{field.name: getattr(whole, field.name).to(device) for field in fields(whole)})
    chosen = torch.tensor(samples, dtype=torch.long, device=device)
    return Share(
        moved,
        weights=told.pop("weights"),
        beside=told,
        samples=chosen,
        count=sum(map(len, groups)),
        tokens=sum(lengths[i // G][i % G] for group in groups for i in group),
        before=imbalance(sampled, tokens),
        after=imbalance(shares, tokens),
    )


def even_shares(groups: list[list[int]], tokens, ranks: int) -> list[list[list[int]]]:
    """Groups of samples -> for each rank its groups, or parts of them, of about as many tokens.

    The largest goes to the rank with the least so far. While that leaves a rank above SLACK times the mean, the largest
    part of the fullest rank is halved.
    """
    parts = [(tokens(group), group) for group in groups if group]
    while True:
        shares, loads = [[] for _ in range(ranks)], [0] * ranks
        for load, part in sorted(parts, key=lambda item: (-item[0], item[1])):
            least = loads.index(min(loads))
            shares[least].append(part)
            loads[least] += load
        splittable = [part for part in shares[loads.index(max(loads))] if len(part) > 1]
        if max(loads) * ranks <= SLACK * sum(loads) or not splittable:
            return shares
        largest = max(splittable, key=tokens)
        parts.remove((tokens(largest), largest))
        parts += [(tokens(half), half) for half in (largest[: len(largest) // 2], largest[len(largest) // 2 :])]


def imbalance(shares: list[list[list[int]]], tokens) -> float:
    """The longest rank's tokens over the mean; 1: all ranks have as much to do."""
    loads = [sum(map(tokens, share)) for share in shares]
    return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0
