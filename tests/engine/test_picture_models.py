"""Pictures in rollout and update: seven classes of models by one code, held against plain HF forwards. float64.

The keys (trap 1, ...) are those of the list of traps that each test is for.
"""

import inspect
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from torch.testing import assert_close

import rollout as R
from engine.float64 import keep_float64
from engine.micro_batches import micro_batches, sample_rows
from engine.policy import Policy
from rollout import Pictures

V = 64
IMG, VIDEO, START, STOP, EOS, PAD = 60, 61, 62, 63, 59, 58
TOKENIZER = SimpleNamespace(eos_token_id=EOS, pad_token_id=PAD)
IDS = {"image_token_id": IMG, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": STOP}
TEXT = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 512}
TEXT |= {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
QWEN = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 1}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16}


def config_of(kind):
    if kind == "qwen2_vl":
        vision = QWEN | {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        return hf.Qwen2VLConfig(text_config=TEXT | MROPE, vision_config=vision, tie_word_embeddings=True, **IDS)
    if kind == "qwen2_5_vl":
        vision = QWEN | {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        return hf.Qwen2_5_VLConfig(text_config=TEXT | MROPE, vision_config=vision, tie_word_embeddings=True, **IDS)
    if kind == "qwen3_vl":
        vision = QWEN | {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        text = TEXT | MROPE | {"head_dim": 8}
        return hf.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **IDS)
    if kind == "gemma3":
        text = TEXT | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
        text |= {"layer_types": ["sliding_attention", "full_attention"]}
        vision = TOWER | {"patch_size": 4}
        ids = {"image_token_index": IMG, "image_token_id": IMG, "boi_token_index": START, "eoi_token_index": STOP}
        return hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    if kind == "llava":
        vision = hf.CLIPVisionConfig(**TOWER, patch_size=8)
        ids = {"image_token_index": IMG, "image_token_id": IMG}
        return hf.LlavaConfig(text_config=hf.LlamaConfig(**TEXT), vision_config=vision, **ids)
    made = {"idefics3": hf.Idefics3Config, "smolvlm": hf.SmolVLMConfig}[kind]
    vision = TOWER | {"patch_size": 4}
    ids = {"image_token_id": IMG, "pad_token_id": PAD}
    return made(text_config=hf.LlamaConfig(**TEXT), vision_config=vision, scale_factor=2, **ids)


KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava", "idefics3", "smolvlm")


def make_model(kind, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.AutoModelForImageTextToText.from_config(config_of(kind))
        for p in model.parameters():  # so that greedy completions are not one token for ever
            if p.dim() > 1:
                torch.nn.init.normal_(p, 0, 0.15)
    model.generation_config.eos_token_id = EOS
    model = model.double().eval()
    keep_float64(model)
    return model


def features_of(kind, sizes, generator):
    """The features of one prompt's pictures, of so many merged tokens each way, and the image tokens of each."""

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if kind.startswith("qwen"):
        parts = [
            {"pixel_values": noise(4 * h * w, 48), "image_grid_thw": torch.tensor([[1, 2 * h, 2 * w]])}
            for h, w in sizes
        ]
        counts, dim = [h * w for h, w in sizes], 0
    elif kind in ("gemma3", "llava"):
        parts, counts, dim = [{"pixel_values": noise(1, 3, 16, 16)} for _ in sizes], [4] * len(sizes), 0
    else:
        seen = torch.ones(1, 1, 16, 16, dtype=torch.bool)
        parts = [{"pixel_values": noise(1, 1, 3, 16, 16), "pixel_attention_mask": seen} for _ in sizes]
        counts, dim = [4] * len(sizes), 1
    return ({k: torch.cat([part[k] for part in parts], dim) for k in parts[0]} if parts else {}), counts


@cache
def prompts_of(kind, seed=0):
    """Five prompts and their features: pictures of several sizes, two in one prompt, none in another."""
    generator = torch.Generator().manual_seed(seed)

    def text(n):
        return torch.randint(0, 50, (n,), generator=generator).tolist()

    prompts, images = [], []
    for sizes in ([(2, 2)], [(3, 2)], [], [(2, 3), (1, 2)], [(4, 3)]):
        features, counts = features_of(kind, sizes, generator)
        ids = text(2)
        for n in counts:
            ids += [START, *[IMG] * n, STOP, *text(1)]
        prompts.append(ids + text(3))
        images.append(features)
    return prompts, images


def types_of(model, ids, prompt_length=None):
    is_image = (ids == IMG).int()
    if prompt_length is not None:
        is_image[:, prompt_length:] = 0
    names = {"token_type_ids", "mm_token_type_ids"} & inspect.signature(model.forward).parameters.keys()
    return dict.fromkeys(names, is_image)


def rollout_of(kind, model, size=3, tokens=10, **options):
    """A rollout, with its features as what they are made again from."""
    prompts, images = prompts_of(kind)
    r = R.rollout(model, TOKENIZER, prompts, size, tokens, images=images, **options)
    return replace(r, images=tuple(Pictures((f,), 4) if f else Pictures() for f in images))


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_generate_row_by_row_however_prompts_are_chunked(kind):
    model, (prompts, images) = make_model(kind), prompts_of(kind)
    expected = []
    for prompt, features in zip(prompts, images, strict=True):
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": PAD} | types_of(model, ids) | features
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        expected.append(out[0, len(prompt) :].tolist())
    for cache_tokens in (2**18, 60, 1):
        options = {"temperature": 0.0, "cache_tokens": cache_tokens}
        r = R.rollout(model, TOKENIZER, prompts, 1, 12, images=images, **options)
        rows = zip(r.completion_ids[:, 0], r.completion_mask[:, 0].bool(), strict=True)
        assert [row[mask].tolist() for row, mask in rows] == expected


def policy_of(model):
    return Policy(model.train(), 1.0, features=lambda encoded: encoded[0])


def completions_of(r):
    """Each sample: its prompt's place, prompt ids, completion ids, log-probabilities."""
    P, G, _ = r.completion_ids.shape
    for p in range(P):
        prompt = r.prompt_ids[p][r.prompt_mask[p].bool()]
        for g in range(G):
            n = int(r.completion_mask[p, g].sum())
            yield p, prompt, r.completion_ids[p, g, :n], r.logprobs[p, g, :n]


def plain_logprobs(model, prompt, completion, features):
    """One row, whole, without padding or cache; positions by the model's own rule. (t,)

    An image token that was drawn (trap 1) is no picture: the model sees another id, and a hook sets its embedding.
    """
    ids = torch.cat([prompt, completion.where(completion != IMG, 5)])[None]
    drawn = torch.cat([prompt * 0, completion]) == IMG

    def embed(layer, _, out):
        own = layer.forward(torch.tensor([IMG]))  # past this hook
        return torch.where(drawn[:, None], own, out) if out.shape[1] == len(drawn) else out

    hook = model.get_input_embeddings().register_forward_hook(embed)
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    types = types_of(model, ids, len(prompt))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **types, **features}
    at = model._prepare_position_ids_for_generation(ids, dict(inputs))
    logits = model(**inputs, position_ids=at, use_cache=False).logits[0, len(prompt) - 1 : -1]
    hook.remove()
    return logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)


def gradients(model, r, weights, budget=10**9):
    """The greatest |log pi in training - in sampling|, and the gradient of sum(weights * log pi) of each parameter."""
    model.zero_grad()
    policy, gap = policy_of(model), 0.0
    for rows in micro_batches(r, torch.arange(r.truncated.numel()), budget, shared=policy.shared):
        samples = sample_rows(r, rows)
        mask = samples[3].bool()
        logprobs = policy(*samples)
        sampled = r.logprobs.flatten(0, 1)[rows, : mask.shape[1]][mask]
        gap = max(gap, float((logprobs.detach() - sampled).abs().max()))
        (weights.flatten(0, 1)[rows, : mask.shape[1]][mask] * logprobs).sum().backward()
    return gap, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradient(ours, theirs, tolerance=1e-10):
    scale = max(float(g.norm()) for g in theirs.values())
    for name, g in theirs.items():
        assert_close(ours[name], g, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_in_sampling_and_training_are_those_of_a_plain_forward(kind):
    model, (_, images) = make_model(kind), prompts_of(kind)
    r = rollout_of(kind, model, key=(5,))
    for p, prompt, completion, logprobs in completions_of(r):
        with torch.no_grad():
            expected = plain_logprobs(model, prompt, completion, images[p])
        assert_close(logprobs, expected, rtol=0, atol=1e-10)
    weights = torch.ones_like(r.logprobs) * r.completion_mask
    assert policy_of(model).shared and gradients(model, r, weights)[0] < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_prompt_once_a_group_is_the_plain_one_tower_included(kind):
    model, (_, images) = make_model(kind), prompts_of(kind)
    r = rollout_of(kind, model, key=(7,))
    r.completion_ids[0, 0, 0] = r.completion_ids[2, 1, 1] = (
        IMG  # trap 1: one planted after a picture, and one after text
    )
    weights = torch.linspace(-1, 1, r.logprobs.numel(), dtype=torch.float64).view_as(r.logprobs) * r.completion_mask
    model.zero_grad()
    for (p, prompt, completion, _), w in zip(completions_of(r), weights.flatten(0, 1), strict=True):
        (w[: len(completion)] * plain_logprobs(model, prompt, completion, images[p])).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    tower = [name for name in expected if "vis" in name]
    assert tower and max(float(expected[name].norm()) for name in tower) > 1e-3
    for budget in (10**9, 60, 1):
        assert_same_gradient(gradients(model, r, weights, budget)[1], expected)
    model.activation_checkpointing_enable()
    assert_same_gradient(gradients(model, r, weights, budget=60)[1], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_9_another_picture_changes_its_own_prompt_and_no_other(kind):
    model, (prompts, images) = make_model(kind), prompts_of(kind)
    others = [f | {"pixel_values": -1.5 * f["pixel_values"].flip(0)} if f else f for f in images]
    first, second = (R.rollout(model, TOKENIZER, prompts, 2, 4, images=f, key=(3,)) for f in (images, others))
    changes = (first.logprobs[:, :, 0] - second.logprobs[:, :, 0]).abs().amax(dim=1)
    assert changes[2] == 0 and changes[[0, 1, 3, 4]].min() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_prompt_in_between_leaves_no_trace(kind):
    """rope_deltas is state on the model; positions are always passed, so a stale one does not matter."""
    model, (prompts, _) = make_model(kind), prompts_of(kind)
    r = rollout_of(kind, model, key=(5,))
    weights = torch.ones_like(r.logprobs) * r.completion_mask
    expected = gradients(model, r, weights)[1]
    R.rollout(model, TOKENIZER, [prompts[2]] * 3, 2, 3)
    assert gradients(model, r, weights)[0] < 1e-10
    R.rollout(model, TOKENIZER, [prompts[2]], 1, 3)
    assert_same_gradient(gradients(model, r, weights)[1], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tower_runs_once_a_prompt_in_sampling_and_once_a_micro_batch_in_the_update(kind):
    model = make_model(kind)
    tower = next(module for name, module in model.named_modules() if name.rpartition(".")[2] in TOWERS)
    seen, pixels = [], sum(f["pixel_values"].numel() for f in prompts_of(kind)[1] if f)

    def note(_, args, options):
        seen.append(sum(x.numel() for x in (*args, *options.values()) if torch.is_tensor(x) and x.is_floating_point()))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    r = rollout_of(kind, model, size=4)
    assert seen == [pixels]  # for all prompts of the chunk together, and a picture once for its four samples
    gradients(model, r, torch.ones_like(r.logprobs) * r.completion_mask)
    assert seen == [pixels] * 2


TOWERS = ("visual", "vision_tower", "vision_model")


def test_trap_2_a_tower_that_saw_nothing_has_a_gradient_only_where_ranks_exchange_theirs():
    """All of it is 0. A micro-batch without a picture needs none before the step's last one, which DDP waits for."""
    model = make_model("qwen2_vl")
    r, policy = rollout_of("qwen2_vl", model, size=2), policy_of(model)
    (p,) = [p for p, shown in enumerate(r.images) if not shown.encoded]
    (rows,) = micro_batches(r, torch.tensor([2 * p, 2 * p + 1]), 10**9)
    for last in (False, True):
        policy.exchanges = last
        policy(*sample_rows(r, rows)).sum().backward()
        grads = [parameter.grad for parameter in model.model.visual.parameters()]
        assert all(grad is not None and not grad.any() for grad in grads) if last else grads == [None] * len(grads)
