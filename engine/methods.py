"""What the methods that GPG is compared with need, and GPG does not: ratios and clips, a reference, a critic.

Everything else is an option of `gpg.token_weights`, so a comparison differs in the formula and nothing else. On policy,
with one update per rollout, every ratio is 1 and no clip acts: GRPO, Dr. GRPO and DAPO are then just weights. Each part
is a flag of train.py; `--algo NAME` sets a bundle of them (run/flags.py):

    A = r - (mean of the group, of its other samples, or of the step; reward of a greedy completion); or by GAE
    J = sum over tokens of  min(ratio * w, clip(ratio) * w) - kl_coef * scale * KL        w = scale * A

`scale` is gpg.token_scale: one over the counts. Letters as in gpg.py; M completion tokens of a micro-batch.
"""

from dataclasses import dataclass, replace

import torch
from torch.nn import Module
from torch.optim import Optimizer

from engine.balance import Share
from engine.batch import Batch, fill_left_out
from engine.micro_batches import gather_tokens, micro_steps, per_token, scatter_tokens
from engine.optimizer import Gradient, clip_gradient, take_step
from engine.parallel import unwrapped
from engine.policy import FORWARD_TOKENS, allow_caches, autocast, body, completion_states, prompts_can_be_shared
from gpg import global_moments, global_sum, group_advantages, token_scale
from rollout import Rollout, eos_ids, pad_id, pad_left


@dataclass(frozen=True)
class Method:
    """A method's options, by the names of train.py's flags; --help has what they mean. The defaults are GPG's."""

    algo: str = "gpg"
    baseline: str = "group"
    f_norm: str = "none"
    norm: str = "group"
    max_new_tokens: int = 1
    updates: int = 1
    clip: tuple[float, float] | None = None
    kl_coef: float = 0.0
    kl: str = "k3"
    kl_in: str = "loss"
    gae_lambda: float = 0.95

    def is_linear(self) -> bool:
        """Whether all of the loss is weights * logprobs, as GPG's is."""
        return not (self.updates > 1 or (self.kl_coef and self.kl_in == "loss"))


def baseline_advantages(
    rewards: torch.Tensor, baseline: str, f_norm: str = "none", greedy=None, scored=None
) -> torch.Tensor:
    """(r - baseline) / F_norm, (P, G) -> (P, G); but for "critic", which is `gae`. A collective for "batch".

        "group"    mean of the group, Eq. 6                                    GPG, GRPO
        "others"   mean of the G - 1 other samples: G / (G - 1) times "group"  RLOO
        "batch"    mean of all rewards of the step, over all ranks             REINFORCE++
        "greedy"   reward of the prompt's greedy completion, greedy (P,)       ReMax

    scored (P, G): the samples that count in the mean and the deviation of a step; None: all.
    f_norm: "none", "batch" (sample standard deviation of all rewards of the step); "group" with "group" and "others".
    """
    if baseline in ("group", "others"):
        G = rewards.shape[1]
        return group_advantages(rewards, f_norm) * (G / (G - 1) if baseline == "others" else 1.0)
    mean, std = global_moments(rewards, scored)
    advantages = rewards - (greedy[:, None] if baseline == "greedy" else mean)  # (P, G)
    # without spread exactly 0, as in gpg.group_advantages
    return torch.where(std > 0, advantages / std, 0.0) if f_norm == "batch" else advantages


def gae(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, lam: float) -> tuple[torch.Tensor, ...]:
    """Generalised advantage estimation (Schulman et al. 2016), not discounted -> advantages and returns.

        delta_t = r_t + V_{t+1} - V_t        A_t = delta_t + lam * A_{t+1}        return_t = A_t + V_t

    All are (P, G, T), of tokens; V is the value before a token is drawn. It is 0 after the last token, also of a
    truncated completion: what would have followed is not rewarded.
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
    mean, std = global_moments(x, mask)
    return torch.where(std > 0, (x - mean) / std, 0.0) * mask


def clipped_objective(logprobs: torch.Tensor, old: torch.Tensor, weights: torch.Tensor, clip: tuple[float, float]):
    """PPO's min(ratio * w, clip(ratio, 1 - low, 1 + high) * w), Eq. 20, 26, and where the clip zeroed its gradient.

    (M,) each, as logprobs; old, their values before the first update; weights, scale * A. DAPO's high is above low.
    """
    ratio = (logprobs - old).exp()
    plain, clipped = ratio * weights, ratio.clamp(1 - clip[0], 1 + clip[1]) * weights
    return torch.minimum(plain, clipped), clipped < plain


def kl_estimate(logprobs: torch.Tensor, reference: torch.Tensor, kind: str) -> torch.Tensor:
    """KL(pi || reference) per token, from samples of pi (Schulman 2020), elementwise. With d = log pi - log reference:

        "k1"  d                        unbiased; either sign
        "k2"  d^2 / 2                  biased; as a loss, its gradient is that of KL(pi || reference)
        "k3"  exp(-d) - 1 + d          unbiased, never negative (Eq. 27); but as a loss, its gradient is that of
                                       KL(reference || pi)

    As a loss, "k1" has a gradient of mean zero, so it restrains nothing. In the reward, "k1" is the right one.
    """
    d = logprobs - reference
    return {"k1": d, "k2": d**2 / 2, "k3": torch.expm1(-d) + d}[kind]


def overlong_penalty(lengths: torch.Tensor, max_len: int, buffer: int) -> torch.Tensor:
    """DAPO's soft punishment, of any shape: 0 up to max_len - buffer tokens, then falling to -1 at max_len."""
    return ((max_len - buffer - lengths) / buffer).clamp(-1, 0)


def prepare(batch: Batch, method: Method, reference: Module | None, critic: Module | None, budget: int) -> Batch:
    """The batch with a method's advantages, and what its loss needs per token; GPG's as it is.

    A penalty in the reward is -kl_coef * KL, summed over a sample's tokens or, with a critic, of each token.
    """
    r, mask, rewards = batch.rollout, batch.loss_mask, batch.rewards  # (S, G, T) and (S, G)
    advantages, counted, extras = None, {}, {}
    penalty = torch.zeros_like(r.logprobs)  # (S, G, T)
    if reference is not None:
        log_reference = per_token(reference, r, budget)  # (S, G, T)
        counted["kl"] = float((kl_estimate(r.logprobs, log_reference, "k3") * mask).sum())
        if method.kl_in == "loss":
            extras["reference"] = log_reference
        else:
            penalty = method.kl_coef * kl_estimate(r.logprobs, log_reference, method.kl) * mask
    if critic is not None:
        values = per_token(unwrapped(critic), r, budget).to(rewards.dtype)  # (S, G, T)
        is_last = mask.bool() & (mask.cumsum(dim=2) == mask.sum(dim=2, keepdim=True))  # (S, G, T)
        token_rewards = rewards[:, :, None] * is_last - penalty  # (S, G, T)
        advantages, extras["returns"] = gae(token_rewards, values, mask, method.gae_lambda)
        if method.f_norm == "batch":
            advantages = whiten(advantages, mask)
        counted["value_error"] = float((((values - extras["returns"]) ** 2) * mask).sum())
    elif method.algo == "sft":
        advantages = torch.ones_like(mask, dtype=rewards.dtype)
    elif method.baseline != "group" or (reference is not None and method.kl_in == "reward"):
        scored = mask.bool().any(dim=2)  # (S, G)
        penalised = fill_left_out(rewards - penalty.sum(dim=2).to(rewards.dtype), ~scored)
        options = {"greedy": batch.greedy, "scored": scored}
        advantages = baseline_advantages(penalised, method.baseline, method.f_norm, **options)[:, :, None]
    if extras:
        norm = "token" if method.norm == "valid_token" else method.norm
        scale = token_scale(rewards, mask, age=False, norm=norm, max_len=method.max_new_tokens)
        extras["scale"] = scale[:, :, None] * mask  # (S, G, T): a mean over all tokens, whatever their reward
    sums = replace(batch.sums, methods=counted | {"tokens": float(mask.sum())}) if counted else batch.sums
    return replace(batch, advantages=advantages, extras=extras, sums=sums)


def backward(policy: Module, share: Share, method: Method, budget: int, grad_clip: float, first=True) -> Gradient:
    """train.backward for a loss that is not just weights * logprobs: clipped ratios, a KL term. Arguments as there.

    Updates after the `first` on the same samples clip their ratios to the log-probabilities of the first, which are
    left in share.extras["old"]; then share.extras["clipped"] is 1 on tokens whose gradient the clip zeroed.
    """
    extras, sampled = share.extras, share.rollout.logprobs  # (S, G, T)
    clips = bool(method.clip) and not first  # in the first update every ratio is 1
    is_linear = not clips and "reference" not in extras  # then the gradient is known before the forward
    if method.clip and method.updates > 1:
        extras["old"], extras["clipped"] = extras.get("old", torch.zeros_like(sampled)), torch.zeros_like(sampled)
    loss, gap = share.weights.new_zeros(()), share.weights.new_zeros(())
    for micro_batch in micro_steps(policy, share, budget):
        w = gather_tokens(share.weights, micro_batch)  # (M,)
        with micro_batch.context:
            logprobs = policy(*micro_batch.samples, grad=-w if is_linear else None)  # (M,)
            if clips:
                old = gather_tokens(extras["old"], micro_batch)  # (M,)
                objective, clipped = clipped_objective(logprobs, old, w, method.clip)  # (M,)
            part = -(objective if clips else w * logprobs).sum()
            if "reference" in extras and micro_batch.rows is not None:
                kl = kl_estimate(logprobs, gather_tokens(extras["reference"], micro_batch), method.kl)  # (M,)
                part = part + method.kl_coef * (gather_tokens(extras["scale"], micro_batch) * kl).sum()
            part.backward()
        loss += part.detach()
        if micro_batch.rows is None:
            continue
        gap = torch.maximum(gap, (logprobs.detach() - gather_tokens(sampled, micro_batch)).abs().max())
        if clips:
            scatter_tokens(clipped, micro_batch, extras["clipped"])
        elif "old" in extras:
            scatter_tokens(logprobs.detach(), micro_batch, extras["old"])
    norm = clip_gradient(policy, grad_clip).to(loss)
    return Gradient(*torch.stack([norm, loss, gap]).tolist())


def more_updates(
    policy: Module, critic: Module | None, optimizer: Optimizer, share: Share, method: Method, lr: float, **limits
) -> dict[str, float]:
    """The updates after the first on the same samples -> {"clipped_share"}: of the last one's tokens, if any clip."""
    for _ in range(method.updates - 1 if share.count else 0):
        gradient = backward(policy, share, method, **limits, first=False)
        of_critic = fit_critic(critic, share, **limits)
        loss = global_sum(torch.tensor(gradient.loss, dtype=torch.float64, device=share.weights.device))
        take_step(optimizer, lr, learn=gradient._replace(loss=float(loss) + of_critic).is_finite())
    if method.updates == 1 or not method.clip:
        return {}
    clipped = float(global_sum(share.extras["clipped"].double().sum())) if share.count else 0.0
    return {"clipped_share": clipped / max(1, share.tokens)}


class Critic(Module):
    """The value of the text before each completion token: a copy of the model, and a linear head.

    The head begins at zero, so the first advantages are those without a critic.
    """

    def __init__(self, model, dtype: str = "float32"):
        super().__init__()
        self.model, self.dtype = body(model), dtype
        width = model.get_output_embeddings().weight.shape[1]
        self.head = torch.nn.Linear(width, 1, device=model.device, dtype=model.dtype)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        allow_caches(self.model)
        self.shared, self.forward_tokens = prompts_can_be_shared(self.model), FORWARD_TOKENS

    def forward(self, *samples: torch.Tensor) -> torch.Tensor:
        """Samples as Policy.forward -> values (M,), in the weights' dtype: a value has few digits to lose."""
        with autocast(self.dtype, samples[0].device):
            options = {"shared": self.shared, "forward_tokens": self.forward_tokens}
            states = completion_states(self.model, *samples, **options)  # (M, D)
            return (states.to(self.head.weight.dtype) * self.head.weight).sum(dim=1) + self.head.bias


def fit_critic(critic: Module | None, share: Share, budget: int, grad_clip: float) -> float:
    """The gradient of the values' squared error, (V - return)^2 / 2 per token (Eq. 21), with a clip of its own -> its
    norm before that, which must be finite for a step."""
    if critic is None:
        return 0.0
    for micro_batch in micro_steps(critic, share, budget):
        with micro_batch.context:
            error = critic(*micro_batch.samples) - gather_tokens(share.extras["returns"], micro_batch)  # (M,)
            (gather_tokens(share.extras["scale"], micro_batch) * error**2 / 2).sum().backward()
    return float(clip_gradient(critic, grad_clip))


def demonstrations(model, tokenizer, prompts: list[list[int]], solutions: list[list[int]]) -> Rollout:
    """Prompts and solutions (token ids, P lists) as if each solution and then EOS had been sampled: (P, 1, T).

    Their logprobs are NaN, as they were never drawn.
    """
    pad_token, ends = pad_id(model, tokenizer), eos_ids(model, tokenizer)
    end = ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    backwards = pad_left([[end, *reversed(solution)] for solution in solutions], pad_token, model.device)
    ids, mask = (x.flip(1)[:, None] for x in backwards)  # (P, 1, T), padded right
    wide = torch.promote_types(model.dtype, torch.float32)
    return Rollout(
        *pad_left(prompts, pad_token, model.device),
        completion_ids=ids,
        completion_mask=mask,
        logprobs=torch.full_like(ids, torch.nan, dtype=wide),
        truncated=torch.zeros_like(ids[:, :, 0], dtype=torch.bool),
    )
