"""Group Policy Gradient: the method and nothing else. Read it beside the paper (arXiv 2504.02546).

Start from GRPO and delete: the critic, the reference model with its KL term, the probability ratio, the clip. Plain
REINFORCE with the mean of the group as its baseline is left. GPG adds two things: alpha, which makes up for groups that
carry no gradient, and beta_th, which asks for more groups when too few do. In five lines:

    A_i   = (r_i - mean of the group) / F_norm                                                   Eq. 6
    alpha = B / (B - M),  M samples sit in groups whose rewards are all equal                    Eq. 7
    J     = mean over groups of [ sum over the group's tokens of -log pi * A / its tokens ]      Eq. 5
    loss  = alpha * J                                                                            Eq. 8
    collect more prompts until alpha <= 1 / beta_th                                              Algorithm 1, line 1

Letters: P prompts, G completions of each (a group), T completion tokens (padded), B = P * G samples, N rows, D hidden
width, V vocabulary. A group is *valid* when its rewards are not all equal; in any other, every advantage is zero.

What the paper leaves open or its released code does otherwise, what we do, and why:

1. Alpha against a token mean. Eq. 7 counts samples, Eq. 5 divides by tokens. They fit together exactly when tokens
   are averaged inside a group and groups (or samples) are averaged after: then alpha turns the mean over all groups
   into the mean over valid ones. That is Eq. 5 as written, and our default (norm="group"). The released text trainer
   averages over all tokens of its micro-batch, those of invalid groups too; alpha then misses by (mean tokens of
   valid samples) / (mean tokens of all). That is norm="token"; norm="valid_token" is the token mean which Eq. 7 aims
   at, exactly.
2. How M is counted. "All right or wrong" in the text; here as in the code: all total rewards equal, whatever their
   value. It is decided by max == min, not by a standard deviation: eight times 0.1 has a mean that is not 0.1 in
   float32. verl's GPG counts samples of reward zero instead, which is another quantity.
3. Where things are counted. Appendix A shows that one count is needed over all ranks. The released code takes alpha a
   micro-batch and tokens a rank, so its gradient depends on how the batch was cut. Here every normaliser is summed
   over ranks and micro-batches, before the first forward (`global_sum`), so it does not.
4. What beta_th accumulates. "Until the proportion exceeds the threshold", of what? Of one nominal batch: valid groups
   kept, over all rounds, against P (their share of everything sampled would not rise by sampling more). It ends at
   >=, as in the code. The code then cuts the surplus but still counts it; here all valid groups are used, S of them,
   and the step counts as max(P, S) groups, so that alpha = P / S ends at 1. No valid group after the last round: no
   step is made (the released code asserts, or multiplies a zero loss by 1e5).
5. Std of what. F_norm is 1 by default. "group" is the sample standard deviation (n - 1) of the group, without the
   code's epsilon of 1e-4: a group without spread has advantage exactly 0 by rule, not by a small number. "batch" is
   that of all rewards of the step, which the paper reports and the released code lacks.
6. What alpha is. The paper calls it the removal of a bias. The plain mean over all groups is already unbiased for the
   expected group gradient, zeros included; alpha divides by the share of valid groups, so it is an adaptive step
   size: gradient per informative group. AdamW undoes a constant factor, so only its change from step to step matters
   there.
7. The baseline holds the sample itself, here as in the paper; in expectation that scales the gradient by 1 - 1/G.
"""

import math

import torch
import torch.distributed as dist

F_NORMS = ("none", "group", "batch")
NORMS = ("group", "valid_token", "token", "sequence", "constant")


def group_advantages(rewards: torch.Tensor, f_norm: str = "none") -> torch.Tensor:
    """Eq. 6: (r - mean of its group) / F_norm. (P, G) -> (P, G). A group without spread is exactly 0.

    f_norm: "none" (F_norm = 1), "group" (standard deviation of the group, as GRPO), "batch" (of all rewards, over all
    ranks; then every rank must call). Sample standard deviation (n - 1), no epsilon.
    ValueError: rewards that are not (P, G >= 2), not floating, NaN or infinite; an unknown f_norm.
    """
    _check_rewards(rewards)
    _check_option("f_norm", f_norm, F_NORMS)
    advantages = rewards - rewards.mean(dim=1, keepdim=True)  # (P, G)
    if f_norm == "group":
        advantages = advantages / rewards.std(dim=1, keepdim=True)
    elif f_norm == "batch":
        advantages = advantages / _global_std(rewards)
    return torch.where(valid_groups(rewards)[:, None], advantages, 0.0)  # 0 / 0 and rounding of the mean end here


def valid_groups(rewards: torch.Tensor) -> torch.Tensor:
    """(P, G) -> (P,) bool: the rewards of the group are not all equal. Only such groups carry gradient."""
    return rewards.amax(dim=1) != rewards.amin(dim=1)


def alpha(num_groups: float, num_valid: float) -> float:
    """Eq. 7: B / (B - M), in groups (the factor G cancels). Never below 1; math.inf with no valid group."""
    return max(1.0, num_groups / num_valid) if num_valid else math.inf


def global_sum(x: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks, by one all_reduce; x itself where no process group exists (Appendix A)."""
    if not dist.is_initialized():
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total


def token_weights(
    rewards: torch.Tensor,  # (P, G)
    completion_mask: torch.Tensor,  # (P, G, T): 1 on tokens up to and including EOS
    *,
    f_norm: str = "none",
    age: bool = True,
    norm: str = "group",
    max_len: int | None = None,
    num_groups: int | None = None,
) -> torch.Tensor:
    """The coefficients w (P, G, T) of Eq. 5-8:  loss = -(w * logprobs).sum(), summed over micro-batches and ranks.

    Every normaliser is global, so the gradient does not depend on how the batch is cut. A collective: all ranks call it
    with the same options; their P may differ, down to 0. With no valid group on any rank all weights are zero.

        norm           weight of a token of sample i in group g               source
        "group"        alpha * A / (num_groups * tokens of g)                 Eq. 5 as written
        "valid_token"  A / (tokens of all valid groups)                       the exact token mean: alpha is in it
        "token"        alpha * A / (tokens of the batch)                      Eq. 8 as released
        "sequence"     alpha * A / (num_groups * G * tokens of i)             GRPO
        "constant"     alpha * A / (num_groups * G * max_len)                 Dr. GRPO

    With alpha, adding a group whose rewards are all equal, of any length, leaves the gradient as it was under every
    norm but "token", whose denominator grows with that group's tokens (and but for f_norm="batch", whose std it moves).
    Without alpha, only under "valid_token".

    f_norm: see group_advantages. age: multiply by alpha ("accurate gradient estimation", Eq. 7). max_len: tokens, for
    "constant" only. num_groups: how many groups the step counts, over all ranks (default: all given). With beta_th,
    all sampled groups of all rounds are given and num_groups is max(P, valid groups); the tokens of the batch are then
    those of all given groups times num_groups / (groups given). A sample whose mask is empty has no weight.
    ValueError: shapes that do not fit, rewards as in group_advantages, an unknown option, max_len missing or below
    the longest completion, num_groups below the number of valid groups.
    """
    advantages = group_advantages(rewards, f_norm)  # (P, G)
    scale = token_scale(rewards, completion_mask, age=age, norm=norm, max_len=max_len, num_groups=num_groups)
    weights = advantages * scale.to(rewards.dtype)  # (P, G)
    return weights[:, :, None] * completion_mask.to(rewards.dtype)  # (P, G, T)


def token_scale(
    rewards: torch.Tensor,  # (P, G)
    completion_mask: torch.Tensor,  # (P, G, T)
    *,
    age: bool = True,
    norm: str = "group",
    max_len: int | None = None,
    num_groups: int | None = None,
) -> torch.Tensor:
    """What a token's weight is for an advantage of 1, (P, G) or (P, 1) float64: the table of token_weights without A.

    Arguments, collectives and errors as there. 0 where alpha or the tokens of valid groups would be divided by 0.
    """
    _check_option("norm", norm, NORMS)
    _check_rewards(rewards, least=1)
    _check_mask(rewards, completion_mask)
    valid = valid_groups(rewards)  # (P,)
    lengths = completion_mask.sum(dim=2).to(torch.float64)  # (P, G) tokens
    if norm == "constant" and (max_len is None or max_len < 1 or bool((lengths > max_len).any())):
        raise ValueError(f'norm="constant" needs max_len, the most tokens that a completion may have; got {max_len}')

    # Appendix A: one all_reduce of one small tensor carries every count
    counts = [rewards.new_tensor(len(rewards), dtype=torch.float64), valid.sum(), lengths.sum(), lengths[valid].sum()]
    given, num_valid, tokens, valid_tokens = global_sum(torch.stack([c.double() for c in counts])).tolist()
    num_groups = given if num_groups is None else num_groups
    if num_groups < num_valid:
        raise ValueError(f"token_weights: num_groups={num_groups} is below the {num_valid:.0f} valid groups")
    if num_valid == 0 and (age or norm == "valid_token"):
        return torch.zeros_like(lengths)

    G = rewards.shape[1]
    if norm == "group":
        denominator = num_groups * lengths.sum(dim=1, keepdim=True)  # (P, 1)
    elif norm == "valid_token":
        denominator = torch.full_like(lengths, valid_tokens)  # (P, G)
    elif norm == "token":
        denominator = torch.full_like(lengths, tokens * num_groups / given)  # (P, G)
    elif norm == "sequence":
        denominator = num_groups * G * lengths  # (P, G)
    else:
        denominator = torch.full_like(lengths, num_groups * G * max_len)  # (P, G)
    scale = alpha(num_groups, num_valid) if age and norm != "valid_token" else 1.0
    return scale / denominator.clamp(min=1)  # clamped for an empty mask, which has no token


def gpg_loss(logprobs: torch.Tensor, rewards: torch.Tensor, completion_mask: torch.Tensor, **options) -> torch.Tensor:
    """Eq. 5 and 8 in one line, for reading and for tests: logprobs (P, G, T) -> scalar. Options: see token_weights."""
    return -(token_weights(rewards, completion_mask, **options) * logprobs).sum()


def token_logprobs(logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log softmax(logits / temperature)[id]: (..., V), (...) -> (...). In float32 or wider, whatever the logits are."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return scaled.gather(-1, ids[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)


def sliced_logprobs(
    hidden: torch.Tensor,  # (..., D)
    weight: torch.Tensor,  # (V, D), the output layer
    ids: torch.Tensor,  # (...)
    *,
    bias: torch.Tensor | None = None,  # (V,)
    temperature: float = 1.0,
    slice_tokens: int | None = None,
    grad: torch.Tensor | None = None,  # (...)
) -> torch.Tensor:
    """token_logprobs(hidden @ weight.T + bias, ids, temperature), with at most slice_tokens rows of logits alive.

    -> (...), float32 or wider. The same values and gradients. grad: d loss / d logprobs where it is known beforehand,
    as GPG's -w is; then the gradient is made along with the values, from the same logits. Without it logits are made
    again in the backward pass. Under autocast the matrix products run in its dtype, the softmax and the sums over
    slices in float32. slice_tokens: without it as many rows as make 2^25 logits, 128 MB in float32, whatever V is.
    AssertionError: the backward pass brings another gradient than `grad`.
    """
    device = hidden.device.type
    compute_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    options = temperature, slice_tokens or max(1, 2**25 // len(weight)), compute_dtype
    known = None if grad is None or not torch.is_grad_enabled() else grad.flatten()
    flat = _SlicedLogprobs.apply(hidden.reshape(-1, hidden.shape[-1]), weight, bias, ids.flatten(), known, options)
    return flat if ids.dim() == 1 else flat.view(ids.shape)  # no view, where none is needed: shards forbid its editing


class _SlicedLogprobs(torch.autograd.Function):
    """One node for the whole output layer, so that a micro-batch has one backward, as DistributedDataParallel demands.

    With z = (h W^T + b) / temperature and p = softmax(z):  d logp[id] / dz = onehot(id) - p. Logits are edited in
    place: a slice of them is the largest thing alive.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, known, options):
        temperature, slice_tokens, compute_dtype = options
        w = weight.to(compute_dtype)  # (V, D)
        grads = None if known is None else _zero_grads(hidden, weight, bias, ctx.needs_input_grad)
        logprobs, normalisers = [], []
        for start in range(0, len(hidden), slice_tokens):
            piece = slice(start, start + slice_tokens)
            z = _logits(hidden[piece].to(compute_dtype), w, bias).div_(temperature)  # (n, V)
            picked, top = z.gather(1, ids[piece, None]), z.amax(dim=1, keepdim=True)  # (n, 1)
            total = z.sub_(top).exp_().sum(dim=1, keepdim=True)  # (n, 1)
            normalisers.append((total.log() + top).squeeze(1))  # (n,) log of the sum of exp z
            logprobs.append(picked.squeeze(1) - normalisers[-1])
            if grads is not None:
                _add_grads(grads, z.div_(total), hidden, w, ids, known, piece, temperature)
        saved = (hidden, weight, bias, ids, torch.cat(normalisers)) if grads is None else (known, *grads)
        ctx.save_for_backward(*saved)
        ctx.options = options, grads is not None
        return torch.cat(logprobs)  # (M,)

    @staticmethod
    def backward(ctx, grad):  # (M,)
        (temperature, slice_tokens, compute_dtype), is_known = ctx.options
        if is_known:
            known, *grads = ctx.saved_tensors
            assert torch.equal(grad, known.to(grad.dtype)), "sliced_logprobs: the gradient is not the one it was told"
            return *grads, None, None, None
        hidden, weight, bias, ids, normalisers = ctx.saved_tensors
        w = weight.to(compute_dtype)  # (V, D)
        grads = _zero_grads(hidden, weight, bias, ctx.needs_input_grad)
        for start in range(0, len(hidden), slice_tokens):
            piece = slice(start, start + slice_tokens)
            z = _logits(hidden[piece].to(compute_dtype), w, bias).div_(temperature)  # (n, V)
            p = z.sub_(normalisers[piece, None]).exp_()
            _add_grads(grads, p, hidden, w, ids, grad, piece, temperature)
        return *grads, None, None, None


def _zero_grads(hidden, weight, bias, needed) -> tuple[torch.Tensor | None, ...]:
    """Room for the gradients of the hidden states, the output layer and its bias; None where not needed."""
    return tuple(torch.zeros_like(x) if need else None for x, need in zip((hidden, weight, bias), needed, strict=False))


def _add_grads(grads, p, hidden, w, ids, grad, piece, temperature) -> None:
    """Adds what a slice with probabilities p (n, V), which are edited in place, gives to the three gradients."""
    grad_hidden, grad_weight, grad_bias = grads
    dz = p.neg_().scatter_add_(1, ids[piece, None], torch.ones_like(p[:, :1]))  # (n, V): onehot(id) - p
    dz.mul_((grad[piece, None] / temperature).to(dz.dtype))  # a float64 factor would make all of it slow
    if grad_bias is not None:
        grad_bias += dz.sum(dim=0)
    dz, rows = dz.to(w.dtype), hidden[piece].to(w.dtype)
    if grad_hidden is not None:
        grad_hidden[piece] = dz @ w
    if grad_weight is not None and grad_weight.dtype == dz.dtype:
        grad_weight.addmm_(dz.T, rows)
    elif grad_weight is not None:
        grad_weight += dz.T @ rows


def _logits(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The output layer, (n, D) -> (n, V), in float32 or wider whatever the dtype of the product."""
    logits = (rows @ weight.T).to(torch.promote_types(rows.dtype, torch.float32))
    return logits if bias is None else logits.add_(bias)


def _global_std(rewards: torch.Tensor) -> torch.Tensor:
    """Sample standard deviation of all rewards over all ranks. Two passes: E[x^2] - mean^2 would cancel."""
    total, count = global_sum(torch.stack([rewards.double().sum(), rewards.new_tensor(rewards.numel()).double()]))
    squares = global_sum(((rewards.double() - total / count) ** 2).sum())
    return (squares / (count - 1)).sqrt().to(rewards.dtype)


def _check_rewards(rewards: torch.Tensor, least: int = 2) -> None:
    if rewards.dim() != 2 or not rewards.is_floating_point():
        raise ValueError(f"rewards must be floating, of shape (P, G); got {rewards.dtype}, {tuple(rewards.shape)}")
    if rewards.shape[1] < least:
        raise ValueError(f"rewards {tuple(rewards.shape)}: a group of one has no baseline; G must be 2 or more")
    if not bool(rewards.isfinite().all()):
        group, sample = (~rewards.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"rewards[{group}, {sample}] is {rewards[group, sample].item()}; rewards must be finite")


def _check_mask(rewards: torch.Tensor, completion_mask: torch.Tensor) -> None:
    if completion_mask.dim() != 3 or completion_mask.shape[:2] != rewards.shape:
        shapes = f"{tuple(completion_mask.shape)} for rewards {tuple(rewards.shape)}"
        raise ValueError(f"completion_mask must be (P, G, T) beside rewards (P, G); got {shapes}")


def _check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f'{name}="{value}" is unknown; use one of {", ".join(known)}')
