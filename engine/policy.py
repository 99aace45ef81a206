"""The log-probabilities of completions under the model that is trained, and their gradient, at the least work.

What the method does not need is not computed. A prompt goes through the model once a group, not once a sample: its keys
and values stay in the graph, and the group's completions go on from them, so G * (prompt + completion) tokens become
prompt + G * completion, with the same gradient. Logits are made of completion tokens only, in slices (gpg.py).
Completions go through by length, in as many forwards as padding makes worth it.

Letters: N samples of p prompts, L prompt tokens (padded left), T completion tokens (padded right), M completion tokens
of all N samples (no padding), D hidden width, V vocabulary.
"""

import inspect
from functools import partial

import torch
from torch.overrides import TorchFunctionMode
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from gpg import sliced_logprobs, token_logprobs
from rollout import Rollout, eval_mode

FORWARD_TOKENS = 256  # a forward pass more is worth it where it saves so many padded tokens


class Policy(torch.nn.Module):
    """Samples in, log-probabilities out. DistributedDataParallel wraps it: every trained forward must go through that.

    shared: a prompt is forwarded once for all its samples; not if a model's cache can't (it is tried, on a few tokens).
    sliced: logits are the output layer times hidden states, and never made whole; not with a soft cap or a scale.
    """

    def __init__(self, model, temperature: float):
        super().__init__()
        self.model, self.temperature = model, temperature
        for module in model.modules():  # our caches are the same when a layer is run again, see _Prompts
            if isinstance(module, GradientCheckpointingLayer):
                module._can_checkpoint_with_cache = True
        self.uniform = False  # whether every forward must run the model's layers as often: twice
        self.sliced = output_is_linear(model)
        self.shared = prompts_can_be_shared(model)

    def forward(
        self,
        prompt_ids: torch.Tensor,  # (p, L)
        prompt_mask: torch.Tensor,  # (p, L)
        completion_ids: torch.Tensor,  # (N, T), the longest first
        completion_mask: torch.Tensor,  # (N, T)
        prompt_of: torch.Tensor,  # (N,): which of the prompts a completion is of
        grad: torch.Tensor | None = None,  # (M,)
    ) -> torch.Tensor:
        """log pi of the M completion tokens, (M,) float32 or wider, in the order of completion_ids[completion_mask].

        grad: d loss / d log pi, where it is known beforehand: saves making the logits twice.
        """
        samples = prompt_ids, prompt_mask, completion_ids, completion_mask, prompt_of
        options = {"shared": self.shared, "uniform": self.uniform, "logits": not self.sliced}
        states = completion_states(self.model, *samples, **options)  # (M, D) or (M, V)
        ids = completion_ids[completion_mask.bool()]  # (M,)
        if not self.sliced:
            return token_logprobs(states, ids, self.temperature)
        head = self.model.get_output_embeddings()
        options = {"bias": getattr(head, "bias", None), "temperature": self.temperature, "grad": grad}
        return sliced_logprobs(states, head.weight, ids, **options)


def completion_states(
    model,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    prompt_of: torch.Tensor,
    *,
    shared: bool = True,
    uniform: bool = False,
    logits: bool = False,
) -> torch.Tensor:
    """The last hidden states that predict the completion tokens, (M, D); arguments as Policy.forward.

    shared: each prompt once, else once a sample: the same numbers. uniform: all completions in one forward, and one
    even if they have a token each. logits: the model's logits (M, V) in their place.
    """
    forward = _forward(model, logits)
    if shared:
        prompts = Cache(layer_class_to_replicate=_Prompts)
        last = forward(prompt_ids, prompt_mask, last=1, cache=prompts)[:, 0]  # (p, D): predicts the first tokens
    lengths = completion_mask.sum(dim=1).tolist()  # (N,)
    assert lengths == sorted(lengths, reverse=True), "completion_states: the longest completion goes first"
    pieces = []
    for start, stop in [(0, len(lengths))] if uniform else cut_by_length(lengths):
        T, of = lengths[start], prompt_of[start:stop]
        fed = max(T - 1, int(uniform))  # the last id predicts nothing
        ids, mask = completion_ids[start:stop, :fed], completion_mask[start:stop, :T]
        seen = torch.cat([prompt_mask[of], completion_mask[start:stop, :fed]], dim=1)  # (n, L + T - 1)
        if not shared:
            states = forward(torch.cat([prompt_ids[of], ids], dim=1), seen, last=T)  # (n, T, D)
        elif fed == 0:
            states = last[of][:, None]  # (n, 1, D)
        else:
            cache = Cache(layers=[_Completions(layer, of) for layer in prompts.layers])
            states = torch.cat([last[of][:, None], forward(ids, seen, cache=cache)], dim=1)[:, :T]  # (n, T, D)
        pieces.append(states[mask.bool()])
    return torch.cat(pieces)  # (M, D)


def _forward(model, logits: bool):
    """A function: ids (n, t), the mask of all that they see (n, s >= t) -> the model's states or logits, of the last.

    Positions count tokens, not padding, as in sampling: learned positions (GPT-2) would be off by it otherwise.
    """
    module = model if logits else model.base_model
    accepted = inspect.signature(module.forward).parameters

    def forward(ids, mask, last=None, **options):
        last = last or ids.shape[1]
        if "position_ids" in accepted:
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = last
        out = module(input_ids=ids, attention_mask=mask, use_cache=False, **options)
        return (out.logits if logits else out.last_hidden_state)[:, -last:]

    return forward


class _Prompts(DynamicLayer):
    """A layer's keys and values (p, H, L, d) of the prompts, in the graph.

    Gradient checkpointing runs a layer again in the backward pass, and the update too: so it sets, and adds nothing.
    """

    def update(self, key_states, value_states, *_, **__):
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _Completions(DynamicLayer):
    """What completions (n,) see in a layer: their prompt's keys and values, and their own, which need no keeping."""

    def __init__(self, prompts: _Prompts, prompt_of: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.is_initialized, self.prompt_of = prompts.keys, prompts.values, True, prompt_of

    def update(self, key_states, value_states, *_, **__):
        of = self.prompt_of
        return torch.cat([self.keys[of], key_states], dim=2), torch.cat([self.values[of], value_states], dim=2)


@torch.no_grad()
def output_is_linear(model) -> bool:
    """Whether logits are the output layer times the last hidden states; not so with a soft cap or a scale."""
    samples = trial(model)
    with eval_mode(model):  # dropout would make two forwards differ
        hidden = completion_states(model, *samples, shared=False)
        logits = completion_states(model, *samples, shared=False, logits=True)
    return torch.allclose(model.get_output_embeddings()(hidden), logits, rtol=1e-4, atol=1e-5)


def prompts_can_be_shared(model) -> bool:
    """Whether the states of completions that go on from their prompt's keys and values are those of whole forwards.

    Tried in the mode that the model is in, as gradient checkpointing may drop a cache. Recurrent layers fail here: they
    keep another kind of state.
    """
    samples = trial(model)
    try:
        shared, whole = (completion_states(model, *samples, shared=shared).detach() for shared in (True, False))
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return bool(torch.linalg.norm(shared - whole) <= 1e-3 * torch.linalg.norm(whole))


def trial(model) -> tuple[torch.Tensor, ...]:
    """Three completions of two prompts, as arguments of Policy.forward: padding on both sides, a shared prompt."""
    prompt_mask = torch.tensor([[1, 1, 1], [0, 1, 1]], device=model.device)
    completion_mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]], device=model.device)
    prompt_of = torch.tensor([0, 1, 0], device=model.device)
    ids = torch.arange(15, device=model.device) % model.config.get_text_config().vocab_size
    return ids[:6].view(2, 3), prompt_mask, ids[6:].view(3, 3), completion_mask, prompt_of


def keep_float64(model) -> None:
    """Lets no module of a float64 model round to float32, as transformers' norms do whatever the dtype of the model.

    So a gradient is the same to 1e-10 however the batch is cut: a sum of rounded parts is not the rounded sum.
    """

    def kept(forward, *args, **kwargs):
        with _KeepFloat64():
            return forward(*args, **kwargs)

    for module in model.modules():
        if not any(module.children()):
            module.forward = partial(kept, module.forward)


class _KeepFloat64(TorchFunctionMode):
    """A cast of float64 to float32 does nothing."""

    def __torch_function__(self, function, _, args=(), kwargs=None):
        casts = function is torch.Tensor.to and torch.float32 in args or function is torch.Tensor.float
        if casts and args[0].dtype == torch.float64:
            return args[0]
        return function(*args, **(kwargs or {}))


def sample_rows(r: Rollout, samples: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Samples (N,), in 0..P*G-1, the longest first, as arguments of Policy.forward: without common padding."""
    prompts, prompt_of = torch.unique(samples // r.truncated.shape[1], return_inverse=True)  # (p,), (N,)
    prompt_mask, completion_mask = r.prompt_mask[prompts], r.completion_mask.flatten(0, 1)[samples]
    L, T = int(prompt_mask.sum(dim=1).max()), int(completion_mask.sum(dim=1).max())
    completion_ids = r.completion_ids.flatten(0, 1)[samples]
    return r.prompt_ids[prompts][:, -L:], prompt_mask[:, -L:], completion_ids[:, :T], completion_mask[:, :T], prompt_of


def cut_by_length(lengths: list[int]) -> list[tuple[int, int]]:
    """Lengths (N), the longest first -> (start, stop) of forwards, cut where that saves FORWARD_TOKENS of padding."""
    cuts = [0]
    for i, length in enumerate(lengths):
        if (lengths[cuts[-1]] - length) * (len(lengths) - i) > FORWARD_TOKENS:
            cuts.append(i)
    return list(zip(cuts, [*cuts[1:], len(lengths)], strict=True))


def micro_batches(r: Rollout, samples: torch.Tensor, budget: int, *, shared: bool = True) -> list[torch.Tensor]:
    """Samples (N,) cut so that the padded tokens of a forward of each are within the budget; each the longest first.

    Groups stay whole where they fit, so that their prompt is forwarded once; they go by their longest completion. A
    sample longer than the budget goes alone.
    """
    of = (samples // r.truncated.shape[1]).tolist()  # (N,)
    prompt_lengths, lengths = (
        r.prompt_mask.sum(dim=1).tolist(),
        r.completion_mask.flatten(0, 1).sum(dim=1)[samples].tolist(),
    )

    def fits(rows: list[int]) -> bool:
        prompts = {of[i] for i in rows} if shared else [of[i] for i in rows]
        longest = max(prompt_lengths[p] for p in prompts)
        by_length = sorted((lengths[i] for i in rows), reverse=True)
        completions = sum((stop - start) * by_length[start] for start, stop in cut_by_length(by_length))
        return len(prompts) * longest + completions <= budget

    def halved(rows: list[int]) -> list[list[int]]:
        middle = len(rows) // 2
        return [rows] if len(rows) == 1 or fits(rows) else halved(rows[:middle]) + halved(rows[middle:])

    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        groups.setdefault(of[i], []).append(i)
    pieces: list[list[int]] = []
    for rows in [part for group in groups.values() for part in halved(group)]:
        if pieces and fits(pieces[-1] + rows):
            pieces[-1] += rows
        else:
            pieces.append(rows)
    return [samples[sorted(rows, key=lengths.__getitem__, reverse=True)] for rows in pieces]
