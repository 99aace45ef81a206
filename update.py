"""From rewards to one optimizer step: Algorithm 1, lines 2 and 3.

Letters: P prompts a step over all ranks, G samples of each, S groups of all rounds, T completion tokens, N rows at
once, M completion tokens of them.
"""

import math

import torch

from balance import Share
from gpg import token_weights
from parallel import accumulating, autocast, micro_batches_here, plain, whole
from policy import micro_batches, sample_rows


def weigh(batch, args) -> torch.Tensor:
    """The weights (S, G, T) of Eq. 5 to 8. The step counts as P groups, or as the valid ones where they are more."""
    return token_weights(
        batch.rewards,
        batch.loss_mask,
        f_norm=args.f_norm,
        age=args.age,
        norm=args.norm,
        max_len=args.max_new_tokens,
        num_groups=max(args.prompts_per_step, batch.num_valid),
    )


def backward(policy: torch.nn.Module, share: Share, args) -> tuple[float, float, float]:
    """The gradient of -(weights * logprobs).sum() over all ranks -> its norm before clipping; and this rank's part of
    that sum, and its greatest difference between a log-probability here and the one it was sampled with.

    Only samples with a weight meet the model. A rank that has none when others do takes part with one of weight 0.
    """
    if len(share.weights) == 0:
        return 0.0, 0.0, 0.0
    weights, sampled = share.weights.flatten(0, 1), share.rollout.logprobs.flatten(0, 1)  # (S * G, T)
    pieces = micro_batches(share.rollout, share.samples, args.tokens_per_micro_batch, shared=plain(policy).shared)
    count = micro_batches_here(policy, len(pieces), weights.device)
    one = torch.ones((1, 1), dtype=torch.long, device=weights.device)
    loss, gap = weights.new_zeros(()), weights.new_zeros(())
    for i in range(count):
        if i >= len(pieces):
            samples, w, before = (one, one, one, one, one[0] - 1), weights.new_zeros(1), None
        else:
            samples = sample_rows(share.rollout, pieces[i])
            mask = samples[3].bool()  # (N, T)
            w, before = (x[pieces[i], : mask.shape[1]][mask] for x in (weights, sampled))  # (M,)
        with accumulating(policy, last=i == count - 1):
            with autocast(args, weights.device):
                logprobs = policy(*samples, grad=-w)  # (M,)
            part = -(w * logprobs).sum()
            part.backward()
        loss += part.detach()
        if before is not None:
            gap = torch.maximum(gap, (logprobs.detach() - before).abs().max())
    grad_norm = whole(torch.nn.utils.clip_grad_norm_(policy.parameters(), args.grad_clip or math.inf))
    return tuple(torch.stack([grad_norm.to(weights), loss, gap]).tolist())


def take_step(optimizer, batch, grad_norm: float, loss: float, args, state) -> None:
    """One optimizer step; none where no group was valid or a number is not finite: AdamW moves weights even at 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(args, state.step)
    if batch.num_valid and math.isfinite(grad_norm + loss):
        optimizer.step()
    optimizer.zero_grad()


def learning_rate(args, step: int) -> float:
    """Of step 0, 1, ...: linear over the warm-up, then constant or a cosine down to lr * lr_floor at the last step."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    if args.schedule == "constant":
        return args.lr
    progress = (step - args.warmup) / max(1, args.steps - 1 - args.warmup)
    return args.lr * (args.lr_floor + (1 - args.lr_floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)
