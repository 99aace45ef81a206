"""What the methods that GPG is compared with need, and GPG does not: ratios and clips, a reference, a critic.

All else of them is an option of `gpg.token_weights`, so that a comparison differs in the formula and in nothing else:
the same samples, masks, counts over ranks, micro-batches. On policy, with one update a rollout, every ratio is 1 and no
clip acts: GRPO, Dr. GRPO and DAPO are then weights alone, and their recipes in config/ need nothing of this file. Its
parts, each a flag of train.py; `--algo NAME` sets a bundle of them:

    A = r - (mean of the group, or of the other samples, or of the step; reward of a greedy completion); or by GAE
    J = sum over tokens of  min(ratio * w, clip(ratio) * w) - kl_coef * scale * KL        w = scale * A

`scale` is what gpg.token_scale says: one over the counts. Letters as in gpg.py; M completion tokens of a micro-batch.

TRPO is not here. Its step solves F x = g for the Fisher matrix F by conjugate gradients. Each product with F is a
second derivative, through fused attention, which has none, and through logits, which are never whole; and its line
search forwards the batch once a try. PPO's clip is what took its place.
"""

import torch
from torch.nn.functional import pad

from engine.policy import completion_states, prompts_can_be_shared
from gpg import global_sum, group_advantages
from rollout import Rollout, eos_ids, pad_id, pad_left

BASELINES = ("group", "others", "batch", "greedy", "critic")
KLS = ("k1", "k2", "k3")

# The flags of each method, with their defaults of paper and code. Not given: the defaults, which are GPG's.
_EVERY_GROUP = {"age": False, "beta_th": 0.0}
_CLIP = {"clip": (0.2, 0.2)}
ALGOS: dict[str, dict[str, object]] = {
    "gpg": {},
    "reinforce": _EVERY_GROUP,  # with the mean of the group as its baseline: GPG without its two additions
    "grpo": _EVERY_GROUP | _CLIP | {"f_norm": "group", "norm": "sequence"},  # its KL term: --kl-coef 0.04
    "dr-grpo": _EVERY_GROUP | _CLIP | {"norm": "constant"},
    # its dynamic sampling goes on until P groups are valid; its loss is the mean over their tokens
    "dapo": {"age": False, "beta_th": 1.0, "f_norm": "group", "norm": "valid_token", "clip": (0.2, 0.28)},
    "rloo": _EVERY_GROUP | {"baseline": "others", "norm": "constant"},  # the sum over tokens, but for a constant
    "reinforce++": _EVERY_GROUP | _CLIP | {"baseline": "batch", "f_norm": "batch", "norm": "token"},
    "remax": _EVERY_GROUP | {"baseline": "greedy", "norm": "constant"},
    "ppo": _EVERY_GROUP | _CLIP | {"baseline": "critic", "f_norm": "batch", "norm": "token", "updates": 2},
    "sft": _EVERY_GROUP | {"norm": "token", "group_size": 1},
}


def advantages(
    rewards: torch.Tensor,  # (P, G)
    baseline: str,
    f_norm: str = "none",
    greedy: torch.Tensor | None = None,  # (P,)
) -> torch.Tensor:
    """(r - baseline) / F_norm, (P, G); but for "critic", which is `gae`. A collective for "batch".

        "group"    mean of the group, Eq. 6                                    GPG, GRPO
        "others"   mean of the G - 1 other samples: G / (G - 1) times "group"  RLOO
        "batch"    mean of all rewards of the step, over all ranks             REINFORCE++
        "greedy"   reward of the prompt's greedy completion                    ReMax

    f_norm: "none", "batch" (sample standard deviation of all rewards of the step); "group" with "group" and "others".
    """
    if baseline in ("group", "others"):
        G = rewards.shape[1]
        return group_advantages(rewards, f_norm) * (G / (G - 1) if baseline == "others" else 1.0)
    mean, std = _moments(rewards, torch.ones_like(rewards))
    advantages = rewards - (greedy[:, None] if baseline == "greedy" else mean)  # (P, G)
    return _divided(advantages, std) if f_norm == "batch" else advantages


def gae(
    rewards: torch.Tensor,  # (P, G, T), of a token
    values: torch.Tensor,  # (P, G, T), before a token is drawn
    mask: torch.Tensor,  # (P, G, T)
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016), not discounted -> advantages and returns, (P, G, T).

        delta_t = r_t + V_{t+1} - V_t        A_t = delta_t + lam * A_{t+1}        return_t = A_t + V_t

    V is 0 after the last token, that of a truncated completion too: what it would have come to, nobody rewards.
    """
    advantages, later, value = torch.zeros_like(values), 0.0, 0.0
    for t in reversed(range(values.shape[2])):
        delta = rewards[:, :, t] + value - values[:, :, t]  # (P, G)
        later = (delta + lam * later) * mask[:, :, t]
        value = values[:, :, t] * mask[:, :, t]
        advantages[:, :, t] = later
    return advantages, (advantages + values) * mask


def whiten(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(x - mean) / standard deviation over all tokens (P, G, T) of all ranks, as PPO does with its advantages."""
    mean, std = _moments(x, mask)
    return _divided(x - mean, std) * mask


def clipped_objective(
    logprobs: torch.Tensor,  # (M,)
    old: torch.Tensor,  # (M,), before the first update on these samples
    weights: torch.Tensor,  # (M,), scale * A
    clip: tuple[float, float],
) -> torch.Tensor:
    """PPO's min(ratio * w, clip(ratio, 1 - low, 1 + high) * w), (M,); Eq. 20, 26; DAPO's has a larger high."""
    ratio = (logprobs - old).exp()
    return torch.minimum(ratio * weights, ratio.clamp(1 - clip[0], 1 + clip[1]) * weights)


def is_clipped(logprobs: torch.Tensor, old: torch.Tensor, weights: torch.Tensor, clip: tuple[float, float]):
    """(M,) bool: tokens whose gradient the clip has taken."""
    ratio = (logprobs - old).exp()
    return ((weights > 0) & (ratio > 1 + clip[1])) | ((weights < 0) & (ratio < 1 - clip[0]))


def kl_estimate(logprobs: torch.Tensor, reference: torch.Tensor, kind: str) -> torch.Tensor:
    """KL(pi || reference) a token, from samples of pi (Schulman 2020), elementwise. With d = log pi - log reference:

        "k1"  d                        unbiased; either sign
        "k2"  d^2 / 2                  biased; as a loss, its gradient is that of KL(pi || reference)
        "k3"  exp(-d) - 1 + d          unbiased, never negative (Eq. 27); as a loss, its gradient is another: that of
                                       KL(reference || pi)

    As a loss, "k1" has a gradient of mean zero: it holds nothing back. In the reward it is the one that is right.
    """
    d = logprobs - reference
    if kind == "k1":
        return d
    return d**2 / 2 if kind == "k2" else torch.expm1(-d) + d


def overlong_penalty(lengths: torch.Tensor, max_len: int, buffer: int) -> torch.Tensor:
    """DAPO's soft punishment, of any shape: 0 up to max_len - buffer tokens, then falling to -1 at max_len."""
    return ((max_len - buffer - lengths) / buffer).clamp(-1, 0)


class Critic(torch.nn.Module):
    """The value of what was written so far, before each completion token: a copy of the model, and a linear head.

    The head begins at zero: the first advantages are those without a critic.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model.base_model
        width = model.get_output_embeddings().weight.shape[1]
        self.head = torch.nn.Linear(width, 1, device=model.device, dtype=model.dtype)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.shared = prompts_can_be_shared(self.model)

    def forward(self, *samples: torch.Tensor) -> torch.Tensor:
        """Samples as Policy.forward -> values (M,), in the weights' dtype: a value has few digits to lose."""
        states = completion_states(self.model, *samples, shared=self.shared)  # (M, D)
        return (states.to(self.head.weight.dtype) * self.head.weight).sum(dim=1) + self.head.bias


def demonstrations(model, tokenizer, prompts: list[list[int]], solutions: list[list[int]]) -> Rollout:
    """Prompts and solutions (token ids, P lists) as if the solutions, and then EOS, had been sampled: (P, 1, T).

    Their logprobs are NaN, as they were never drawn.
    """
    pad_token, ends = pad_id(model, tokenizer), eos_ids(model, tokenizer)
    end = ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    rows = [torch.tensor([*solution, end], device=model.device) for solution in solutions]
    T = max(map(len, rows), default=0)
    ids = [pad(row, (0, T - len(row)), value=pad_token) for row in rows]
    mask = [pad(torch.ones_like(row), (0, T - len(row))) for row in rows]
    completion_ids, completion_mask = (
        torch.stack(x)[:, None] if x else torch.zeros((0, 1, 0), dtype=torch.long, device=model.device)
        for x in (ids, mask)
    )  # (P, 1, T)
    wide = torch.promote_types(model.dtype, torch.float32)
    return Rollout(
        *pad_left(prompts, pad_token, model.device),
        completion_ids=completion_ids,
        completion_mask=completion_mask,
        logprobs=torch.full(completion_ids.shape, torch.nan, dtype=wide, device=model.device),
        truncated=torch.zeros(completion_ids.shape[:2], dtype=torch.bool, device=model.device),
    )


def _divided(x: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """x / std; 0 where nothing differs, by rule, as in gpg.group_advantages."""
    return x / std if std > 0 else torch.zeros_like(x)


def _moments(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sample standard deviation of what the mask holds, over all ranks. Two passes, as in gpg.py."""
    total, count = global_sum(torch.stack([(x * mask).double().sum(), mask.double().sum()]))
    mean = total / count
    squares = global_sum(((x - mean) ** 2 * mask).double().sum())
    return mean.to(x.dtype), (squares / (count - 1)).sqrt().to(x.dtype)
