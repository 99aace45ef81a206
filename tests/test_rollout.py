"""Tests of rollout.py: what is drawn, from which distribution, and that nothing depends on how the work is cut.

Keys such as M1, L2, S1 name known traps of such code. Random models are far from flat (initializer_range 0.3), and the
bigram model's distributions are known by hand. Mutants of rollout.py that were tried and turn this file red:
    masks    from ids != pad; without EOS; past EOS; truncated by length; only one EOS id; the tokenizer's EOS ignored
    streams  keyed by place in the batch, by flat row; without g, without the round; not permuted with the prompts;
             those of rows that left; a global generator
    draw     right=False; float32 CDF; no temperature; log-probabilities without it, or of the truncated mass; in place;
             top-p exclusive, or of the whole instead of the rest; top-k + 1; NaN logits or temperature let through
    work     prefill a sample instead of a prompt; no mask in the prefill or in decoding; prompts padded right; finished
             rows stay, or leave the batch but not the cache; no cache; cache_tokens ignored, or without the group;
             common padding left on
    model    generation_config inherited or not restored; train mode while sampling; modes not restored, or all as one
    rows     join on the wrong side; special tokens in the text
"""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

import rollout as R
from engine.fixed_shapes import FixedShapes
from engine.output_layer import token_logprobs

V, EOS = 50, [2, 7, 11, 13]
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "tie_word_embeddings": False}  # tied and scaled, Gemma would repeat its last token
SLIDING = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
GPT2 = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
KINDS = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZES),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SIZES),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", SIZES | SLIDING),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", SIZES | SLIDING | {"final_logit_softcapping": 3.0}),
    "cohere2": ("Cohere2ForCausalLM", "Cohere2Config", SIZES | SLIDING | {"logit_scale": 0.25}),
}
FOUR = ["llama", "qwen2", "gemma3", "gpt2"]
TOKENIZER = SimpleNamespace(eos_token_id=2, pad_token_id=0)  # S5: it cannot encode or decode, so nothing does

generator = torch.Generator().manual_seed(0)
# one token; shorter, longer than the window of 8; EOS and pad ids inside a prompt are tokens like others (M2)
PROMPTS = [torch.randint(V, (n,), generator=generator).tolist() for n in (3, 12, 1, 9)] + [[4, 2, 0, 7, 0, 2, 21]]


def no_pad(eos):
    return SimpleNamespace(eos_token_id=eos, pad_token_id=None)


def make_model(kind, seed=0, dtype=torch.float32, **changes):
    model_class, config_class = (getattr(transformers, name) for name in KINDS[kind][:2])
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = config_class(**KINDS[kind][2] | ids | {"initializer_range": 0.3} | changes)
        return model_class(config).to(dtype).eval()


def bigram_model(logits, eos, dtype=torch.float64):
    """A Llama whose next-token logits are a row of a table (V, V): the last token is all it knows.

    Embedding = identity and layers that add nothing: RMSNorm of a one-hot is sqrt(V) * one-hot, so the output layer
    is the table / sqrt(V), transposed.
    """
    size = len(logits)
    sizes = {"vocab_size": size, "hidden_size": size, "intermediate_size": 4, "num_hidden_layers": 1, "head_dim": 2}
    ids = {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ids, num_attention_heads=1, rms_norm_eps=0.0)).to(dtype).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.copy_(torch.as_tensor(logits, dtype=torch.float64).T / math.sqrt(size))
    return model


def counting_model(eos):
    """Ten tokens; after i comes i + 1 (after 9, 0): every other token has probability e^-60."""
    return bigram_model(60 * torch.eye(10).roll(1, dims=1), eos)


def tokens_of(r):
    """P lists of G lists of the completions' tokens, by their masks."""
    pairs = zip(r.completion_ids.flatten(0, 1), r.completion_mask.flatten(0, 1).bool(), strict=True)
    rows = [ids[mask].tolist() for ids, mask in pairs]
    G = r.truncated.shape[1]
    return [rows[i : i + G] for i in range(0, len(rows), G)]


def rescored(model, r, temperature=1.0):
    """Log-probabilities (P, G, T) by whole forwards, a row at a time, without any padding: the slow plain way."""
    logprobs = torch.zeros(r.completion_mask.shape, dtype=model.dtype)
    for p, prompt in enumerate(row[mask.bool()] for row, mask in zip(r.prompt_ids, r.prompt_mask, strict=True)):
        for g, n in enumerate(r.completion_mask[p].sum(dim=1).tolist()):
            ids = torch.cat([prompt, r.completion_ids[p, g, :n]])[None]
            logits = model(ids, attention_mask=torch.ones_like(ids)).logits[:, len(prompt) - 1 : -1]
            logprobs[p, g, :n] = token_logprobs(logits, ids[:, len(prompt) :], temperature)[0]
    return logprobs


def forwards(model, *args, **options):
    """A rollout, and the (rows, tokens) of every forward pass that it made."""
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, ids, __: shapes.append(tuple(ids[0].shape)))
    r = R.rollout(model, TOKENIZER, *args, **options)
    hook.remove()
    return r, shapes


# ---------------- against plain generate


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("seed", [0, 4])
def test_greedy_output_is_that_of_plain_generate_row_by_row(kind, seed):
    model, T = make_model(kind, seed), 20  # T: longer than the window, too
    r = R.rollout(model, TOKENIZER, PROMPTS, 2, T, temperature=0, cache_tokens=200)
    options = {"max_new_tokens": T, "do_sample": False, "eos_token_id": EOS, "pad_token_id": 0}
    # with a mask of ones: left alone, generate takes pad ids in a prompt for padding (M2)
    ids = [torch.tensor([p]) for p in PROMPTS]
    plain = [model.generate(x, attention_mask=torch.ones_like(x), **options)[0, x.numel() :].tolist() for x in ids]
    assert tokens_of(r) == [[row, row] for row in plain]
    assert r.truncated.tolist() == [[row[-1] not in EOS] * 2 for row in plain]
    assert r.truncated.any() and not r.truncated.all()  # the case has both rows that end and rows that don't
    # temperature 0: log-probabilities are those at 1
    torch.testing.assert_close(r.logprobs, rescored(model, r), rtol=1e-4, atol=1e-4)


# ---------------- nothing depends on how the work is cut

# a prompt, two at a time; a smaller group; fewer tokens; another order; alone
CHANGES = [{"cache_tokens": 1}, {"cache_tokens": 200}, {"group_size": 2}]
CHANGES += [{"max_new_tokens": 6}, {"chosen": [4, 2, 0, 3, 1]}, {"chosen": [3]}]


@cache
def whole_of(kind):
    model, options = make_model(kind), {"group_size": 4, "max_new_tokens": 14, "key": (5, 1, 0)}
    return model, options, R.rollout(model, TOKENIZER, PROMPTS, **options)


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_S4_L10_a_sample_is_the_same_whatever_else_is_in_the_batch(kind, change):
    model, options, whole = whole_of(kind)
    chosen = change.get("chosen", range(len(PROMPTS)))
    options = options | {k: v for k, v in change.items() if k != "chosen"}
    part = R.rollout(model, TOKENIZER, [PROMPTS[i] for i in chosen], indices=chosen, **options)
    G, T = options["group_size"], options["max_new_tokens"]
    expected = tokens_of(whole)
    assert tokens_of(part) == [[row[:T] for row in expected[i][:G]] for i in chosen]
    assert len({tuple(row) for group in expected for row in group}) > 15  # S2: of 20, so a group holds different draws
    for i, p in enumerate(chosen):
        width = part.logprobs.shape[2]  # that of the longest completion
        expected = whole.logprobs[p, :G, :width] * part.completion_mask[i, :, : whole.logprobs.shape[2]]
        torch.testing.assert_close(part.logprobs[i], expected, rtol=1e-4, atol=1e-4)


def test_A1_two_copies_of_a_prompt_draw_apart():
    first, second = tokens_of(R.rollout(make_model("llama"), TOKENIZER, [PROMPTS[0]] * 2, 4, 12))
    assert len({tuple(row) for row in first + second}) == 8


def test_uniform_streams_are_a_function_of_the_key_only():
    whole = R._uniforms((7, 1, 2), range(6), 4, 10)
    assert whole.shape == (6, 4, 10) and whole.dtype == np.float64
    np.testing.assert_array_equal(R._uniforms((7, 1, 2), range(6), 4, 3), whole[:, :, :3])  # of T
    np.testing.assert_array_equal(R._uniforms((7, 1, 2), [5, 2], 2, 10), whole[[5, 2], :2])  # of P, order, G: S2, S4
    keys = [(seed, step, r) for seed in (0, 1, 2**40) for step in range(4) for r in range(3)]
    first = np.concatenate([R._uniforms(key, range(6), 4, 2).ravel() for key in keys])  # 36 * 24 * 2 = 1728 numbers
    # 1728^2 / 2 pairs of 53-bit numbers: an accidental equality has probability 2e-10
    assert len(np.unique(first)) == len(first)


def test_S6_the_current_weights_are_sampled_from():
    model = make_model("llama")
    R.rollout(model, TOKENIZER, PROMPTS, 2, 4)
    torch.nn.init.zeros_(model.lm_head.weight)
    after = R.rollout(model, TOKENIZER, PROMPTS, 2, 4)
    torch.testing.assert_close(after.logprobs, -math.log(V) * after.completion_mask)  # all tokens equally likely


# ---------------- the distribution


def chi_square(counts, probabilities):
    """The statistic, and what it exceeds by chance once in 10^5 times (Wilson-Hilferty, z = 4.265)."""
    expected, df = counts.sum() * probabilities, len(counts) - 1
    limit = df * (1 - 2 / (9 * df) + 4.265 * math.sqrt(2 / (9 * df))) ** 3
    return float(((counts - expected) ** 2 / expected).sum()), limit


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_S1_the_sampler_draws_from_the_softmax(temperature):
    """20 000 pairs of tokens: the first drawn after the prefill, the second in the decoding loop."""
    logits = torch.log(torch.tensor([[1, 2, 3, 4], [4, 1, 1, 2], [1, 1, 1, 1], [5, 1, 3, 1]], dtype=torch.float64))
    model = bigram_model(logits, eos=[3])
    # a model's own generation_config must not show (S1)
    model.generation_config = GenerationConfig(do_sample=True, top_k=2, temperature=0.3, eos_token_id=[3])
    r = R.rollout(model, no_pad(3), [[3, 0]], 20_000, 2, temperature=temperature)
    pairs = r.completion_ids[0] * r.completion_mask[0]  # after EOS: 0
    counts = torch.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16).double()

    def cells(at):  # P(j, k) = p(j | 0) p(k | j), all of p(3 | 0) in (3, 0): 13 cells
        p = (logits / at).softmax(dim=1)
        ended = torch.stack([p[0, 3], *p.new_zeros(3)])
        return torch.cat([(p[0, :3, None] * p[:3]).flatten(), ended])

    possible = cells(1.0) > 0
    assert counts[~possible].sum() == 0
    statistic, limit = chi_square(counts[possible], cells(temperature)[possible])
    assert statistic < limit
    wrong, limit = chi_square(counts[possible], cells(temperature * 1.3)[possible])
    assert wrong > limit  # the test has the power to see a temperature that is 30 % off


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8), (7, 0.6), (1, 1.0), (0, 1e-9), (V, 0.999)])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
def test_top_k_and_top_p_give_the_distribution_of_generate(temperature, top_k, top_p):
    logits = 3 * torch.randn(1, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = logits / temperature
    expected = TopKLogitsWarper(top_k)(None, expected) if top_k else expected
    expected = TopPLogitsWarper(top_p)(None, expected) if top_p < 1 else expected
    n = 20_000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, logprobs = R.draw(logits.expand(n, V), grid, temperature, top_p, top_k)
    counts = torch.bincount(tokens, minlength=V)
    # an interval of length p holds n p grid points, one more or less
    torch.testing.assert_close(counts / n, expected[0].softmax(dim=0).float(), rtol=0, atol=1.01 / n)
    # L5: log-probabilities stay those of the whole softmax at the temperature (L4)
    expected = token_logprobs(logits.expand(n, V), tokens, temperature)
    torch.testing.assert_close(logprobs, expected, rtol=1e-12, atol=1e-12)


def test_a_draw_inverts_the_cdf_by_hand():
    inf, last = math.inf, np.nextafter(1.0, 0.0)
    # masses 0 1 0 1 1 1 0 -> CDF 0 1/4 1/4 1/2 3/4 1 1: tokens 0, 2 and 6 have mass 0 and are never drawn
    logits = torch.tensor([-inf, 5, -inf, 5, 5, 5, -inf], dtype=torch.float64)
    uniforms = [0.0, np.nextafter(0.25, 0), 0.25, np.nextafter(0.5, 0), 0.5, 0.75, last]
    kept = logits.clone()
    tokens, logprobs = R.draw(logits.expand(7, 7), torch.tensor(uniforms, dtype=torch.float64))
    assert tokens.tolist() == [1, 1, 3, 3, 4, 5, 5]  # the first whose CDF exceeds the number
    torch.testing.assert_close(logprobs, torch.full((7,), math.log(1 / 4), dtype=torch.float64))
    assert torch.equal(logits, kept)  # L7: nothing is edited in place
    # float32, after top-p too: 200 random rows whose ends have mass 0, at the two ends of [0, 1)
    logits = 10 * torch.randn(200, V, generator=torch.Generator().manual_seed(0))
    logits[:, [0, 1, V - 2, V - 1]] = -inf
    for number in (0.0, last):
        uniforms = torch.full((200,), number, dtype=torch.float64)
        assert R.draw(logits, uniforms)[1].isfinite().all()
        assert (R.draw(logits, uniforms, top_p=1e-6)[0] == logits.argmax(dim=1)).all()


def test_the_cdf_is_float64():
    """Masses 1, then 1000 of m = 2^-26: float32 near 1 has steps of 8 m. Token k holds 1 + (k - 1) m to 1 + k m."""
    logits = torch.tensor([0.0] + [-26 * math.log(2)] * 1000).expand(8, 1001)
    uniforms = (1 + (torch.arange(500, 508, dtype=torch.float64) + 0.5) / 2**26) / (1 + 1000 / 2**26)
    assert R.draw(logits, uniforms)[0].tolist() == list(range(501, 509))


def test_L4_temperature_divides_the_logits_by_hand():
    # masses 1/2 1/4 1/8 1/8; L4: at temperature 1/2 they are squared, 16 4 1 1 / 22; CDF 16/22 20/22 21/22 1
    logits = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8], dtype=torch.float64).log().expand(4, 4)
    tokens, logprobs = R.draw(logits, torch.tensor([15.9, 16.1, 20.1, 21.1], dtype=torch.float64) / 22, temperature=0.5)
    assert tokens.tolist() == [0, 1, 2, 3]
    expected = (torch.tensor([16, 4, 1, 1], dtype=torch.float64) / 22).log()
    torch.testing.assert_close(logprobs, expected, rtol=1e-12, atol=0)


# ---------------- log-probabilities


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_L1_logprobs_are_those_of_whole_forwards(kind, temperature, dtype):
    model = make_model(kind, dtype=dtype)
    r = R.rollout(model, TOKENIZER, PROMPTS, 4, 14, temperature=temperature)
    assert r.logprobs.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-5  # the models' norms are float32 inside
    torch.testing.assert_close(r.logprobs, rescored(model, r, temperature), rtol=tolerance, atol=tolerance)


def test_L3_scores_are_those_of_the_token_they_stand_at():
    """In the bigram model, token t's log-probability is the table at (token t - 1, token t): off by one is seen."""
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64).log_softmax(dim=1)
    model = bigram_model(table, eos=[7])
    r = R.rollout(model, no_pad(7), [[1, 2], [5], [0, 3, 3, 6]], 8, 9)
    expected = torch.zeros(24, 9, dtype=torch.float64)
    last = [2] * 8 + [5] * 8 + [6] * 8
    for i, row in enumerate(sum(tokens_of(r), [])):
        for t, token in enumerate(row):
            expected[i, t] = table[row[t - 1] if t else last[i], token]
    torch.testing.assert_close(r.logprobs.flatten(0, 1).double(), expected, rtol=1e-5, atol=1e-5)


def test_L6_a_bfloat16_model_is_sampled_in_float32():
    model = bigram_model(3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(5)), [7], torch.bfloat16)
    r = R.rollout(model, no_pad(7), [[i] for i in range(8)], 4, 1)
    logits = model(torch.arange(8)[:, None]).logits.double()  # (8, 1, V): bfloat16 numbers, whose softmax is not
    expected = logits.log_softmax(dim=-1).expand(8, 4, 8).gather(2, r.completion_ids)
    torch.testing.assert_close(r.logprobs.double(), expected, rtol=1e-6, atol=1e-6)


# ---------------- ends, masks, padding


def test_M1_M2_M3_M4_M6_ends_by_hand():
    """The counting model, two EOS ids, no pad token: what comes after each prompt is known."""
    model, tokenizer = counting_model(eos=[4, 8]), no_pad(8)
    prompts = [[5], [8, 4, 7], [4, 0], [1], [8, 8]]
    expected = [
        ([6, 7, 8], False),  # M4: EOS exactly at the last token allowed
        ([8], False),  # M6: EOS as first token: length 1. M2: EOS ids in the prompt end nothing
        ([1, 2, 3], True),  # the limit
        ([2, 3, 4], False),  # M3: the other EOS id
        ([9, 0, 1], True),  # M2: a prompt that ends with EOS
    ]
    for cache_tokens in (1, 40, 1000):
        r = R.rollout(model, tokenizer, prompts, 2, 3, cache_tokens=cache_tokens)
        assert tokens_of(r) == [[row, row] for row, _ in expected]
        assert r.truncated.tolist() == [[truncated] * 2 for _, truncated in expected]
        # M1: one EOS inside the mask, though padding (no pad token: 4, the first EOS id) looks like it
        assert r.completion_mask[1].tolist() == [[1, 0, 0]] * 2 and r.completion_ids[1, 0].tolist() == [8, 4, 4]
        assert r.prompt_mask.tolist() == [[0, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]]  # M2, left padding
        assert r.prompt_ids.tolist() == [[4, 4, 5], [8, 4, 7], [4, 4, 0], [4, 4, 1], [4, 8, 8]]  # S5: as given
        assert (r.logprobs.abs() < 1e-6).all()  # certain tokens; 0 on padding
    ended = R.rollout(model, tokenizer, [[7], [3]], 2, 5)
    assert ended.completion_ids.tolist() == [[[8], [8]], [[4], [4]]]  # no common padding: T is the longest completion


def test_eos_ids_and_pad_id():
    model = counting_model(eos=[4, 8])
    nothing, some = no_pad(None), SimpleNamespace(eos_token_id=6, pad_token_id=3)
    assert R.eos_ids(model, nothing) == [4, 8] and R.eos_ids(model, some) == [4, 6, 8]  # M3: both sources
    assert R.pad_id(model, nothing) == 4 and R.pad_id(model, some) == 3
    beyond = len(model.get_input_embeddings().weight)
    assert R.pad_id(model, SimpleNamespace(eos_token_id=8, pad_token_id=beyond)) == 4  # it has no embedding
    model.generation_config.eos_token_id = 5  # one number instead of a list; generation_config before config
    assert R.eos_ids(model, nothing) == [5]
    model.generation_config.eos_token_id = None
    assert R.eos_ids(model, nothing) == [4, 8]
    model.config.eos_token_id = None
    assert R.eos_ids(model, some) == [6]
    with pytest.raises(ValueError, match="names an EOS token"):
        R.eos_ids(model, nothing)


# ---------------- the work done


@pytest.mark.parametrize("kind", FOUR)
def test_one_prefill_a_prompt_and_finished_rows_leave(kind):
    G, T = 4, 14
    r, shapes = forwards(make_model(kind), PROMPTS, G, T, key=(5, 1, 0))
    assert shapes[0] == (5, 12)  # P rows, not P * G
    assert {tokens for _, tokens in shapes[1:]} == {1}  # S3: the cache is on
    # a row is decoded once a token but for its first, and never past its end
    lengths = r.completion_mask.sum(dim=2).flatten().tolist()
    assert len(set(lengths)) > 5  # rows leave at many different tokens
    assert sum(rows for rows, _ in shapes[1:]) == sum(n - 1 for n in lengths) < 5 * G * (T - 1)


def test_cache_tokens_bound_the_rows_and_prompts_go_by_length():
    # prompts of 1, 3, 7, 9, 12 tokens and 6 new ones, 4 samples each: 8 * (3 + 6) = 72 fit, 12 * (7 + 6) = 156 don't;
    # then 8 * (9 + 6) = 120 do, 12 * (12 + 6) don't
    _, shapes = forwards(make_model("llama"), PROMPTS, 4, 6, cache_tokens=120)
    assert [shape for shape in shapes if shape[1] > 1] == [(2, 3), (2, 9), (1, 12)]
    assert max(rows for rows, _ in shapes) == 8


# ---------------- the model is put back


def test_S1_nothing_is_inherited_from_generation_config():
    model = make_model("qwen2")
    expected = R.rollout(model, TOKENIZER, PROMPTS, 4, 8)
    hostile = {"temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.5, "repetition_penalty": 5.0, "max_length": 5}
    config = GenerationConfig(do_sample=True, eos_token_id=EOS, suppress_tokens=[3, 4], **hostile)
    model.generation_config = config
    assert tokens_of(R.rollout(model, TOKENIZER, PROMPTS, 4, 8)) == tokens_of(expected)
    assert model.generation_config is config
    assert {name: getattr(config, name) for name in hostile} == hostile and config.eos_token_id == EOS


def test_S3_samples_in_eval_mode_with_the_cache_on_and_is_put_back_even_after_an_error():
    model = make_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    expected = R.rollout(model, TOKENIZER, PROMPTS, 4, 8)
    assert not model.training
    model.train().activation_checkpointing_enable()
    model.config.use_cache = False
    model.transformer.h[0].eval()  # a frozen part stays as it is
    modes, config = [module.training for module in model.modules()], model.generation_config
    state = torch.random.get_rng_state()
    r, shapes = forwards(model, PROMPTS, 4, 8)
    assert tokens_of(r) == tokens_of(expected) and {tokens for _, tokens in shapes[1:]} == {1}
    assert torch.equal(torch.random.get_rng_state(), state)  # E6: no global generator is drawn from

    def fail(*_):
        raise RuntimeError("on purpose")

    hook = model.lm_head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        R.rollout(model, TOKENIZER, PROMPTS, 4, 8)
    hook.remove()
    assert [module.training for module in model.modules()] == modes
    assert model.generation_config is config and model.config.use_cache is False


# ---------------- edges and errors


def test_no_prompt_at_all():
    r = R.rollout(make_model("llama"), TOKENIZER, [], 4, 8)
    assert r.completion_ids.shape == (0, 4, 0) and r.truncated.shape == (0, 4) and r.prompt_ids.shape[0] == 0
    some = R.rollout(make_model("llama"), TOKENIZER, PROMPTS, 4, 8)
    joined = R.join([r, some])  # a rank or a round without prompts
    assert joined.images == some.images == ()
    assert all(torch.equal(getattr(joined, name), value) for name, value in vars(some).items() if name != "images")


WRONG = [{"prompts": [[3], []]}, {"group_size": 0}, {"max_new_tokens": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
WRONG += [{"top_k": -1}, {"temperature": -0.1}, {"temperature": math.nan}, {"top_p": math.nan}]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_options_out_of_range(change):
    [(name, value)] = change.items()
    with pytest.raises(ValueError, match="prompt 1 has no tokens" if name == "prompts" else f"{name} {value}"):
        R.rollout(make_model("llama"), TOKENIZER, **{"prompts": [[3]], "group_size": 2, "max_new_tokens": 4} | change)


@pytest.mark.parametrize("damage", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_p": 0.9, "top_k": 3}], ids=str)
def test_logits_that_are_not_finite_are_an_error(damage, options):
    model = make_model("llama")
    model.lm_head.weight.data[17, 3] = damage
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        R.rollout(model, TOKENIZER, PROMPTS, 2, 4, **options)


def test_a_model_without_a_cache_that_can_be_reordered():
    model = make_model("llama")
    forward = model.forward
    model.forward = lambda **inputs: forward(**inputs | {"use_cache": False, "cache": None})
    with pytest.raises(ValueError, match="NoneType is no key-value cache whose rows can be repeated"):
        R.rollout(model, TOKENIZER, PROMPTS, 2, 4)


# ---------------- joins, texts


def test_join_of_parts_is_the_whole():
    model, options = make_model("gpt2"), {"group_size": 3, "max_new_tokens": 12, "key": (1, 2, 3)}
    whole = R.rollout(model, TOKENIZER, PROMPTS, **options)
    parts = [R.rollout(model, TOKENIZER, [PROMPTS[i] for i in part], indices=part, **options) for part in ([0], [1, 2])]
    joined = R.join([*parts, R.rollout(model, TOKENIZER, PROMPTS[3:], indices=[3, 4], **options)])
    for name, value in vars(whole).items():
        if name != "images":
            torch.testing.assert_close(getattr(joined, name), value, rtol=1e-4, atol=1e-4 * value.is_floating_point())


def test_completion_texts_are_without_special_tokens():
    words = {"[PAD]": 0, "[EOS]": 1} | {word: i for i, word in enumerate("abcdefgh", start=2)}
    backend = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]")
    model = counting_model(eos=[1])  # a = 2 ... h = 9, then [PAD] = 0, then [EOS] = 1
    r = R.rollout(model, tokenizer, [[6], [2]], 2, 5)
    # after e: f g h [PAD] [EOS]; after a: b c d e f, truncated
    assert tokens_of(r)[0] == [[7, 8, 9, 0, 1]] * 2 and r.truncated[:, 0].tolist() == [False, True]
    assert R.completion_texts(tokenizer, r) == ["f g h", "f g h", "b c d e f", "b c d e f"]


# ---------------- stop texts

PIECES = ["[PAD]", "[EOS]", "a", "b", "ab", "</", "s", ">", "<", "/s>"]


def pieces_tokenizer():
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="a"))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]")


def test_a_stop_text_ends_a_completion_by_hand():
    # after 2 comes 3, ...: b, ab, </, s, >, <, /s>, [PAD], [EOS]
    model, tokenizer, prompts = counting_model(eos=[1]), pieces_tokenizer(), [[2], [7], [9], [3]]
    expected = {
        ("</s>",): ([3, 4, 5, 6, 7], [8, 9], [0, 1], [4, 5, 6, 7]),  # whole with ">", and with "/s>"
        ("x", "bab"): ([3, 4], [8, 9, 0, 1], [0, 1], [4, 5, 6, 7, 8, 9]),  # the prompt's "b" is not part of it
        ("s><", "/s"): ([3, 4, 5, 6], [8, 9], [0, 1], [4, 5, 6]),  # the first that is whole
    }
    for stop, rows in expected.items():
        for decode in (None, FixedShapes(look=1), FixedShapes(look=4)):
            r = R.rollout(model, tokenizer, prompts, 2, 6, stop=stop, decode=decode)
            assert tokens_of(r) == [[row, row] for row in rows]
            # "bab" never comes after a prompt of "b": six tokens, and no end
            assert r.truncated[:, 0].tolist() == [False, False, False, stop == ("x", "bab")]
    texts = R.completion_texts(tokenizer, R.rollout(model, tokenizer, prompts, 1, 6, stop=["</s>"]))
    assert texts == ["bab</s>", "</s>", "", "ab</s>"]


@pytest.mark.parametrize("options", [{"cache_tokens": 1}, {"cache_tokens": 60}, {"look": 2}, {"look": 16}])
def test_a_stop_text_ends_what_would_have_been_drawn_however_the_work_is_cut(options):
    """Against the rollout without it, cut at the first token whose text so far, decoded whole, holds a stop text."""
    logits = torch.randn(10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model, tokenizer, stop, T = bigram_model(logits, eos=[1]), pieces_tokenizer(), ["s>a", "abab", "b</s"], 9
    prompts = [[2], [5, 3], [8], [3, 4, 6]]
    plain = R.rollout(model, tokenizer, prompts, 4, T, key=(2,))
    decode = FixedShapes(look=options.pop("look")) if "look" in options else None
    r = R.rollout(model, tokenizer, prompts, 4, T, key=(2,), stop=stop, decode=decode, **options)
    rows, lengths = sum(tokens_of(plain), []), []
    for row in rows:
        texts = ["".join(PIECES[i] for i in row[:n]) for n in range(len(row) + 1)]
        lengths.append(next((n for n, text in enumerate(texts) if any(x in text for x in stop)), None))
    expected = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    assert sum(tokens_of(r), []) == expected and 2 <= sum(n is not None and n < T for n in lengths) <= 13
    ended = [n is not None or row[-1] == 1 for row, n in zip(rows, lengths, strict=True)]
    assert (~r.truncated).flatten().tolist() == ended and not all(ended)
    width = r.logprobs.shape[2]
    torch.testing.assert_close(r.logprobs, plain.logprobs[:, :, :width] * r.completion_mask, rtol=1e-6, atol=1e-6)


# ---------------- large vocabularies


@pytest.mark.parametrize("size", [R.BLOCK + 1, 3 * R.BLOCK, 5000])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}])
def test_a_block_first_draws_what_one_cdf_of_all_tokens_draws(size, options):
    """The plain way: one float64 CDF over the whole vocabulary."""
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(300, size, generator=generator, dtype=torch.float64) * 3
    uniforms = torch.rand(300, generator=generator, dtype=torch.float64)
    uniforms[:3] = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs = R.draw(logits, uniforms, **options)
    z = logits / options.get("temperature", 1.0)
    mass = R._truncate((z - z.amax(1, keepdim=True)).exp(), options.get("top_p", 1.0), options.get("top_k", 0))
    cdf = mass.cumsum(dim=1)
    uniforms[2] = 1 - 2**-50  # 1 - 2^-53 of the total rounds to the total, which the plain way can't invert
    assert torch.equal(tokens, torch.searchsorted(cdf, (uniforms * cdf[:, -1])[:, None], right=True).squeeze(1))
    assert (mass.gather(1, tokens[:, None]) > 0).all()
    torch.testing.assert_close(
        logprobs, token_logprobs(logits, tokens, options.get("temperature", 1.0)), rtol=1e-12, atol=1e-12
    )


def test_a_token_of_no_mass_is_never_drawn_at_the_edge_of_a_block():
    """Only the first token of the last, short block and one of the first have mass; numbers up to the last below 1."""
    logits = torch.full((4, R.BLOCK + 5), -math.inf)
    logits[:, [7, R.BLOCK]] = 0.0
    uniforms = torch.tensor([0.0, 0.5 - 2**-54, 0.5, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs = R.draw(logits, uniforms)
    assert tokens.tolist() == [7, 7, R.BLOCK, R.BLOCK]
    assert torch.allclose(logprobs, torch.tensor(0.5).log())
