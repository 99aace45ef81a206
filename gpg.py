"""Group Policy Gradient: the method and nothing else. Read it beside the paper (arXiv 2504.02546).

Start from GRPO and delete the reference model with its KL term, the probability ratio and the clip. What is left is
REINFORCE with the group's mean as its baseline. GPG adds two things: alpha, which corrects for groups that carry no
gradient, and beta_th, the valid share below which more prompts are sampled. In five lines:

    A_i   = (r_i - mean of the group) / F_norm                                                   Eq. 6
    alpha = B / (B - M),  M samples sit in groups whose rewards are all equal                    Eq. 7
    J     = mean over groups of [ sum over the group's tokens of -log pi * A / its tokens ]      Eq. 5
    loss  = alpha * J                                                                            Eq. 8
    collect more prompts until alpha <= 1 / beta_th                                              Algorithm 1, line 1

Letters: P prompts, G completions of each (a group), T completion tokens (padded), B = P * G samples.

A group is *valid* when its rewards are not all equal. What happens to an invalid one, say all wrong: its advantages are
exactly 0 (`group_advantages`), and so are its tokens' weights; but it still counts among the P groups, so alpha = P /
(valid groups) rises and the valid ones make up for it (`token_weights`). It is never forwarded again (engine/balance.py
drops samples without weight). If fewer than beta_th * P groups are valid, another round of prompts is sampled
(train.collect). If no group is valid on any rank there is no optimizer step: parameters and AdamW's moments stay as
they are.

If you copy this file: every normaliser counts all ranks and micro-batches, so gradients are *summed* over ranks, never
averaged. Under plain DistributedDataParallel, which averages, multiply the loss by the world size.

Where the paper is silent, or its released code differs, and what we do:

1. Alpha against a token mean. Eq. 7 counts samples, Eq. 5 divides by tokens. They fit together exactly when tokens are
   averaged within a group and then groups are averaged: alpha turns the mean over all groups into the mean over valid
   ones. That is Eq. 5 as written, and our default (norm="group"). The released text trainer averages over all tokens of
   its micro-batch, including those of invalid groups; the gradient is then wrong by the factor (mean tokens of valid
   samples) / (mean tokens of all). That is norm="token". The token mean that Eq. 7 aims at, exactly, is
   norm="valid_token".
2. How M is counted. The text says "all right or wrong"; here, as in the released code: all total rewards equal,
   whatever their value. Decided by max == min, not by a standard deviation: eight times 0.1 has a mean that is not 0.1
   in float32. verl's GPG counts samples of reward zero instead, a different quantity.
3. Where things are counted. Appendix A shows that one count over all ranks is needed. The released code takes alpha per
   micro-batch and tokens per rank, so its gradient depends on how the batch was cut. Here every normaliser is summed
   over ranks and micro-batches before the first forward (`global_sum`), so it does not.
4. What beta_th accumulates. "Until the proportion exceeds the threshold": the proportion of what? Here: valid groups of
   all rounds, divided by P. Their share of all sampled groups would not rise with more rounds. Rounds end at >=, as in
   the released code, which then discards the surplus but still counts it; here all S valid groups are used and the step
   counts as max(P, S) groups, so that alpha never falls below 1. With no valid group after the last round the released
   code asserts, or multiplies a zero loss by 1e5.
5. Std of what. F_norm is 1 by default. "group" is the sample standard deviation (n - 1) of the group, without the
   released code's epsilon of 1e-4: a group without spread has advantage exactly 0 by rule, not by a small number.
   "batch" takes all rewards of the step; the paper reports it, the released code lacks it.
6. What alpha is. The paper calls it the removal of a bias. The plain mean over all groups is already unbiased for the
   expected group gradient, zeros included; alpha divides by the share of valid groups, so it is an adaptive step size:
   the mean over valid groups. AdamW undoes a constant factor, so only its change from step to step matters.
7. The baseline includes the sample itself, here as in the paper; in expectation this scales the gradient by 1 - 1/G.
"""

import math

import torch
import torch.distributed as dist

F_NORMS = ("none", "group", "batch")
NORMS = ("group", "valid_token", "token", "sequence", "constant")


def group_advantages(rewards: torch.Tensor, f_norm: str = "none") -> torch.Tensor:
    """Eq. 6: (r - mean of its group) / F_norm. (P, G) -> (P, G). A group without spread is exactly 0.

    f_norm: "none" (F_norm = 1), "group" (standard deviation of the group, as GRPO), "batch" (of all rewards, over all
    ranks; then every rank must call it). Sample standard deviation (n - 1), no epsilon.
    ValueError: rewards that are not (P, G >= 2), of another dtype than float32 and float64, NaN or infinite; an unknown
    f_norm.
    """
    _check_rewards(rewards)
    _check_option("f_norm", f_norm, F_NORMS)
    advantages = rewards - rewards.mean(dim=1, keepdim=True)  # (P, G)
    if f_norm == "group" and len(rewards):
        advantages = advantages / rewards.std(dim=1, keepdim=True)
    elif f_norm == "batch":
        advantages = advantages / global_moments(rewards)[1]
    return torch.where(valid_groups(rewards)[:, None], advantages, 0.0)  # removes 0 / 0 and the rounding of the mean


def valid_groups(rewards: torch.Tensor) -> torch.Tensor:
    """(P, G) -> (P,) bool: the rewards of the group differ by more than rounding. Only such groups carry gradient."""
    low, high = rewards.amin(dim=1), rewards.amax(dim=1)  # (P,)
    return high - low > 8 * torch.finfo(rewards.dtype).eps * torch.maximum(low.abs(), high.abs())


def alpha(num_groups: float, num_valid: float) -> float:
    """Eq. 7: B / (B - M), in groups (the factor G cancels). Never below 1; math.inf with no valid group."""
    return max(1.0, num_groups / num_valid) if num_valid else math.inf


def global_sum(x: torch.Tensor) -> torch.Tensor:
    """Appendix A: the sum of a tensor over all ranks, by one all_reduce; x itself where no process group exists."""
    if not dist.is_initialized():
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total


def global_moments(x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sample standard deviation of a tensor, where its mask is 1, over all ranks; a collective."""
    wide, mask = x.double(), torch.ones_like(x, dtype=torch.float64) if mask is None else mask.double()
    total, count = global_sum(torch.stack([(wide * mask).sum(), mask.sum()]))
    mean = total / count.clamp(min=1)
    squares = global_sum(((wide - mean) ** 2 * mask).sum())  # E[x^2] - mean^2 would cancel
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    std = torch.where(std > 1e-12 * mean.abs(), std, 0.0)  # equal values have none but by the rounding of their mean
    return mean.to(x.dtype), std.to(x.dtype)


@torch.no_grad()
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
    with the same options; their P may differ, down to 0. With no valid group on any rank all weights are 0.

        norm           weight of a token of sample i in group g               source
        "group"        alpha * A / (num_groups * tokens of g)                 Eq. 5 as written
        "valid_token"  A / (tokens of all valid groups)                       the exact token mean, alpha included
        "token"        alpha * A / (tokens of the batch)                      Eq. 8 as released
        "sequence"     alpha * A / (num_groups * G * tokens of i)             GRPO
        "constant"     alpha * A / (num_groups * G * max_len)                 Dr. GRPO

    With alpha, an extra invalid group changes nothing, except under norm="token" (its tokens count) and f_norm="batch"
    (it moves the standard deviation). Without alpha, this holds only for "valid_token".

    f_norm: see group_advantages. age: multiply by alpha ("accurate gradient estimation", Eq. 7). max_len: tokens, for
    "constant" only. num_groups: how many groups the step counts as, over all ranks (default: all given). With beta_th,
    the groups of all rounds are given and num_groups is max(P, valid groups); the tokens of the batch are then those of
    all given groups times num_groups / (groups given). A sample whose mask is empty has no weight.
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
    """The table of token_weights without A: a token's weight for an advantage of 1, (P, G) or (P, 1) float64.

    Arguments, collectives and errors as there. All 0 if no group is valid and alpha or the norm would divide by 0.
    """
    _check_option("norm", norm, NORMS)
    _check_rewards(rewards, least=1)
    _check_mask(rewards, completion_mask)
    valid = valid_groups(rewards)  # (P,)
    lengths = completion_mask.sum(dim=2, dtype=torch.float64)  # (P, G) tokens
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
        denominator = torch.full_like(lengths, tokens * num_groups / max(1, given))  # (P, G)
    elif norm == "sequence":
        denominator = num_groups * G * lengths  # (P, G)
    else:
        denominator = torch.full_like(lengths, num_groups * G * max_len)  # (P, G)
    scale = alpha(num_groups, num_valid) if age and norm != "valid_token" else 1.0
    return scale / denominator.clamp(min=1)  # an empty mask has no token to weigh


def gpg_loss(logprobs: torch.Tensor, rewards: torch.Tensor, completion_mask: torch.Tensor, **options) -> torch.Tensor:
    """Eq. 5 and 8 in one line: logprobs (P, G, T) -> scalar. Options: see token_weights. train.backward splits it."""
    if logprobs.shape != completion_mask.shape:
        raise ValueError(f"logprobs {tuple(logprobs.shape)} and mask {tuple(completion_mask.shape)} differ in shape")
    return -(token_weights(rewards, completion_mask, **options) * logprobs).sum()


def _check_rewards(rewards: torch.Tensor, least: int = 2) -> None:
    if rewards.dim() != 2 or rewards.dtype not in (torch.float32, torch.float64):  # others can't hold the weights
        raise ValueError(f"rewards must be float32 or 64, of shape (P, G); got {rewards.dtype}, {tuple(rewards.shape)}")
    if rewards.shape[1] < least:
        raise ValueError(f"rewards {tuple(rewards.shape)}: a group of one has no baseline; G must be 2 or more")
    if not bool(rewards.isfinite().all()):
        group, sample = (~rewards.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"rewards[{group}, {sample}] is {rewards[group, sample].item()}; rewards must be finite")


def _check_mask(rewards: torch.Tensor, completion_mask: torch.Tensor) -> None:
    if completion_mask.dim() != 3 or completion_mask.shape[:2] != rewards.shape:
        shapes = f"{tuple(completion_mask.shape)} and {tuple(rewards.shape)}"
        raise ValueError(f"completion_mask must be (P, G, T) for rewards (P, G); got {shapes}")


def _check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f'{name}="{value}" is unknown; use one of {", ".join(known)}')
