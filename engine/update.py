"""From rewards to an optimizer step: Algorithm 1, lines 2 and 3.

    weigh       rewards to weights of tokens, Eq. 5 to 8; shared out over the ranks in engine/balance.py
    backward    their gradient, in micro-batches
    take_step   the optimizer's

GPG needs no more. `in_halves` measures the gradient's noise on the way; `look`, `more_updates` and `fit_critic` do what
some of the methods in engine/methods.py need beside it.

Letters: P prompts a step over all ranks, G samples of each, S groups of all rounds, T completion tokens, N rows at
once, M completion tokens of them.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from engine import methods
from engine.balance import Share
from engine.parallel import accumulating, autocast, micro_batches_here, plain, whole
from engine.policy import micro_batches, sample_rows
from gpg import global_sum, token_scale, token_weights
from rollout import Rollout


def weigh(batch, args) -> torch.Tensor:
    """The weights (S, G, T) of Eq. 5 to 8. The step counts as P groups, or as the valid ones where they are more.

    With another baseline than the group's mean, or a penalty in the reward, the advantages are those of engine/methods.py,
    by the same counts.
    """
    options = {"norm": args.norm, "max_len": args.max_new_tokens}
    options["num_groups"] = max(args.prompts_per_step, batch.num_valid)
    if batch.advantages is None:
        return token_weights(batch.rewards, batch.loss_mask, f_norm=args.f_norm, age=args.age, **options)
    scale = token_scale(batch.rewards, batch.loss_mask, age=False, **options)  # (S, G)
    return batch.advantages * scale.to(batch.rewards.dtype)[:, :, None] * batch.loss_mask


def backward(
    policy: torch.nn.Module, share: Share, args, halves: bool = False, first: bool = True
) -> tuple[float, float, float, dict]:
    """The gradient of -(weights * logprobs).sum() over all ranks -> its norm before clipping; this rank's part of that
    sum; its greatest difference between a log-probability here and the one it was sampled with; and what `in_halves`
    found, if `halves` asks for it.

    Only samples with a weight meet the model. A rank that has none when others do takes part with one of weight 0.
    A second update on the same samples, not `first`, clips their ratios; a reference adds its term (engine/methods.py).
    """
    noise = {"grad_cosine": None} if halves else {}
    if share.count == 0:
        return 0.0, 0.0, 0.0, noise
    weights, sampled, beside = share.weights, share.rollout.logprobs, share.beside  # (S, G, T)
    clips = bool(args.clip) and not first  # in the first update every ratio is 1
    is_linear = not clips and "reference" not in beside  # so that the gradient is known before the forward
    loss, gap = weights.new_zeros(()), weights.new_zeros(())
    for samples, rows, context in in_halves(policy, share, args, noise) if halves else micro_steps(policy, share, args):
        w = tokens_of(weights, samples, rows)  # (M,)
        with context:
            with autocast(args, weights.device):
                logprobs = policy(*samples, grad=-w if is_linear else None)  # (M,)
            if clips:
                old = tokens_of(beside["old"], samples, rows)  # (M,)
                part = -methods.clipped_objective(logprobs, old, w, args.clip).sum()
            else:
                part = -(w * logprobs).sum()
            if "reference" in beside:
                kl = methods.kl_estimate(logprobs, tokens_of(beside["reference"], samples, rows), args.kl)  # (M,)
                part = part + args.kl_coef * (tokens_of(beside["scale"], samples, rows) * kl).sum()
            part.backward()
        loss += part.detach()
        if rows is None:
            continue
        gap = torch.maximum(gap, (logprobs.detach() - tokens_of(sampled, samples, rows)).abs().max())
        if first and args.updates > 1 and args.clip:
            keep_tokens(beside, "old", logprobs.detach(), samples, rows, like=sampled)
        elif clips:
            clipped = methods.is_clipped(logprobs.detach(), old, w, args.clip)  # (M,)
            keep_tokens(beside, "clipped", clipped.to(sampled), samples, rows, like=sampled)
    grad_norm = whole(torch.nn.utils.clip_grad_norm_(policy.parameters(), args.grad_clip or math.inf))
    return *torch.stack([grad_norm.to(weights), loss, gap]).tolist(), noise


def in_halves(policy: torch.nn.Module, share: Share, args, noise: dict) -> Iterator[tuple]:
    """micro_steps of one half of the groups, then of the other. The gradient is their sum; noise["grad_cosine"] is the
    cosine between them, None where there is one group, or a half without gradient.

    What groups have in common is signal, what they have not is noise: with a cosine c, the signal is about c of the
    squared norm of half's gradient, and 2c / (1 + c) of the whole one's. Nothing is forwarded twice.
    """
    first, second = split_groups(share)
    if first is None:
        yield from micro_steps(policy, share, args)
        return
    yield from micro_steps(policy, share._replace(samples=first), args)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    grads = [parameter.grad for parameter in trained]  # summed over ranks, as after each half
    kept = [grad.clone() for grad in grads]
    for grad in grads:
        grad.zero_()
    yield from micro_steps(policy, share._replace(samples=second), args)
    grads = [parameter.grad for parameter in trained]
    ab, aa, bb = (dot(x, y) for x, y in ((kept, grads), (kept, kept), (grads, grads)))
    noise["grad_cosine"] = ab / math.sqrt(aa * bb) if aa * bb > 0 else None
    for grad, other in zip(grads, kept, strict=True):
        grad += other


def split_groups(share: Share) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """This rank's samples of two halves of the groups of all ranks, (n,) each, by turns in the order of their tokens:
    so that a half does not depend on the number of ranks, nor on rewards. None for fewer than two groups."""
    r, (S, G) = share.rollout, share.rollout.truncated.shape
    if S < 2:
        return None, None

    def tokens(s: int) -> list[list[int]]:
        pairs = ((r.prompt_ids, r.prompt_mask), (r.completion_ids, r.completion_mask))
        return [ids[s][mask[s].bool()].tolist() for ids, mask in pairs]

    order = sorted(range(S), key=tokens)
    is_second = torch.zeros(S, dtype=torch.bool, device=share.samples.device)
    is_second[order[1::2]] = True
    of = is_second[share.samples // G]  # (n,)
    return share.samples[~of], share.samples[of]


def dot(xs: list[torch.Tensor], ys: list[torch.Tensor]) -> float:
    """The inner product of two gradients, each a tensor a parameter; a collective where they are shards."""
    return float(whole(sum((x * y).sum(dtype=torch.float64) for x, y in zip(xs, ys, strict=True))))


def micro_steps(module: torch.nn.Module, share: Share, args) -> Iterator[tuple]:
    """The micro-batches of this rank's share: samples as Policy.forward takes them, which they are, (N,) in the
    flattened (S, G), and the context of their forward and backward. None for a sample that only takes part."""
    pieces = micro_batches(share.rollout, share.samples, args.tokens_per_micro_batch, shared=plain(module).shared)
    count = micro_batches_here(module, len(pieces), share.weights.device)
    one = torch.ones((1, 1), dtype=torch.long, device=share.weights.device)
    for i in range(count):
        rows = pieces[i] if i < len(pieces) else None
        samples = (one, one, one, one, one[0] - 1) if rows is None else sample_rows(share.rollout, rows)
        yield samples, rows, accumulating(module, last=i == count - 1)


def tokens_of(x: torch.Tensor, samples: tuple[torch.Tensor, ...], rows: torch.Tensor | None) -> torch.Tensor:
    """What x (S, G, T) holds for the M completion tokens of a micro-batch, (M,); 0 for one that only takes part."""
    if rows is None:
        return x.new_zeros(1)
    mask = samples[3].bool()  # (N, T)
    return x.flatten(0, 1)[rows, : mask.shape[1]][mask]


def keep_tokens(beside: dict[str, torch.Tensor], name: str, tokens: torch.Tensor, samples, rows, like) -> None:
    """Puts tokens (M,) where tokens_of finds them again: into beside[name], of the shape of `like`."""
    mask = samples[3].bool()  # (N, T)
    piece = torch.zeros(mask.shape, dtype=tokens.dtype, device=tokens.device)  # (N, T)
    piece[mask] = tokens
    beside.setdefault(name, torch.zeros_like(like)).flatten(0, 1)[rows, : mask.shape[1]] = piece


def take_step(optimizer, batch, grad_norm: float, loss: float, args, state) -> None:
    """One optimizer step; none where no group was valid or a number is not finite: AdamW moves weights even at 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(args, state.step) * group.get("factor", 1.0)
    if (batch.num_valid or batch.advantages is not None or batch.beside) and math.isfinite(grad_norm + loss):
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


# ---------------------------------------------------------------------------------- what only compared methods need


def look(batch, reference, critic, args):
    """The batch, and beside it what a reference and a critic say of each of its tokens, and what follows from it.

    Nothing for GPG. A penalty in the reward is on a sample, -kl_coef * (its sum over tokens); with a critic on a token.
    """
    if reference is None and critic is None and args.baseline == "group" and args.algo != "sft":
        return batch
    r, mask, sums, beside = batch.rollout, batch.loss_mask, {}, {}
    rewards, advantages = batch.rewards, None  # (S, G)
    penalty = torch.zeros_like(r.logprobs)  # (S, G, T)
    if reference is not None:
        log_reference = per_token(reference, r, args)  # (S, G, T)
        sums["kl"] = float((methods.kl_estimate(r.logprobs, log_reference, "k3") * mask).sum())
        if args.kl_in == "loss":
            beside["reference"] = log_reference
        else:
            penalty = args.kl_coef * methods.kl_estimate(r.logprobs, log_reference, args.kl) * mask
    if critic is not None:
        values = per_token(plain(critic), r, args).to(rewards.dtype)  # (S, G, T)
        is_last = mask.bool() & (mask.cumsum(dim=2) == mask.sum(dim=2, keepdim=True))  # (S, G, T)
        of_tokens = rewards[:, :, None] * is_last - penalty  # (S, G, T)
        advantages, beside["returns"] = methods.gae(of_tokens, values, mask, args.gae_lambda)
        if args.f_norm == "batch":
            advantages = methods.whiten(advantages, mask)
        sums["value_error"] = float((((values - beside["returns"]) ** 2) * mask).sum())
    elif args.algo == "sft":
        advantages = torch.ones_like(mask, dtype=rewards.dtype)
    elif args.baseline != "group" or (reference is not None and args.kl_in == "reward"):
        penalised = rewards - penalty.sum(dim=2).to(rewards.dtype)
        advantages = methods.advantages(penalised, args.baseline, args.f_norm, batch.greedy)[:, :, None]
    if beside:
        norm = "token" if args.norm == "valid_token" else args.norm
        scale = token_scale(rewards, mask, age=False, norm=norm, max_len=args.max_new_tokens)
        beside["scale"] = scale[:, :, None] * mask  # (S, G, T): a mean over all tokens, whatever their reward
    return replace(batch, advantages=advantages, beside=beside, sums=batch.sums | sums)


@torch.no_grad()
def per_token(module: torch.nn.Module, r: Rollout, args) -> torch.Tensor:
    """What a module says of every completion token of this rank's samples, (S, G, T); 0 elsewhere."""
    out = {}
    for rows in micro_batches(
        r,
        torch.arange(r.truncated.numel(), device=r.truncated.device),
        args.tokens_per_micro_batch,
        shared=module.shared,
    ):
        samples = sample_rows(r, rows)
        with autocast(args, r.logprobs.device):
            tokens = module(*samples)  # (M,)
        keep_tokens(out, "tokens", tokens, samples, rows, like=r.logprobs)
    return out.get("tokens", torch.zeros_like(r.logprobs))


def more_updates(policy, critic, optimizer, share: Share, batch, args, state) -> dict[str, float]:
    """The updates after the first one on the same samples -> the share of tokens whose gradient the clip took, last."""
    for _ in range(args.updates - 1):
        grad_norm, loss, *_ = backward(policy, share, args, first=False)
        fit_critic(critic, share, args)
        (loss,) = global_sum(torch.tensor([loss], dtype=torch.float64, device=share.weights.device)).tolist()
        take_step(optimizer, batch, grad_norm, loss, args, state)
    if args.updates == 1 or not args.clip:
        return {}
    mine = share.rollout.completion_mask.flatten(0, 1)[share.samples]  # (n, T)
    clipped = share.beside["clipped"].sum() if "clipped" in share.beside else share.weights.new_zeros(())
    clipped, tokens = global_sum(torch.stack([clipped.double(), mine.sum().double()])).tolist()
    return {"clipped_share": clipped / tokens if tokens else 0.0}


def fit_critic(critic: torch.nn.Module | None, share: Share, args) -> None:
    """The gradient of the squared error of the values, (V - return)^2 / 2 a token (Eq. 21), with a clip of its own."""
    if critic is None or share.count == 0:
        return
    for samples, rows, context in micro_steps(critic, share, args):
        with context:
            with autocast(args, share.weights.device):
                values = critic(*samples)  # (M,)
            error = values - tokens_of(share.beside["returns"], samples, rows)
            (tokens_of(share.beside["scale"], samples, rows) * error**2 / 2).sum().backward()
    torch.nn.utils.clip_grad_norm_(critic.parameters(), args.grad_clip or math.inf)
