"""Tests of engine/policy.py: the fast way to log-probabilities and gradients is the plain one, and does the least work.

The oracle is test_rollout.rescored: one row at a time, whole, without padding. Mutants of engine/policy.py that were
tried and turn this file red: positions that count padding, or begin at 0 in completions; no mask of the prompt, or of
the completions; the last hidden state of the prompt left out; another prompt's keys; a prompt's cache detached, or
added to when a layer runs again; completions cut after the padding; rows unsorted; logits without the prompt's; the
budget without prompts, with a prompt a sample, or of rows - 1; groups cut where they fit; a trial that always passes.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from test_rollout import FOUR, KINDS, PROMPTS, TOKENIZER, V, bigram_model, make_model, no_pad, rescored, tokens_of
from transformers import MambaConfig, MambaForCausalLM

import rollout as R
from engine import policy as P
from engine.float64 import keep_float64
from engine.micro_batches import micro_batches, sample_rows
from engine.output_layer import token_logprobs


def random_rollout(seed, prompts=6, G=3, longest=20):
    """Random ids and lengths of prompts and completions, as rollout would return them."""
    g = torch.Generator().manual_seed(seed)
    prompt_lengths = torch.randint(1, 12, (prompts,), generator=g)
    lengths = torch.randint(1, longest, (prompts, G), generator=g)
    prompt_mask = (torch.arange(prompt_lengths.max()).flip(0) < prompt_lengths[:, None]).long()
    completion_mask = (torch.arange(lengths.max()) < lengths[:, :, None]).long()
    ids = [torch.randint(V, mask.shape, generator=g) for mask in (prompt_mask, completion_mask)]
    truncated = torch.zeros(prompts, G, dtype=torch.bool)
    return R.Rollout(ids[0], prompt_mask, ids[1], completion_mask, completion_mask * -1.0, truncated)


def by_policy(policy, r, budget=10_000, weights=None):
    """log pi (P, G, T) by the policy, in micro-batches; with weights (P, G, T), the backward of their sum too."""
    result = torch.zeros(r.completion_mask.shape, dtype=policy.model.dtype)
    for piece in micro_batches(r, torch.arange(r.truncated.numel()), budget, shared=policy.shared):
        samples = sample_rows(r, piece)
        mask = samples[3].bool()
        w = None if weights is None else weights.flatten(0, 1)[piece, : mask.shape[1]][mask]
        logprobs = policy(*samples, grad=w)
        if w is not None:
            (w * logprobs).sum().backward()
        rows = torch.zeros(mask.shape, dtype=logprobs.dtype).masked_scatter(mask, logprobs.detach())
        result.flatten(0, 1)[piece, : mask.shape[1]] = rows
    return result


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def assert_the_plain_way(model, policy, r, temperature, tolerance, budget=10_000):
    """Values and gradients are those of whole forwards, a row at a time, with torch's own softmax and backward."""
    g = torch.Generator().manual_seed(9)
    weights = torch.randn(r.completion_mask.shape, generator=g, dtype=model.dtype) * r.completion_mask
    model.zero_grad()
    expected = rescored(model, r, temperature)
    (expected * weights).sum().backward()
    plain = gradients(model)
    model.zero_grad()
    torch.testing.assert_close(by_policy(policy, r, budget, weights), expected.detach(), **tolerance)
    for got, want in zip(gradients(model), plain, strict=True):
        # compared in the scale of the whole tensor: single entries are sums that cancel
        assert torch.linalg.norm(got - want) <= tolerance["rtol"] * torch.linalg.norm(want) + tolerance["atol"]


# ---------------- values and gradients

F32, F64 = {"rtol": 1e-4, "atol": 1e-4}, {"rtol": 1e-10, "atol": 1e-10}


def exact(kind, **changes):
    """A model that computes in float64 throughout, norms too."""
    model = make_model(kind, dtype=torch.float64, **changes)
    keep_float64(model)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", FOUR)
def test_L8_L10_a_prompt_once_a_group_gives_the_plain_values_and_gradients(kind, shared, checkpointing):
    """Longer prompts and completions than the sliding window; groups of one token; budgets that cut groups."""
    without = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if kind == "gpt2" else {}
    model = exact(kind, **without).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    policy = P.Policy(model, 0.7)
    assert policy.sliced and policy.shared == (kind != "gpt2" or not checkpointing)  # GPT-2 then passes no cache on
    policy.shared &= shared
    for seed, budget in ((0, 10_000), (1, 60)):
        assert_the_plain_way(model, policy, random_rollout(seed), 0.7, F64, budget)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_in_float32_for_each_kind_with_logits_of_its_own(kind):
    model = make_model(kind)
    policy = P.Policy(model, 1.0)
    assert policy.sliced == (kind in FOUR) and policy.shared
    assert_the_plain_way(model, policy, random_rollout(2), 1.0, F32, 80)


def test_forwards_by_length_change_nothing(monkeypatch):
    model = exact("llama")
    for tokens in (0, 5, 10**9):
        monkeypatch.setattr(P, "FORWARD_TOKENS", tokens)
        assert_the_plain_way(model, P.Policy(model, 1.0), random_rollout(3), 1.0, F64)


@pytest.mark.parametrize("kind", FOUR)
def test_L1_training_recomputes_the_logprobs_of_sampling(kind):
    model = make_model(kind)
    r = R.rollout(model, TOKENIZER, PROMPTS, 4, 14, temperature=0.7)
    logprobs = by_policy(P.Policy(model, 0.7), r)
    torch.testing.assert_close(logprobs, r.logprobs, rtol=1e-4, atol=1e-4)


def test_L3_scores_are_those_of_the_token_they_stand_at():
    """In the bigram model, token t's log-probability is the table at (token t - 1, token t): off by one is seen."""
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64).log_softmax(dim=1)
    model = bigram_model(table, eos=[7])
    r = R.rollout(model, no_pad(7), [[1, 2], [5], [0, 3, 3, 6]], 8, 9)
    logprobs = by_policy(P.Policy(model, 1.0), r)
    for p, (last, group) in enumerate(zip((2, 5, 6), tokens_of(r), strict=True)):
        for g, row in enumerate(group):
            for t, token in enumerate(row):
                expected = table[row[t - 1] if t else last, token]
                assert logprobs[p, g, t].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", FOUR)
def test_L2_M5_padding_is_never_seen(kind):
    """Random ids as padding, on both sides: the same values and gradients."""
    model, r = make_model(kind), random_rollout(4)
    g = torch.Generator().manual_seed(1)
    noise = [torch.randint(V, x.shape, generator=g) for x in (r.prompt_ids, r.completion_ids)]
    prompt_ids = r.prompt_ids.where(r.prompt_mask.bool(), noise[0])
    other = replace(r, prompt_ids=prompt_ids, completion_ids=r.completion_ids.where(r.completion_mask.bool(), noise[1]))
    assert not torch.equal(other.completion_ids, r.completion_ids)
    results = []
    for sampled in (r, other):
        model.zero_grad()
        results.append((by_policy(P.Policy(model, 1.0), sampled, weights=r.completion_mask.float()), gradients(model)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_gradient_that_is_not_the_one_it_was_told_is_refused():
    model, r = make_model("llama"), random_rollout(0)
    samples = sample_rows(r, micro_batches(r, torch.arange(3), 1000)[0])
    logprobs = P.Policy(model, 1.0)(*samples, grad=torch.ones(int(samples[3].sum())))
    with pytest.raises(AssertionError, match="not the one it was told"):
        (2 * logprobs).sum().backward()


def test_bfloat16_autocast_keeps_float32_weights_and_logprobs():
    model, r = make_model("llama"), random_rollout(5)
    expected = rescored(model, r)
    logprobs = by_policy(P.Policy(model, 1.0, "bfloat16"), r, weights=r.completion_mask.float())
    assert logprobs.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert 1e-4 < (logprobs - expected).abs().max() < 0.5  # L6: products in bfloat16, the softmax not


# ---------------- what a model can


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("training", [True, False])
def test_output_is_linear_but_for_a_cap_or_a_scale(kind, training):
    model = make_model(kind).train(training)  # GPT-2's dropout of 0.1 must not show
    assert P.output_is_linear(model) == (kind in FOUR)
    assert all(module.training == training for module in model.modules())


def test_a_recurrent_model_falls_back_to_whole_forwards():
    config = MambaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=2, state_size=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MambaForCausalLM(config)
    policy, r = P.Policy(model, 1.0), random_rollout(0)
    assert not policy.shared
    same = replace(r, prompt_mask=torch.ones_like(r.prompt_mask))  # Mamba would see padding: prompts of one length
    torch.testing.assert_close(by_policy(policy, same), rescored(model, same).detach(), rtol=1e-4, atol=1e-4)


def test_a_cache_that_is_dropped_is_found_out():
    model = make_model("llama").train()
    model.activation_checkpointing_enable()
    assert not P.prompts_can_be_shared(model)  # left alone, a checkpointed layer gets no cache
    assert P.Policy(model, 1.0).shared


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_no_text_reaches_is_found_and_an_expert_may_be_missed(checkpointing):
    model = make_model("llama").train()
    model.tower, model.experts = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    if checkpointing:
        model.activation_checkpointing_enable()
    policy, r = P.Policy(model, 1.0), random_rollout(0)
    assert P.unreached(policy).keys() == {"model.tower.weight", "model.experts.weight"}
    assert all(p.grad is None for p in model.parameters())
    by_policy(policy, r, weights=r.completion_mask.float())
    assert model.experts.weight.grad is None
    policy.partial = True
    by_policy(policy, r, weights=r.completion_mask.float())
    assert model.experts.weight.grad.abs().max() == 0


# ---------------- the work done


def shapes_of(model, run):
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, ids, __: shapes.append(tuple(ids[0].shape)))
    run()
    hook.remove()
    return shapes


def test_each_prompt_is_forwarded_once_and_no_last_token_at_all():
    model, r = make_model("llama"), random_rollout(6, prompts=3, G=4)
    policy = P.Policy(model, 1.0)
    shapes = shapes_of(model, lambda: by_policy(policy, r))
    L, T = int(r.prompt_mask.sum(dim=1).max()), int(r.completion_mask.sum(dim=2).max())
    assert shapes == [(3, L), (12, T - 1)]
    # a token that ends a completion predicts nothing; one token needs no forward but the prompt's
    only = replace(r, completion_ids=r.completion_ids[:, :, :1], completion_mask=r.completion_mask[:, :, :1])
    assert shapes_of(model, lambda: by_policy(policy, only)) == [(3, L)]
    torch.testing.assert_close(by_policy(policy, only), rescored(model, only).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_cuts_by_length_leave_little_padding(seed):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 1000, (1 + 7 * seed,), generator=g).sort(descending=True).values.tolist()
    cuts = P.cut_by_length(lengths)
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])] and cuts[-1][1] == len(lengths)
    for start, stop in cuts:
        # at each place where it was not cut, cutting would have saved at most FORWARD_TOKENS: (longest - l) * rows
        # behind; so padding is at most FORWARD_TOKENS * (1 + 1/2 + ... + 1/n)
        padding = sum(lengths[start] - length for length in lengths[start:stop])
        assert padding <= P.FORWARD_TOKENS * sum(1 / n for n in range(1, len(lengths) - start + 1))
    assert P.cut_by_length([300] * 50 + [10] * 50) == [(0, 50), (50, 100)]  # 290 * 50 > 256
    assert P.cut_by_length([5, 4, 3]) == [(0, 3)]


@pytest.mark.parametrize(("seed", "shared"), list(itertools.product(range(12), [True, False])))
def test_N1_micro_batches_are_a_partition_within_the_budget(seed, shared):
    r, g = random_rollout(seed), torch.Generator().manual_seed(seed)
    samples = torch.randperm(18, generator=g)[: 1 + seed % 18]  # some samples are left out, in any order
    prompts, completions = r.prompt_mask.sum(dim=1).tolist(), r.completion_mask.sum(dim=2).flatten().tolist()

    def cost(piece):  # lengths differ by less than 20, so a piece of up to 12 samples is one forward
        of = {i // 3 for i in piece} if shared else [i // 3 for i in piece]
        return len(of) * max(prompts[p] for p in of) + len(piece) * max(completions[i] for i in piece)

    for budget in (1, 30, 64, 200, 10_000):
        pieces = [piece.tolist() for piece in micro_batches(r, samples, budget, shared=shared)]
        assert sorted(sum(pieces, [])) == sorted(samples.tolist())
        for piece in pieces:
            assert len(piece) == 1 or len(piece) > 12 or cost(piece) <= budget
            assert [completions[i] for i in piece] == sorted((completions[i] for i in piece), reverse=True)
        for p in range(6):  # a group stands in one piece if the whole of it fits one
            group = [i for i in samples.tolist() if i // 3 == p]
            if group and cost(group) <= budget:
                assert sum(any(i in piece for i in group) for piece in pieces) == 1
    assert micro_batches(r, torch.arange(0), 100) == []


@pytest.mark.parametrize("seed", range(3))
def test_sample_rows_are_the_samples_without_common_padding(seed):
    r, samples = random_rollout(seed), torch.tensor([16, 3, 4, 9])
    prompt_ids, prompt_mask, completion_ids, completion_mask, prompt_of, images = sample_rows(r, samples)
    assert images == ()
    assert prompt_ids.shape[0] == 3  # A2: 3 and 4 are samples of one prompt
    assert prompt_mask.any(dim=0).all() and completion_mask.any(dim=0).all()  # no column is all padding
    for row, sample in enumerate(samples.tolist()):
        p, g = divmod(sample, 3)
        prompt = prompt_ids[prompt_of[row]][prompt_mask[prompt_of[row]].bool()]
        assert prompt.tolist() == r.prompt_ids[p][r.prompt_mask[p].bool()].tolist()
        expected = r.completion_ids[p, g][r.completion_mask[p, g].bool()].tolist()
        assert completion_ids[row][completion_mask[row].bool()].tolist() == expected


def test_peak_of_logits_does_not_grow_with_samples_or_vocabulary():
    """The largest tensor that forward and backward make is a slice of logits, 2^25 numbers at most, for any V."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            seen.extend(x.numel() for x in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(x))
            return out

    vocabulary, tokens = 2**15, 4096
    hidden, weight = torch.randn(tokens, 4, requires_grad=True), torch.randn(vocabulary, 4, requires_grad=True)
    ids = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(0))
    known = torch.linspace(-1, 1, tokens)
    with Watch():
        logprobs = P.sliced_logprobs(hidden, weight, ids, grad=known)
        (known * logprobs).sum().backward()
    assert max(seen) == 2**25 // vocabulary * vocabulary < tokens * vocabulary
    expected = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    (known * token_logprobs(expected[0] @ expected[1].T, ids)).sum().backward()
    torch.testing.assert_close(hidden.grad, expected[0].grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weight.grad, expected[1].grad, rtol=1e-4, atol=1e-4)
