"""Prompts in, completions out, through HF generate; and the hidden states behind a completion's log-probabilities.

A completion is a function of (seed, step, round, index of its prompt, index of the sample) and of the model: not of the
batch it sat in, the number of ranks, or a restart. Each sample owns a stream of uniform numbers, one a token, and a
token is the inverse of the CDF of softmax(logits / temperature) at its number. So the work can be cut in any way:

    prefill P prompts once -> repeat the cache G times -> decode a slice of tokens -> finished rows leave -> decode ...

Letters: P prompts, G samples of each, L prompt tokens (padded left), T completion tokens (padded right), N rows, V
vocabulary, D hidden width.
"""

import inspect
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig


@dataclass(frozen=True)
class Rollout:
    """What was sampled. Token ids in and out: no completion is ever decoded and encoded again."""

    prompt_ids: torch.Tensor  # (P, L), padded left
    prompt_mask: torch.Tensor  # (P, L), 1 on tokens
    completion_ids: torch.Tensor  # (P, G, T), padded right
    completion_mask: torch.Tensor  # (P, G, T), 1 up to and including the first EOS
    logprobs: torch.Tensor  # (P, G, T) float32, of the drawn tokens under softmax(logits / temperature); 0 on padding
    truncated: torch.Tensor  # (P, G) bool: max_new_tokens reached without an EOS


@torch.no_grad()
def rollout(
    model,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    *,
    key: tuple[int, ...] = (0,),
    indices: Sequence[int] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_samples: int = 256,
    slice_tokens: int = 16,
) -> Rollout:
    """Draws group_size completions of each prompt (token ids, P lists) of at most max_new_tokens tokens.

    key, indices: sample g of prompt p draws from the stream of (*key, indices[p], g); key is (seed, step, round) in
    training and indices the prompts' places in the round (default 0..P-1). temperature 0 is greedy (log-probabilities
    are then those at 1). top_p, top_k (1 and 0: off) restrict what is drawn; logprobs stay those of the whole softmax.
    max_samples: rows decoded at once (a group at least), which bounds the cache. slice_tokens: finished rows leave
    after so many tokens. Stops at any EOS id of the model. Nothing else is inherited from the model's
    generation_config. The model samples in eval mode and is put back after. P may be 0.
    ValueError: an empty prompt, an option out of range, a cache that can't be reordered. FloatingPointError: logits
    that are not finite.
    """
    _check_options(prompts, group_size, max_new_tokens, temperature, top_p, top_k)
    G, T = group_size, max_new_tokens
    indices = range(len(prompts)) if indices is None else indices
    eos, pad = eos_ids(model, tokenizer), pad_id(model, tokenizer)
    uniforms = torch.from_numpy(_uniforms(key, indices, G, T)).to(model.device)  # (P, G, T) float64

    completion_ids = torch.full((len(prompts), G, T), pad, device=model.device)  # (P, G, T)
    logprobs = torch.zeros((len(prompts), G, T), device=model.device)  # (P, G, T)
    by_length = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))  # little padding inside a batch
    prompts_at_once = max(1, max_samples // G)
    with _sampling_mode(model, eos, pad):
        for start in range(0, len(prompts), prompts_at_once):
            chunk = by_length[start : start + prompts_at_once]
            ids, mask = pad_left([prompts[p] for p in chunk], pad, model.device)  # (p, L)
            options = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
            tokens, token_logprobs = _decode(model, ids, mask, uniforms[chunk], eos, pad, slice_tokens, options)
            completion_ids[chunk], logprobs[chunk] = tokens, token_logprobs

    ends = torch.isin(completion_ids, torch.tensor(eos, device=model.device))  # (P, G, T)
    # an EOS ends the completion and belongs to it: trained on, or the model would not learn to stop
    completion_mask = (ends.cumsum(dim=2) - ends.long() == 0).long()  # (P, G, T)
    longest = int(completion_mask.sum(dim=2).max()) if len(prompts) else 0
    logprobs = logprobs * completion_mask
    if not bool(logprobs.isfinite().all()):
        raise FloatingPointError("the model's logits are not finite: its weights are damaged, or a value overflowed")
    return Rollout(
        *pad_left(prompts, pad, model.device),
        completion_ids=completion_ids.where(completion_mask.bool(), pad)[:, :, :longest],
        completion_mask=completion_mask[:, :, :longest],
        logprobs=logprobs[:, :, :longest],
        truncated=~ends.any(dim=2),
    )


def draw(
    logits: torch.Tensor,  # (N, V)
    uniforms: torch.Tensor,  # (N,) float64 in [0, 1)
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverts the CDF of softmax(logits / temperature) at one number a row -> token ids, log-probabilities (N,)."""
    scaled = logits / (temperature or 1.0)
    scaled -= scaled.amax(dim=-1, keepdim=True)
    mass = scaled.exp()  # (N, V), not normalised: the sum is only needed where it is compared with
    if temperature == 0:
        tokens = scaled.argmax(dim=-1)  # (N,)
    else:
        # float64: in float32 the steps of the CDF near 1 are coarser than many tokens of a large vocabulary are likely
        cdf = _truncate(mass, top_p, top_k).cumsum(dim=-1, dtype=torch.float64)  # (N, V)
        # right=True: the first token whose CDF exceeds the number, so never one of mass 0
        tokens = torch.searchsorted(cdf, (uniforms * cdf[:, -1])[:, None], right=True).squeeze(1)  # (N,)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)  # only logits that are NaN reach past the end
    logprobs = scaled.gather(1, tokens[:, None]).squeeze(1) - mass.sum(dim=-1).log()
    return tokens, logprobs


def completion_hidden(
    model,
    prompt_ids: torch.Tensor,  # (N, L)
    prompt_mask: torch.Tensor,  # (N, L)
    completion_ids: torch.Tensor,  # (N, T)
    completion_mask: torch.Tensor,  # (N, T)
) -> torch.Tensor:
    """The model's last hidden states where completion tokens are predicted, (N, T, D): one before each of them.

    Times the output layer they are the logits of the completion, and of nothing else.
    """
    inputs = _inputs(model, prompt_ids, prompt_mask, completion_ids, completion_mask)
    return model.base_model(**inputs).last_hidden_state[:, prompt_ids.shape[1] - 1 :]


def completion_logits(model, prompt_ids, prompt_mask, completion_ids, completion_mask) -> torch.Tensor:
    """The logits (N, T, V) of the completion tokens, made by the model itself; arguments as completion_hidden."""
    inputs = _inputs(model, prompt_ids, prompt_mask, completion_ids, completion_mask)
    return model(**inputs).logits[:, prompt_ids.shape[1] - 1 :]


@torch.no_grad()
def output_is_linear(model) -> bool:
    """Whether logits are the output layer times the last hidden states; not so with a soft cap or a scale."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size  # (1, 4)
    ones = torch.ones_like(ids)
    with _eval_mode(model):  # dropout would make two forwards differ
        hidden = completion_hidden(model, ids, ones, ids, ones)
        logits = completion_logits(model, ids, ones, ids, ones)
    return torch.allclose(model.get_output_embeddings()(hidden), logits, rtol=1e-4, atol=1e-5)


def _inputs(model, prompt_ids, prompt_mask, completion_ids, completion_mask) -> dict:
    """Prompt and completion as the model's inputs, without the last token, which predicts nothing.

    Positions count tokens, not padding, as in sampling: learned positions (GPT-2) would be off by it otherwise.
    """
    mask = torch.cat([prompt_mask, completion_mask[:, :-1]], dim=1)  # (N, L + T - 1)
    inputs = {"input_ids": torch.cat([prompt_ids, completion_ids[:, :-1]], dim=1), "attention_mask": mask}
    if "position_ids" in inspect.signature(model.base_model.forward).parameters:
        inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return inputs | {"use_cache": False}


def sample_rows(r: Rollout, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples (N,), in 0..P*G-1, without common padding: prompt ids and mask (N, L), completion ids and mask (N, T)."""
    prompt = samples // r.completion_ids.shape[1]
    prompt_mask, completion_mask = r.prompt_mask[prompt], r.completion_mask.flatten(0, 1)[samples]
    L, T = int(prompt_mask.sum(dim=1).max()), int(completion_mask.sum(dim=1).max())
    completion_ids = r.completion_ids.flatten(0, 1)[samples]
    return r.prompt_ids[prompt][:, -L:], prompt_mask[:, -L:], completion_ids[:, :T], completion_mask[:, :T]


def micro_batches(sampled: Rollout, samples: torch.Tensor, budget: int) -> list[torch.Tensor]:
    """Samples (N,) by length, longest first, cut so that rows * (longest prompt + longest completion) <= budget.

    A sample longer than the budget goes alone.
    """
    prompt = sampled.prompt_mask.sum(dim=1)[samples // sampled.truncated.shape[1]]  # (N,)
    completion = sampled.completion_mask.flatten(0, 1).sum(dim=1)[samples]  # (N,)
    pieces, widths = [], (0, 0)
    for i in (prompt + completion).argsort(descending=True, stable=True).tolist():
        widened = max(widths[0], int(prompt[i])), max(widths[1], int(completion[i]))
        if pieces and (len(pieces[-1]) + 1) * sum(widened) <= budget:
            pieces[-1].append(i)
            widths = widened
        else:
            pieces.append([i])
            widths = int(prompt[i]), int(completion[i])
    return [samples[piece] for piece in pieces]


def join(rollouts: Sequence[Rollout]) -> Rollout:
    """Several rollouts of the same G as one, in order: prompts padded left, completions right, to the longest."""
    L = max(r.prompt_ids.shape[1] for r in rollouts)
    T = max(r.completion_ids.shape[2] for r in rollouts)

    def left(x):
        return torch.nn.functional.pad(x, (L - x.shape[-1], 0))

    def right(x):
        return torch.nn.functional.pad(x, (0, T - x.shape[-1]))

    return Rollout(
        prompt_ids=torch.cat([left(r.prompt_ids) for r in rollouts]),
        prompt_mask=torch.cat([left(r.prompt_mask) for r in rollouts]),
        completion_ids=torch.cat([right(r.completion_ids) for r in rollouts]),
        completion_mask=torch.cat([right(r.completion_mask) for r in rollouts]),
        logprobs=torch.cat([right(r.logprobs) for r in rollouts]),
        truncated=torch.cat([r.truncated for r in rollouts]),
    )


def completion_texts(tokenizer, r: Rollout) -> list[str]:
    """The P * G completions as text, without special tokens, in the order of the flattened (P, G)."""
    ids, mask = r.completion_ids.flatten(0, 1).cpu(), r.completion_mask.flatten(0, 1).bool().cpu()
    rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    # one by one: batch_decode makes an empty text out of no rows
    return [tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in rows]


def eos_ids(model, tokenizer) -> list[int]:
    """Every id that ends a completion: the model's (its generation_config may list several) and the tokenizer's."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = getattr(model.config, "eos_token_id", None)
    ids = set(found if isinstance(found, list) else [found]) | {tokenizer.eos_token_id}
    if ids == {None}:
        raise ValueError("neither the model nor its tokenizer names an EOS token: completions would never end")
    return sorted(ids - {None})


def pad_id(model, tokenizer) -> int:
    """An id to fill with. Which one does not matter: masks come from positions, never from comparing ids."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids(model, tokenizer)[0]


def pad_left(prompts: Sequence[Sequence[int]], pad: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (P, L) and mask (P, L), padded on the left, so that all prompts end where the completions begin."""
    L = max(map(len, prompts), default=1)
    ids = [[pad] * (L - len(p)) + list(p) for p in prompts]
    mask = [[0] * (L - len(p)) + [1] * len(p) for p in prompts]
    shape = (len(prompts), L)
    return torch.tensor(ids, device=device).long().view(shape), torch.tensor(mask, device=device).long().view(shape)


def _decode(model, prompt_ids, prompt_mask, uniforms, eos, pad, slice_tokens, options):
    """Completions of one batch of prompts: tokens and their log-probabilities (p, G, T), with noise after the end."""
    p, G, T = uniforms.shape
    uniforms = uniforms.flatten(0, 1)  # (n, T), n = p * G
    tokens = torch.full((p * G, T), pad, device=prompt_ids.device)  # (n, T)
    logprobs = torch.zeros((p * G, T), device=prompt_ids.device)  # (n, T)
    ends = torch.tensor(eos, device=prompt_ids.device)

    # one prefill a prompt; its last logits give every sample of the group its first token
    out = model.generate(prompt_ids, attention_mask=prompt_mask, max_new_tokens=1, output_logits=True)
    cache, alive = out.cache, torch.arange(p * G, device=prompt_ids.device)
    if not hasattr(cache, "reorder_cache"):
        raise ValueError(f"{type(model).__name__} keeps no key-value cache that can be reordered: rollout needs one")
    first_logits = out.logits[0].repeat_interleave(G, dim=0)  # (n, V)
    tokens[:, 0], logprobs[:, 0] = draw(first_logits, uniforms[:, 0], **options)
    del out, first_logits

    t, rows_of_cache = 1, alive // G
    while True:
        going_on = ~torch.isin(tokens[alive, :t], ends).any(dim=1)
        alive = alive[going_on]
        if t == T or len(alive) == 0:
            return tokens.view(p, G, T), logprobs.view(p, G, T)
        cache.reorder_cache(rows_of_cache[going_on])  # repeats prompts at first, then drops the rows that have ended
        drawn = []
        out = model.generate(
            torch.cat([prompt_ids[alive // G], tokens[alive, :t]], dim=1),
            attention_mask=torch.cat([prompt_mask[alive // G], torch.ones_like(tokens[alive, :t])], dim=1),
            cache=cache,
            max_new_tokens=min(slice_tokens, T - t),
            logits_processor=[_draw_processor(uniforms[alive, t:], options, drawn)],
        )
        for token, logprob in drawn:
            tokens[alive, t], logprobs[alive, t] = token, logprob
            t += 1
        cache, rows_of_cache = out.cache, torch.arange(len(alive), device=alive.device)


def _draw_processor(uniforms, options, drawn):
    """A logits processor that leaves one token standing a row, the one drawn, for generate's argmax to take."""

    def process(_, logits):  # (n, V) -> (n, V)
        tokens, logprobs = draw(logits, uniforms[:, len(drawn)], **options)
        drawn.append((tokens, logprobs))
        return torch.full_like(logits, -torch.inf).scatter_(1, tokens[:, None], 0.0)

    return process


@contextmanager
def _eval_mode(model):
    """Every module in eval mode, and each put back after: some may have been in it before (frozen parts)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _sampling_mode(model, eos, pad):
    """Eval mode, the cache on, no sampling option but ours: a model's own generation_config may hide top-k and more."""
    config = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, use_cache=True, return_dict_in_generate=True, eos_token_id=eos, pad_token_id=pad
    )
    try:
        with _eval_mode(model):
            yield
    finally:
        model.generation_config = config


def _uniforms(key: tuple[int, ...], indices: Sequence[int], group_size: int, tokens: int) -> np.ndarray:
    """(P, G, T) in [0, 1): each sample's own stream, whose start does not depend on how many tokens are asked for."""
    streams = [np.random.SeedSequence((*key, p, g)) for p in indices for g in range(group_size)]
    numbers = [np.random.Generator(np.random.PCG64(stream)).random(tokens) for stream in streams]
    return np.array(numbers).reshape(len(indices), group_size, tokens)


def _truncate(mass: torch.Tensor, top_p: float, top_k: int) -> torch.Tensor:
    """(N, V) -> (N, V): mass 0 outside the top_k likeliest tokens, then outside the fewest with top_p of the rest."""
    if 0 < top_k < mass.shape[-1]:
        mass = mass.where(mass >= mass.topk(top_k, dim=-1).values[:, -1:], 0.0)
    if top_p < 1:
        ordered, places = mass.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered  # (N, V): what likelier tokens hold together
        ordered = ordered.where(before < top_p * ordered.sum(dim=-1, keepdim=True, dtype=torch.float64), 0.0)
        mass = torch.zeros_like(mass).scatter_(1, places, ordered)
    return mass


def _check_options(prompts, group_size, max_new_tokens, temperature, top_p, top_k):
    empty = [i for i, prompt in enumerate(prompts) if len(prompt) == 0]
    if empty:
        raise ValueError(f"rollout: prompt {empty[0]} has no tokens")
    if group_size < 1 or max_new_tokens < 1:
        raise ValueError(f"rollout: group_size {group_size} and max_new_tokens {max_new_tokens} must be 1 or more")
    if not temperature >= 0 or not 0 < top_p <= 1 or top_k < 0:  # not >=: NaN is refused too
        raise ValueError(
            f"rollout: temperature {temperature}, top_p {top_p}, top_k {top_k}: need >= 0, in (0, 1], >= 0"
        )
