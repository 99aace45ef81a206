"""The log-probabilities of completions under the trained model, and their gradient, at the least work.

A prompt goes through the model once per group: its keys and values stay in the graph and the group's completions attend
to them, so G * (prompt + completion) tokens become prompt + G * completion, with the same gradient. Logits are made for
completion tokens only, in slices (output_layer.py). Completions are batched by length.

Letters: N samples of p prompts, L prompt tokens (padded left), T completion tokens (padded right), M completion tokens
of all N samples (no padding), D hidden width, V vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.output_layer import SLICE_LOGITS, sliced_logprobs, token_logprobs
from rollout import Pictures, eval_mode, picture_inputs

FORWARD_TOKENS = 256  # one more forward pass is worth it where it saves this many padded tokens, on a CPU


class Policy(torch.nn.Module):
    """Samples in, log-probabilities out. DistributedDataParallel wraps it: every trained forward must go through that.

    temperature: of the log-probabilities, as in sampling. dtype: of matrix products, "bfloat16" over float32 weights.
    features: from a prompt's encoded pictures to the model's inputs; None for text models. Trials of the model show if
    a prompt can be forwarded once for all its samples (shared), and if logits need not be made whole (sliced).
    """

    def __init__(self, model, temperature: float, dtype: str = "float32", features: Callable | None = None):
        super().__init__()
        self.model, self.temperature, self.dtype, self.features = model, temperature, dtype, features
        allow_caches(model)
        self.partial = features is not None  # whether a forward may miss a tower, or an expert
        self.uniform = False  # fsdp: every forward runs each layer exactly twice
        self.exchanges = True  # whether ranks sum their gradients after the next forward, see parallel.accumulating
        self.forward_tokens, self.slice_logits = FORWARD_TOKENS, SLICE_LOGITS  # of a CPU, see run/ranks.py
        self.copies = []  # what sampling reads in place of the model; a list, as it is no part of the module
        self.sliced, self.shared = output_is_linear(model), prompts_can_be_shared(model)

    def forward(
        self,
        prompt_ids: torch.Tensor,  # (p, L)
        prompt_mask: torch.Tensor,  # (p, L)
        completion_ids: torch.Tensor,  # (N, T), the longest first
        completion_mask: torch.Tensor,  # (N, T)
        prompt_of: torch.Tensor,  # (N,): the prompt of each completion
        images: Sequence[Pictures] = (),  # p, or none
        grad: torch.Tensor | None = None,  # (M,)
    ) -> torch.Tensor:
        """log pi of the M completion tokens, (M,) float32 or wider, in the order of completion_ids[completion_mask].

        grad: d loss / d log pi, if it is known beforehand: see sliced_logprobs.
        """
        samples = prompt_ids, prompt_mask, completion_ids, completion_mask, prompt_of
        ids = completion_ids[completion_mask.bool()]  # (M,)
        with autocast(self.dtype, ids.device):
            options = {"shared": self.shared, "uniform": self.uniform, "logits": not self.sliced}
            options["forward_tokens"] = self.forward_tokens
            features = [self.features(x.encoded) if x.encoded else {} for x in images]
            states = completion_states(self.model, *samples, features, **options)  # (M, D) or (M, V)
            if self.partial and self.exchanges and torch.is_grad_enabled() and not self.uniform:
                # DistributedDataParallel waits for every parameter, also those of a tower that saw no picture
                states = states + 0 * sum(p.flatten()[0] for p in self.model.parameters() if p.requires_grad)
            if not self.sliced:
                return token_logprobs(states, ids, self.temperature)
            head = self.model.get_output_embeddings()
            options = {"temperature": self.temperature, "slice_tokens": max(1, self.slice_logits // len(head.weight))}
            return sliced_logprobs(states, head.weight, ids, bias=getattr(head, "bias", None), grad=grad, **options)


def allow_caches(model) -> None:
    """Gradient checkpointing drops a cache, but ours stay the same when a layer is run again, see _Prompts."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module._can_checkpoint_with_cache = True


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """bfloat16 matrix products over float32 weights, if dtype is "bfloat16"; in sampling and in training alike."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def completion_states(
    model,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    prompt_of: torch.Tensor,
    images: Sequence[dict[str, torch.Tensor]] = (),
    *,
    shared: bool = True,
    uniform: bool = False,
    logits: bool = False,
    forward_tokens: int = FORWARD_TOKENS,
) -> torch.Tensor:
    """The last hidden states that predict the completion tokens, (M, D); arguments as Policy.forward.

    shared: each prompt once, not once per sample: the same numbers. uniform: all completions in one forward, even if
    they have one token each. logits: the model's logits (M, V) in their place. images: the features of each prompt's
    pictures, or none at all. forward_tokens: see cut_by_length.

    Positions count tokens, not padding, as in sampling. In a picture they are the model's own; a completion continues
    from its prompt's last position, on all axes by one.
    """
    forward = _forward(model, logits)
    assert shared or not any(images)  # an image token that a completion drew would be taken for one more picture
    seen = picture_inputs(model, prompt_ids, images) if any(images) else {}
    positions = prompt_positions(model, prompt_ids, prompt_mask, seen)  # (p, L), or (axes, p, L)
    if shared:
        prompts = Cache(layer_class_to_replicate=_Prompts)
        # (p, D): predicts the first tokens
        last = forward(prompt_ids, prompt_mask, positions, last=1, cache=prompts, **seen)[:, 0]
    lengths = completion_mask.sum(dim=1).tolist()  # (N,)
    assert lengths == sorted(lengths, reverse=True), "completion_states: the longest completion goes first"
    pieces = []
    for start, stop in [(0, len(lengths))] if uniform else cut_by_length(lengths, forward_tokens):
        T, parents = lengths[start], prompt_of[start:stop]  # (n,)
        fed = max(T - 1, int(uniform))  # the last id predicts nothing
        ids, mask = completion_ids[start:stop, :fed], completion_mask[start:stop, :T]
        attended = torch.cat([prompt_mask[parents], completion_mask[start:stop, :fed]], dim=1)  # (n, L + T - 1)
        further = positions[..., parents, -1:] + torch.arange(1, fed + 1, device=ids.device)  # (n, T - 1)
        if not shared:
            at = torch.cat([positions[..., parents, :], further], dim=-1)
            ids = torch.cat([prompt_ids[parents], ids], dim=1)
            states = forward(ids, attended, at, last=fed + 1)[:, :T]  # (n, T, D)
        elif fed == 0:
            states = last[parents][:, None]  # (n, 1, D)
        else:
            cache = Cache(layers=[_Completions(layer, parents) for layer in prompts.layers])
            types = {name: torch.zeros_like(ids) for name in {"mm_token_type_ids"} & seen.keys()}
            states = forward(ids, attended, further, cache=cache, **types)
            states = torch.cat([last[parents][:, None], states], dim=1)[:, :T]  # (n, T, D)
        pieces.append(states[mask.bool()])
    states = torch.cat(pieces)  # (M, D)
    # under fsdp the vision tower needs a gradient on every rank, also for a picture without completions: micro_steps
    return states + 0 * last.sum() if uniform and seen else states


def _forward(model, logits: bool):
    """A function: ids (n, t), mask (n, s >= t) of all they attend to, positions (n, t) -> last states or logits."""
    module = model if logits else body(model)
    accepted = inspect.signature(module.forward).parameters

    def forward(ids, mask, positions, last=None, **options):
        last = last or ids.shape[1]
        if "position_ids" in accepted:
            options["position_ids"] = positions
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = last
        out = module(input_ids=ids, attention_mask=mask, use_cache=False, **options)
        return (out.logits if logits else out.last_hidden_state)[:, -last:]

    return forward


def body(model):
    """The model without its output layer. Some say that base_model is the whole (Llama 4's part for text)."""
    return getattr(model, "model", model) if model.base_model is model else model.base_model


def prompt_positions(model, ids: torch.Tensor, mask: torch.Tensor, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """The positions (p, L) that generate gives to prompts; (axes, p, L) where a model has several axes for pictures."""
    if not hasattr(model, "_prepare_position_ids_for_generation"):  # a critic's model, without its output layer
        return (mask.cumsum(dim=1) - 1).clamp(min=0)
    return model._prepare_position_ids_for_generation(ids, {"input_ids": ids, "attention_mask": mask, **seen})


class _Prompts(DynamicLayer):
    """A layer's keys and values (p, H, L, d) of the prompts, in the graph.

    Gradient checkpointing runs a layer, and so this update, again in the backward pass: it sets and never appends.
    """

    def update(self, key_states, value_states, *_, **__):
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _Completions(DynamicLayer):
    """What completions (n,) see in a layer: their prompt's keys and values, then their own, which are not stored."""

    def __init__(self, prompts: _Prompts, parents: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.is_initialized, self.parents = prompts.keys, prompts.values, True, parents

    def update(self, key_states, value_states, *_, **__):
        pairs = (self.keys, key_states), (self.values, value_states)
        return tuple(torch.cat([prompts[self.parents], own], dim=2) for prompts, own in pairs)


@torch.no_grad()
def output_is_linear(model) -> bool:
    """Whether logits are the output layer times the last hidden states; not so with a soft cap or a scale."""
    samples = trial(model)
    with eval_mode(model):  # dropout would make two forwards differ
        hidden = completion_states(model, *samples, shared=False)
        logits = completion_states(model, *samples, shared=False, logits=True)
    return torch.allclose(model.get_output_embeddings()(hidden), logits, rtol=1e-4, atol=1e-5)


def prompts_can_be_shared(model) -> bool:
    """Whether completions that continue from their prompt's keys and values have the states of complete forwards.

    Tried in the model's present mode, as gradient checkpointing may drop a cache. Recurrent layers fail here.
    """
    samples = trial(model)
    try:
        shared, plain = (completion_states(model, *samples, shared=shared).detach() for shared in (True, False))
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return bool(torch.linalg.norm(shared - plain) <= 1e-3 * torch.linalg.norm(plain))


def unreached(policy: Policy) -> dict[str, torch.nn.Parameter]:
    """The trained parameters that no gradient of a text reaches, by name. There is no backward, which takes memory."""
    nodes, seen = [policy(*trial(policy.model)).grad_fn], {None}
    while nodes:
        if (node := nodes.pop()) not in seen:
            seen.add(node)
            nodes += [below for below, _ in node.next_functions]
    reached = {id(getattr(node, "variable", None)) for node in seen}
    return {name: p for name, p in policy.named_parameters() if p.requires_grad and id(p) not in reached}


def trial(model) -> tuple[torch.Tensor, ...]:
    """Three completions of two prompts, as arguments of Policy.forward: padding on both sides, a shared prompt."""
    prompt_mask = torch.tensor([[1, 1, 1], [0, 1, 1]], device=model.device)
    completion_mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]], device=model.device)
    prompt_of = torch.tensor([0, 1, 0], device=model.device)
    ids = torch.arange(15, device=model.device) % model.config.get_text_config().vocab_size
    return ids[:6].view(2, 3), prompt_mask, ids[6:].view(3, 3), completion_mask, prompt_of


def cut_by_length(lengths: list[int], forward_tokens: int = FORWARD_TOKENS) -> list[tuple[int, int]]:
    """Lengths (N), the longest first -> (start, stop) of each forward, cut where it saves so many tokens of padding."""
    cuts = [0]
    for i, length in enumerate(lengths):
        if (lengths[cuts[-1]] - length) * (len(lengths) - i) > forward_tokens:
            cuts.append(i)
    return list(zip(cuts, [*cuts[1:], len(lengths)], strict=True))
