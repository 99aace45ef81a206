"""A rank's samples, cut into micro-batches within a budget of padded tokens: memory, not results.

Letters: S groups of G samples, N samples in a micro-batch, T completion tokens (padded), M without padding.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch.distributed.fsdp import FSDPModule

from engine.balance import Share, prompt_costs
from engine.parallel import accumulating, common_count, unwrapped
from engine.policy import FORWARD_TOKENS, cut_by_length
from rollout import Pictures, Rollout, cat


class MicroBatch(NamedTuple):
    samples: tuple  # N samples, the longest first, as arguments of Policy.forward
    rows: torch.Tensor | None  # (N,): their places in the flattened (S, G); None: one token without weight, see below
    context: AbstractContextManager  # of the forward and the backward


def micro_steps(module: torch.nn.Module, share: Share, budget: int) -> Iterator[MicroBatch]:
    """The micro-batches of this rank's share. budget: padded tokens of a forward.

    All ranks take part in collectives: a rank with no samples, or under fsdp with fewer micro-batches, forwards a token
    of weight 0. Under fsdp one without a picture sees another's, as the vision tower takes part, too.
    """
    plain = unwrapped(module)
    options = {"shared": plain.shared, "forward_tokens": plain.forward_tokens}
    pieces = micro_batches(share.rollout, share.samples, budget, **options)
    count = common_count(module, len(pieces), share.weights.device)
    one = torch.ones((1, 1), dtype=torch.long, device=share.weights.device)
    pictures = [s for s, x in enumerate(share.rollout.images) if x.encoded] if isinstance(module, FSDPModule) else []
    for i in range(count):
        rows = pieces[i] if i < len(pieces) else None
        samples = (one, one, one, one, one[0] - 1, ()) if rows is None else sample_rows(share.rollout, rows)
        if pictures and not any(x.encoded for x in samples[5]):
            samples = with_prompt(samples, share.rollout, pictures[0])
        yield MicroBatch(samples, rows, accumulating(module, last=i == count - 1))


def with_prompt(samples: tuple, r: Rollout, s: int) -> tuple:
    """The samples, and the prompt of group s with its pictures, but without a completion."""
    ids, mask, *completions, images = samples
    images = images or (Pictures(),) * len(ids)
    ids = cat([ids, r.prompt_ids[s : s + 1]], left=True)  # (p + 1, L)
    return ids, cat([mask, r.prompt_mask[s : s + 1]], left=True), *completions, (*images, r.images[s])


def gather_tokens(x: torch.Tensor, micro_batch: MicroBatch) -> torch.Tensor:
    """The values of x (S, G, T) for the completion tokens of a micro-batch, (M,); 0 for a token without weight."""
    if micro_batch.rows is None:
        return x.new_zeros(1)
    mask = micro_batch.samples[3].bool()  # (N, T)
    return x.flatten(0, 1)[micro_batch.rows, : mask.shape[1]][mask]


def scatter_tokens(tokens: torch.Tensor, micro_batch: MicroBatch, out: torch.Tensor) -> None:
    """The inverse of gather_tokens: writes tokens (M,) into out (S, G, T), and 0 into the padding of their rows."""
    mask = micro_batch.samples[3].bool()  # (N, T)
    padded = torch.zeros(mask.shape, dtype=out.dtype, device=out.device)  # (N, T)
    padded[mask] = tokens.to(out.dtype)
    out.flatten(0, 1)[micro_batch.rows, : mask.shape[1]] = padded


@torch.no_grad()
def per_token(module: torch.nn.Module, r: Rollout, budget: int) -> torch.Tensor:
    """The module's value for every completion token of a rollout, (S, G, T), and 0 elsewhere. No collective."""
    out = torch.zeros_like(r.logprobs)
    everything = torch.arange(r.truncated.numel(), device=r.truncated.device)
    options = {"shared": module.shared, "forward_tokens": module.forward_tokens}
    for rows in micro_batches(r, everything, budget, **options):
        samples = sample_rows(r, rows)
        scatter_tokens(module(*samples), MicroBatch(samples, rows, None), out)
    return out


def sample_rows(r: Rollout, samples: torch.Tensor) -> tuple:
    """Samples (N,), in 0..P*G-1, the longest first, as arguments of Policy.forward: without common padding."""
    prompts, prompt_of = torch.unique(samples // r.truncated.shape[1], return_inverse=True)  # (p,), (N,)
    prompt_mask, completion_mask = r.prompt_mask[prompts], r.completion_mask.flatten(0, 1)[samples]
    L, T = int(prompt_mask.sum(dim=1).max()), int(completion_mask.sum(dim=1).max())
    completion_ids = r.completion_ids.flatten(0, 1)[samples]
    images = tuple(r.images[p] for p in prompts.tolist()) if r.images else ()
    ids, completions = r.prompt_ids[prompts][:, -L:], completion_ids[:, :T]
    return ids, prompt_mask[:, -L:], completions, completion_mask[:, :T], prompt_of, images


def micro_batches(
    r: Rollout, samples: torch.Tensor, budget: int, *, shared: bool = True, forward_tokens: int = FORWARD_TOKENS
) -> list[torch.Tensor]:
    """Samples (N,) in pieces whose padded tokens are within the budget; in each the longest sample comes first.

    Groups are taken in the order of their longest completion and stay together where they fit, so that their prompt is
    forwarded once. A sample longer than the budget is a piece of its own.
    """
    prompt_of = (samples // r.truncated.shape[1]).tolist()  # (N,)
    prompt_lengths = prompt_costs(r)  # (S,)
    lengths = r.completion_mask.flatten(0, 1).sum(dim=1)[samples].tolist()  # (N,)

    def fits(rows: list[int]) -> bool:
        prompts = {prompt_of[i] for i in rows} if shared else [prompt_of[i] for i in rows]
        longest = max(prompt_lengths[p] for p in prompts)
        by_length = sorted((lengths[i] for i in rows), reverse=True)
        completions = sum((stop - start) * by_length[start] for start, stop in cut_by_length(by_length, forward_tokens))
        return len(prompts) * longest + completions <= budget

    def halved(rows: list[int]) -> list[list[int]]:
        middle = len(rows) // 2
        return [rows] if len(rows) == 1 or fits(rows) else halved(rows[:middle]) + halved(rows[middle:])

    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        groups.setdefault(prompt_of[i], []).append(i)
    pieces: list[list[int]] = []
    for rows in [part for group in groups.values() for part in halved(group)]:
        if pieces and fits(pieces[-1] + rows):
            pieces[-1] += rows
        else:
            pieces.append(rows)
    return [samples[sorted(rows, key=lengths.__getitem__, reverse=True)] for rows in pieces]
