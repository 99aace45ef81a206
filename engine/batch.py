"""What one step sampled, and the counts that its metrics are made of.

Letters: P prompts, G completions of each, S groups of all rounds, T completion tokens (padded).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch

from gpg import valid_groups
from rollout import Rollout, cat, join


@dataclass(frozen=True)
class Sums:
    """A rank's counts and sums of a round or a step. Metrics are ratios of sums over ranks, never means of means."""

    samples: float
    groups: float
    valid: float  # groups whose rewards are not all equal
    easy: float  # groups whose rewards are all equal, and above 0
    hard: float  # groups whose rewards are all equal, and not above 0
    reward: float  # over samples
    reward_std: float  # over groups: the sample standard deviation of its rewards
    tokens: float  # of completions
    drawn: float  # tokens, with those of greedy completions, which no other metric counts
    surprise: float  # -log pi over drawn tokens, nats
    truncated: float  # samples that reached max_new_tokens
    left_out: float  # samples that are not in the loss
    reward_errors: float
    by_reward: dict[str, float]  # a reward's name -> the sum of its values
    scored: dict[str, float]  # a reward's name -> samples that it could score
    graded: dict[str, float]  # a rule -> answers that it found; "given_up" -> comparisons; "box/…" -> boxes
    methods: dict[str, float] = field(default_factory=dict)  # kl, value_error: over "tokens", those in the loss


def count_samples(
    rewards: torch.Tensor, left_out: torch.Tensor, lengths: torch.Tensor, sampled: Rollout, result: dict
) -> Sums:
    """The sums of one round, from rewards, left_out (bool) and lengths (tokens), (p, G) each and on the CPU.

    result: what rewards.score returned.
    """
    valid, mean, tokens = valid_groups(rewards), rewards.mean(dim=1), float(lengths.sum())  # (p,)
    scored = {name: [x for x in values if x is not None] for name, values in result["by_name"].items()}
    return Sums(
        samples=rewards.numel(),
        groups=len(rewards),
        valid=float(valid.sum()),
        easy=float((~valid & (mean > 0)).sum()),
        hard=float((~valid & (mean <= 0)).sum()),
        reward=float(rewards.sum()),
        reward_std=float(rewards.std(dim=1, correction=min(1, rewards.shape[1] - 1)).sum()),
        tokens=tokens,
        drawn=tokens,
        surprise=-float(sampled.logprobs.double().sum()),
        truncated=float(sampled.truncated.sum()),
        left_out=float(left_out.sum()),
        reward_errors=result["errors"],
        by_reward={name: sum(values) for name, values in scored.items()},
        scored={name: len(values) for name, values in scored.items()},
        graded=result["counts"],
    )


def fill_left_out(rewards: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    """(P, G), (P, G) bool -> (P, G): those left out get the mean of the others, which leaves that mean unchanged.

    Clamped to the others' range: rounding must not make equal rewards unequal. 0 if all are left out.
    """
    scored = ~left_out
    mean = rewards.where(scored, 0.0).sum(dim=1) / scored.sum(dim=1)  # (P,)
    low, high = rewards.where(scored, math.inf).amin(dim=1), rewards.where(scored, -math.inf).amax(dim=1)
    mean = mean.clamp(low, high).where(scored.any(dim=1), 0.0)
    return rewards.where(scored, mean[:, None])


def flatten(sums: Sums) -> list[float]:
    """All numbers, in the order of the fields."""
    return [x for value in asdict(sums).values() for x in (value.values() if isinstance(value, dict) else [value])]


def unflatten(like: Sums, numbers: Sequence[float]) -> Sums:
    """The inverse of flatten, with the names of `like`."""
    number = iter(numbers)
    values = asdict(like).items()
    return Sums(**{k: {n: next(number) for n in v} if isinstance(v, dict) else next(number) for k, v in values})


@dataclass(frozen=True)
class Batch:
    """What this rank sampled for one step: the groups of all rounds, including invalid ones."""

    rollout: Rollout
    rewards: torch.Tensor  # (S, G) float64
    loss_mask: torch.Tensor  # (S, G, T): completion_mask, empty for samples that are left out of the loss
    num_valid: int  # valid groups, over all ranks
    rounds: int
    sums: Sums
    seconds: dict[str, float]  # of this step, by their names in metrics.jsonl
    samples: list[dict]  # a few completions, for people to read
    # what only methods.py sets:
    greedy: torch.Tensor | None = None  # (S,), the reward of a prompt's greedy completion
    advantages: torch.Tensor | None = None  # (S, G, T or 1), in place of Eq. 6
    extras: dict[str, torch.Tensor] = field(default_factory=dict)  # (S, G, T) each, see methods.prepare


def join_rounds(rounds: Sequence[Batch], seconds: dict[str, float]) -> Batch:
    """The rounds of a step as one batch; the samples for people are the first round's."""
    sums = zip(*(flatten(batch.sums) for batch in rounds), strict=True)
    return replace(
        rounds[0],
        rollout=join([batch.rollout for batch in rounds]),
        rewards=torch.cat([batch.rewards for batch in rounds]),
        loss_mask=cat([batch.loss_mask for batch in rounds]),
        num_valid=sum(batch.num_valid for batch in rounds),
        rounds=len(rounds),
        sums=unflatten(rounds[0].sums, list(map(sum, sums))),
        seconds=seconds,
        greedy=None if rounds[0].greedy is None else torch.cat([batch.greedy for batch in rounds]),
    )
