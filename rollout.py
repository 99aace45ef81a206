"""Prompts in, with or without pictures; completions out, through HF generate.

A completion is a function of the model and of (seed, step, round, prompt's index, sample's index): not of the batch it
was in, the number of ranks, or a restart. Each sample owns a stream of uniform numbers, one per token; a token is drawn
by inverting the CDF of softmax(logits / temperature) at its number. So the work can be cut in any way:

    prefill P prompts once -> repeat the cache G times -> decode a token -> finished rows leave -> decode a token -> ...

Letters: P prompts, G samples of each, L prompt tokens (padded left), T completion tokens (padded right), N rows.
"""

import inspect
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

BLOCK = 1024  # tokens of a vocabulary whose masses are summed before one is drawn among them
TOKEN_TYPES = {"token_type_ids", "mm_token_type_ids"}  # names for the input that is 1 on image tokens


class Pictures(NamedTuple):
    """What a prompt shows: encoded files, from which its features can be made again, and their patches."""

    encoded: tuple[bytes, ...] = ()
    patches: int = 0


@dataclass(frozen=True)
class Rollout:
    """What was sampled, as token ids: no completion is ever decoded and encoded again."""

    prompt_ids: torch.Tensor  # (P, L), padded left
    prompt_mask: torch.Tensor  # (P, L), 1 on tokens
    completion_ids: torch.Tensor  # (P, G, T), padded right
    completion_mask: torch.Tensor  # (P, G, T), 1 up to and including the first EOS, or the end of a stop text
    logprobs: torch.Tensor  # (P, G, T), of the drawn tokens under softmax(logits / temperature), or 0; float32 or wider
    truncated: torch.Tensor  # (P, G) bool: max_new_tokens reached without either
    images: tuple[Pictures, ...] = ()  # P; () if no prompt has a picture. rollout() leaves it to its caller


@torch.no_grad()
def rollout(
    model,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    *,
    images: Sequence[dict[str, torch.Tensor]] = (),
    key: tuple[int, ...] = (0,),
    indices: Sequence[int] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop: Sequence[str] | None = None,
    cache_tokens: int = 2**18,
    decode: Callable | None = None,
    progress: Callable[[int, int, int], None] = lambda *_: None,
) -> Rollout:
    """Draws group_size completions of each prompt (token ids, P lists) of at most max_new_tokens tokens.

    images: the features that the model's processor made of each prompt's pictures, P dicts ({}: it has none), or () if
    no prompt has any. In the ids, a picture is as many of the model's image tokens as it has features.
    key, indices: sample g of prompt p draws from the stream of (*key, indices[p], g). In training key is (seed, step,
    round) and indices are the prompts' places in the round (default 0..P-1). temperature 0 is greedy (log-probabilities
    are then those at 1). top_p, top_k (1 and 0: off) restrict what is drawn; logprobs stay those of the full softmax.
    stop: a completion also ends with the token that makes one of these texts whole, which belongs to it as an EOS does.
    cache_tokens: prompt and completion tokens of the rows decoded at once (at least one group); it bounds the cache.
    decode: the loop over tokens, by default `decode_packed`; engine/fixed_shapes.py draws the same tokens another way.
    progress: called with the numbers of completions: all, ended in earlier batches, ended in this one.
    A completion ends at any EOS id of the model; nothing else is inherited from its generation_config. P may be 0.
    ValueError: an empty prompt, a bad option, a cache that can't be reordered. FloatingPointError: logits not finite.
    """
    _check_options(prompts, group_size, max_new_tokens, temperature, top_p, top_k)
    P, G, T, device = len(prompts), group_size, max_new_tokens, model.device
    eos, pad = eos_ids(model, tokenizer), pad_id(model, tokenizer)
    uniforms = torch.from_numpy(_uniforms(key, range(P) if indices is None else indices, G, T)).to(device)  # (P, G, T)
    completion_ids = torch.full((P, G, T), eos[0], device=device)
    logprobs = torch.zeros((P, G, T), device=device, dtype=torch.promote_types(model.dtype, torch.float32))
    ends = torch.tensor(eos, device=device)
    options = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    decode = decode or decode_packed
    if stop:
        decode = partial(decode, stopped=partial(_stopped, tokenizer, stop))
    done = 0
    with _sampling_mode(model, eos, pad):
        for chunk in _chunks([len(prompt) for prompt in prompts], G, T, cache_tokens):
            ids, mask = pad_left([prompts[p] for p in chunk], pad, device)  # (p, L)
            seen = picture_inputs(model, ids, [images[p] for p in chunk]) if images else {}
            parts = (x[chunk].flatten(0, 1) for x in (uniforms, completion_ids, logprobs))  # copies, (p * G, T)
            draws = Draws(*parts, ends, options, partial(progress, P * G, done))
            _complete(model, ids, mask, seen, G, draws, decode)
            completion_ids[chunk], logprobs[chunk] = draws.tokens.view(-1, G, T), draws.logprobs.view(-1, G, T)
            done += len(chunk) * G

    ends = torch.isin(completion_ids, ends)  # (P, G, T)
    if stop:
        ends |= _stops(tokenizer, stop, completion_ids, ends)
    # an EOS ends the completion and belongs to it: trained on, or the model would not learn to stop
    completion_mask = (ends.cumsum(dim=2) - ends.long() == 0).long()  # (P, G, T)
    longest = int(completion_mask.sum(dim=2).max()) if P else 0
    logprobs = logprobs * completion_mask
    if not bool(logprobs.isfinite().all()):
        raise FloatingPointError("the model's logits are not finite: its weights are damaged, or a value overflowed")
    return Rollout(
        *pad_left(prompts, pad, device),
        completion_ids=completion_ids.where(completion_mask.bool(), pad)[:, :, :longest],
        completion_mask=completion_mask[:, :, :longest],
        logprobs=logprobs[:, :, :longest],
        truncated=~ends.any(dim=2),
    )


def picture_inputs(model, ids: torch.Tensor, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The model's inputs besides the ids (p, L) of prompts: the features of all their pictures, and the tokens' types.

    Features of different sizes are padded with zeros, which models take for no picture (Idefics3).
    """
    inputs = {}
    for name in dict.fromkeys(name for image in images for name in image):
        parts = [image[name].to(model.device) for image in images if name in image]
        parts = [x.to(model.dtype) if x.is_floating_point() else x for x in parts]
        size = [max(sizes) for sizes in zip(*(x.shape[1:] for x in parts), strict=True)]
        pads = [[n for a, b in zip(size[::-1], x.shape[:0:-1], strict=True) for n in (0, a - b)] for x in parts]
        inputs[name] = torch.cat([torch.nn.functional.pad(x, pad) for x, pad in zip(parts, pads, strict=True)])
    for name in TOKEN_TYPES & inspect.signature(model.forward).parameters.keys():
        # (p, L): of the prompt only, as a completion may draw the token
        inputs[name] = (ids == model.config.image_token_id).int()
    return inputs


def num_patches(features: dict[str, torch.Tensor]) -> int:
    """What the vision tower has to do for a prompt: rows of flat pixel values, or else one for 14 x 14 pixels."""
    pixels = features.get("pixel_values")
    if pixels is None:
        return 0
    return len(pixels) if pixels.dim() == 2 else pixels.numel() // (3 * 14 * 14)


def draw(
    logits: torch.Tensor,  # (N, V)
    uniforms: torch.Tensor,  # (N,) float64 in [0, 1)
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverts the CDF of softmax(logits / temperature) at one number per row -> token ids, log-probabilities (N,)."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    top = logits.amax(dim=-1, keepdim=True).to(wide)  # (N, 1)
    mass = logits - top  # (N, V)
    if temperature not in (0, 1):
        mass /= temperature
    mass.exp_()  # not normalised: one number per row is scaled instead
    if temperature == 0:
        tokens, total = logits.argmax(dim=-1), mass.sum(dim=-1)  # (N,)
    else:
        truncated = top_p < 1 or top_k > 0
        candidates = _truncate(mass, top_p, top_k) if truncated else mass  # (N, V)
        tokens, total = _invert(candidates, uniforms)
        total = mass.sum(dim=-1) if truncated else total.to(mass.dtype)  # (N,)
    picked = logits.gather(1, tokens[:, None]) - top  # (N, 1)
    if temperature not in (0, 1):
        picked /= temperature
    return tokens, picked.squeeze(1) - total.log()


def _invert(mass: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, V), (N,) -> tokens (N,) where the CDF of the masses exceeds uniforms * total, and the total (N,) float64.

    A large vocabulary's block first, then the token in it: a float64 CDF of all tokens would be most of the work.
    """
    N, V = mass.shape
    first, before, total = 0, 0.0, None  # the first token that is still a candidate; the mass before it
    if V > BLOCK:
        whole = V // BLOCK * BLOCK
        parts = mass[:, :whole].unflatten(1, (-1, BLOCK)).sum(dim=-1), mass[:, whole:].sum(dim=-1, keepdim=True)
        cdf = torch.cat(parts, dim=1).cumsum(dim=-1, dtype=torch.float64)  # (N, V / BLOCK + 1)
        total = cdf[:, -1]
        block = _first_above(cdf, uniforms * total)
        before = cdf.gather(1, (block - 1).clamp(min=0)[:, None]).squeeze(1).where(block > 0, 0.0)
        first = block * BLOCK  # (N,)
        places = first[:, None] + torch.arange(BLOCK, device=mass.device)  # (N, BLOCK)
        mass = mass.gather(1, places.clamp(max=V - 1)).where(places < V, 0.0)
    # float64: near 1, float32 steps are coarser than the probability of many tokens of a large vocabulary
    cdf = mass.cumsum(dim=-1, dtype=torch.float64)
    total = cdf[:, -1] if total is None else total
    return (first + _first_above(cdf, uniforms * total - before)).clamp(max=V - 1), total


def _first_above(cdf: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(N, n), (N,) -> (N,): the first place whose CDF exceeds the target, so never one of mass 0."""
    # rounding can bring a target up to the last value, which none exceeds: at most the number before it
    target = torch.minimum(target, cdf[:, -1] * (1 - 2**-53))
    places = torch.searchsorted(cdf, target[:, None], right=True).squeeze(1)
    return places.clamp(max=cdf.shape[1] - 1)  # only NaN reaches past the end


def join(rollouts: Sequence[Rollout]) -> Rollout:
    """Several rollouts of the same G as one, in order: prompts padded left, completions right, to the longest."""
    names = [f.name for f in fields(Rollout) if f.name != "images"]
    tensors = {name: cat([getattr(r, name) for r in rollouts], left=name.startswith("prompt")) for name in names}
    images = sum((r.images or (Pictures(),) * len(r.truncated) for r in rollouts), ())
    return Rollout(**tensors, images=images if any(r.images for r in rollouts) else ())


def cat(parts: Sequence[torch.Tensor], left: bool = False) -> torch.Tensor:
    """torch.cat of tensors (n, ..., t) with different t: padded with 0, on the right or left, to the longest."""
    longest = max(x.shape[-1] for x in parts)
    pads = [(longest - x.shape[-1], 0) if left else (0, longest - x.shape[-1]) for x in parts]
    return torch.cat([torch.nn.functional.pad(x, pad) for x, pad in zip(parts, pads, strict=True)])


def pick(r: Rollout, groups: torch.Tensor, device) -> Rollout:
    """Some groups of a rollout, on a device."""
    tensors = {f.name: getattr(r, f.name)[groups].to(device) for f in fields(r) if f.name != "images"}
    return Rollout(**tensors, images=tuple(r.images[p] for p in groups.tolist()) if r.images else ())


def completion_texts(tokenizer, r: Rollout) -> list[str]:
    """The P * G completions as text, without special tokens, in the order of the flattened (P, G)."""
    ids, mask = r.completion_ids.flatten(0, 1).cpu(), r.completion_mask.flatten(0, 1).bool().cpu()
    rows = [row[is_token].tolist() for row, is_token in zip(ids, mask, strict=True)]
    # one by one: batch_decode returns one empty text for no rows
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
    """An id for padding. Which one does not matter: masks come from positions, never from comparing ids."""
    pad = tokenizer.pad_token_id
    has_embedding = pad is not None and pad < len(model.get_input_embeddings().weight)
    return pad if has_embedding else eos_ids(model, tokenizer)[0]


def pad_left(prompts: Sequence[Sequence[int]], pad: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (P, L) and mask (P, L), padded on the left, so that all prompts end where the completions begin."""
    L = max(map(len, prompts), default=1)
    ids = [[pad] * (L - len(p)) + list(p) for p in prompts]
    mask = [[0] * (L - len(p)) + [1] * len(p) for p in prompts]
    shape = (len(prompts), L)
    return torch.tensor(ids, device=device).long().view(shape), torch.tensor(mask, device=device).long().view(shape)


def _chunks(lengths: list[int], group_size: int, new_tokens: int, budget: int) -> list[list[int]]:
    """Prompts sorted by length, to pad little, and cut so that samples * (longest prompt + new tokens) <= budget."""
    chunks = []
    for p in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunks and (len(chunks[-1]) + 1) * group_size * (lengths[p] + new_tokens) <= budget:
            chunks[-1].append(p)
        else:
            chunks.append([p])
    return chunks


class Draws(NamedTuple):
    """What the n rows of a batch draw, and where it is written; undefined after a row's end."""

    uniforms: torch.Tensor  # (n, T) float64
    tokens: torch.Tensor  # (n, T)
    logprobs: torch.Tensor  # (n, T)
    ends: torch.Tensor  # (e,), the EOS ids
    options: dict  # of `draw`
    report: Callable[[int], object] = int  # is told how many rows have ended


def _complete(model, prompt_ids, prompt_mask, seen, G: int, draws: Draws, decode: Callable) -> None:
    """Draws G completions of each prompt of one batch.

    `generate` prepares inputs and cache as for any model and leaves the loop to the function that it is given.
    """

    def loop(model, ids, logits_processor, stopping_criteria, generation_config, **inputs):
        del logits_processor, stopping_criteria, generation_config  # drawing and stopping are done here
        # one prefill per prompt
        out = model(**model.prepare_inputs_for_generation(ids, is_first_iteration=True, **inputs))
        for name in [*seen.keys() - TOKEN_TYPES, "mm_encoder_outputs"]:
            inputs.pop(name, None)  # pictures are in the cache now
        inputs = model._update_model_kwargs_for_generation(out, inputs) | {"cache": out.get("cache")}
        parents = torch.arange(len(draws.tokens), device=ids.device) // G  # (n,): the prompt in each row
        # (n, V): all samples of a prompt draw their first token from its last logits
        decode(model, _take(inputs, parents), parents, out.logits[:, -1][parents], draws)
        return ids

    new_tokens = draws.tokens.shape[1]
    model.generate(prompt_ids, attention_mask=prompt_mask, max_new_tokens=new_tokens, custom_generate=loop, **seen)


def decode_packed(model, inputs: dict, parents: torch.Tensor, logits: torch.Tensor, draws: Draws, stopped=None) -> None:
    """The loop over tokens, for any cache: a row that has ended leaves at once, and a later one takes its place.

    inputs: as for the n rows, but for their "cache", which is that of the prompts; parents (n,): the prompt in each
    row; logits (n, V): of the prompts' last tokens; stopped: `_stopped`, if texts end completions.
    """
    alive = torch.arange(len(parents), device=parents.device)  # (n,): the sample in each row
    T = draws.tokens.shape[1]
    inputs["cache"] = _rows_of_cache(inputs["cache"], parents, room=T)
    for t in range(T):
        drawn, logprob = draw(logits, draws.uniforms[alive, t], **draws.options)
        draws.tokens[alive, t], draws.logprobs[alive, t] = drawn, logprob.to(draws.logprobs.dtype)
        unfinished = ~torch.isin(drawn, draws.ends)
        if stopped:
            unfinished &= ~stopped(draws.tokens, alive, t + 1)
        if not unfinished.all():
            rows = _compact(unfinished)
            alive, drawn, inputs = alive[rows], drawn[rows], _take(inputs, rows)
            inputs["cache"].reorder_cache(rows)
            draws.report(len(parents) - len(alive))
        if t + 1 == T or len(alive) == 0:
            return
        out = model(**model.prepare_inputs_for_generation(drawn[:, None], next_sequence_length=1, **inputs))
        inputs = model._update_model_kwargs_for_generation(out, inputs)
        logits = out.logits[:, -1]


def _holds(tokenizer, stop: Sequence[str], ids: list[int]) -> bool:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return any(each in text for each in stop)


def _stopped(tokenizer, stop: Sequence[str], tokens: torch.Tensor, rows: torch.Tensor, end: int, new: int = 1):
    """Whether one of the `new` tokens before `end` makes a stop text whole: rows (n,) of tokens (N, T) -> (n,) bool."""
    # as many tokens as can hold it: each is a byte of it at least
    ids = tokens[:, max(0, end - new - max(len(each.encode()) for each in stop)) : end][rows].tolist()
    return torch.tensor([_holds(tokenizer, stop, row) for row in ids], device=tokens.device)


def _stops(tokenizer, stop: Sequence[str], ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """(P, G, T) bool: the token that makes a completion's first stop text whole, or its EOS if that comes first.

    Whenever its row left. All longer prefixes hold the text: bisection finds it.
    """
    lengths = (ends.cumsum(dim=2) == 0).sum(dim=2).flatten().tolist()  # tokens before the EOS
    rows = zip(ids.flatten(0, 1).tolist(), lengths, strict=True)
    has = partial(_holds, tokenizer, stop)  # most have none, and one look is enough
    found = [bisect_left(range(n + 1), True, key=lambda k: has(row[:k])) if has(row[:n]) else n + 1 for row, n in rows]
    places = torch.arange(1, ids.shape[2] + 1, device=ids.device)
    return places == torch.tensor(found, device=ids.device).view(*ids.shape[:2], 1)


def _compact(unfinished: torch.Tensor) -> torch.Tensor:
    """Where the m unfinished rows (n,) are found, (m,): rows stay in place, but for those that fill a gap."""
    m = int(unfinished.sum())
    rows = torch.arange(m, device=unfinished.device)
    rows[~unfinished[:m]] = unfinished[m:].nonzero().squeeze(1) + m
    return rows


def _take(inputs: dict, rows: torch.Tensor) -> dict:
    """The model's inputs for some rows: tensors are (rows, tokens), or (axes, rows, tokens) for positions."""
    return {name: x[..., rows, :] if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}


class _Rows(DynamicLayer):
    """Keys and values in one buffer: a token is written in place, and a row that leaves is overwritten by a later one.

    DynamicLayer concatenates instead, which copies the whole past for every token.
    """

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int):
        vars(self).update(vars(layer))  # including the counters of a sliding window
        device, dtype, length = self.keys.device.type, self.keys.dtype, self.keys.shape[2]
        if torch.is_autocast_enabled(device):  # attention would cast the whole past to it, for every token
            dtype = torch.get_autocast_dtype(device)
        room = min(room, getattr(layer, "sliding_window", room))
        self.buffers = []
        for x in (self.keys, self.values):
            self.buffers.append(x.new_empty(len(rows), x.shape[1], length + room, x.shape[3], dtype=dtype))
            self.buffers[-1][:, :, :length] = x[rows]
        self.show(len(rows), 0, length)

    def show(self, n: int, start: int, end: int) -> None:
        """Makes keys and values the first n rows of the buffers, positions start to end."""
        self.start, self.end = start, end
        self.keys, self.values = (buffer[:n, :, start:end] for buffer in self.buffers)

    def update(self, key_states, value_states, *_, **__):
        n, end = len(key_states), self.end + key_states.shape[2]
        for buffer, x in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:n, :, self.end : end] = x
        self.show(n, self.start, end)
        return self.keys, self.values

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Row i becomes what row rows[i] was; see _compact."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        for x in (self.keys, self.values):
            x[moved] = x[rows[moved]]
        self.show(len(rows), self.start, self.end)


class _SlidingRows(_Rows, DynamicSlidingWindowLayer):
    """The same for a layer that sees only the last tokens: in a full buffer they move to the front."""

    def update(self, key_states, value_states, *_, **__):
        n, tokens = key_states.shape[0], key_states.shape[2]
        if self.end + tokens > self.buffers[0].shape[2]:
            for buffer in self.buffers:
                buffer[:n, :, : self.end - self.start] = buffer[:n, :, self.start : self.end].clone()
            self.show(n, 0, self.end - self.start)
        self.cumulative_length += tokens
        seen = super().update(key_states, value_states)
        self.show(n, max(self.start, self.end - self.sliding_window + 1), self.end)
        return seen


def _rows_of_cache(cache, rows: torch.Tensor, room: int):
    """The prompts' cache with one row per sample, and room for that many more tokens."""
    if not hasattr(cache, "reorder_cache"):
        raise ValueError(f"{type(cache).__name__} is no key-value cache whose rows can be repeated: rollout needs one")
    in_place = {DynamicLayer: _Rows, DynamicSlidingWindowLayer: _SlidingRows}
    for i, layer in enumerate(cache.layers):
        if type(layer) in in_place and layer.is_initialized:
            cache.layers[i] = in_place[type(layer)](layer, rows, room)
        else:
            layer.reorder_cache(rows)
    return cache


@contextmanager
def eval_mode(model):
    """Every module in eval mode; after it each has its own mode back, as frozen parts may have been in it before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _sampling_mode(model, eos, pad):
    """Eval mode, the cache on, no sampling option but ours: a model's generation_config may hide top-k and more."""
    config = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, use_cache=True, return_dict_in_generate=True, eos_token_id=eos, pad_token_id=pad
    )
    try:
        with eval_mode(model):
            yield
    finally:
        model.generation_config = config


def _uniforms(key: tuple[int, ...], indices: Sequence[int], group_size: int, tokens: int) -> np.ndarray:
    """(P, G, T) in [0, 1): each sample's own stream, whose start does not depend on T."""
    streams = [np.random.SeedSequence((*key, p, g)) for p in indices for g in range(group_size)]
    numbers = [np.random.Generator(np.random.PCG64(stream)).random(tokens) for stream in streams]
    return np.array(numbers).reshape(len(indices), group_size, tokens)


def _truncate(mass: torch.Tensor, top_p: float, top_k: int) -> torch.Tensor:
    """(N, V) -> (N, V): mass 0 outside the top_k likeliest tokens, then outside the fewest with top_p of the rest."""
    if 0 < top_k < mass.shape[-1]:
        mass = mass.where(mass >= mass.topk(top_k, dim=-1).values[:, -1:], 0.0)
    if top_p < 1:
        ordered, places = mass.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered  # (N, V): mass of likelier tokens
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
        raise ValueError(f"rollout: temperature {temperature}, top_p {top_p}, top_k {top_k}: >= 0, in (0, 1], >= 0")
