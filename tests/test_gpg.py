"""gpg.py against numbers worked out by hand, a slow plain version in loops, and exact enumeration. float64 throughout.

`test_a_known_bug_turns_this_file_red` patches known bugs of other trainers into gpg.py and expects the plain version to
notice each. The keys in comments (N5, A5, ...) are those of the traps that each test is for.
"""

import itertools
import math
import random
import types
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import gpg
from engine.output_layer import token_logprobs
from gpg import F_NORMS, NORMS, alpha, gpg_loss, group_advantages, token_weights

EXACT = {"rtol": 1e-12, "atol": 1e-15}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mask_of(lengths, width=None):
    """Lengths (P, G) -> completion_mask (P, G, T)."""
    lengths = torch.as_tensor(lengths)
    return (torch.arange(width or int(lengths.max())) < lengths[:, :, None]).long()


def random_batch(seed, groups=None):
    """Rewards with valid, all-right and all-wrong groups, ragged lengths: (P, G), (P, G, T)."""
    rng = random.Random(seed)
    P, G = groups or rng.randint(1, 6), rng.randint(2, 5)
    kinds = [rng.choice(["binary", "real", "right", "wrong", "tenth"]) for _ in range(P)]
    draw = {
        "binary": lambda: float(rng.random() < 0.5),
        "real": lambda: rng.gauss(0, 2),
        "right": lambda: 1.0,
        "wrong": lambda: 0.0,
        "tenth": lambda: 0.1,
    }
    rewards = f64([[draw[kind]() for _ in range(G)] for kind in kinds])
    lengths = torch.tensor([[rng.randint(1, 7) for _ in range(G)] for _ in range(P)])
    return rewards, mask_of(lengths, 7)


def plain_weights(rewards, mask, *, f_norm="none", age=True, norm="group", max_len=None, num_groups=None):
    """token_weights in loops over Python numbers, straight from the table of its docstring."""
    r, lengths = rewards.tolist(), mask.sum(dim=2).tolist()
    P, G = len(r), len(r[0])
    valid = [any(x != group[0] for x in group) for group in r]
    everything = [x for group in r for x in group]

    def std(xs):
        mean = math.fsum(xs) / len(xs)
        return math.sqrt(math.fsum((x - mean) ** 2 for x in xs) / (len(xs) - 1))

    num_valid, tokens = sum(valid), sum(map(sum, lengths))
    count = P if num_groups is None else num_groups
    a = max(1.0, count / num_valid) if age and num_valid else 1.0
    weights = torch.zeros(mask.shape, dtype=torch.float64)
    for g, i in itertools.product(range(P), range(G)):
        if not valid[g]:
            continue
        f = {"none": 1.0, "group": std(r[g]), "batch": std(everything)}[f_norm]
        advantage = (r[g][i] - math.fsum(r[g]) / G) / f
        w = {
            "group": a / (count * sum(lengths[g])),
            "valid_token": 1.0 / sum(sum(n) for n, v in zip(lengths, valid, strict=True) if v),
            "token": a / (tokens * count / P),
            "sequence": a / (count * G * lengths[g][i]),
            "constant": a / (count * G * (max_len or math.inf)),
        }[norm]
        weights[g, i, : lengths[g][i]] = advantage * w
    return weights


# ------------------------------------------------------------------------------------------------ Eq. 6: advantages


def test_eq6_advantages_by_hand():
    rewards = f64([[1, 0, 0, 1], [1, 1, 1, 0]])
    # means 1/2 and 3/4
    plain = f64([[0.5, -0.5, -0.5, 0.5], [0.25, 0.25, 0.25, -0.75]])
    assert_close(group_advantages(rewards), plain, **EXACT)
    # sample std (A6): sqrt(4 * (1/2)^2 / 3) = sqrt(1/3), and sqrt((3 * (1/4)^2 + (3/4)^2) / 3) = sqrt(12/16 / 3) = 1/2
    by_group = f64([[0.5, -0.5, -0.5, 0.5], [0.25, 0.25, 0.25, -0.75]]) / f64([[math.sqrt(1 / 3)], [0.5]])
    assert_close(group_advantages(rewards, "group"), by_group, **EXACT)
    # all eight: mean 5/8; squares 5 * (3/8)^2 + 3 * (5/8)^2 = 45/64 + 75/64 = 120/64; / 7 = 15/56
    assert_close(group_advantages(rewards, "batch"), plain / math.sqrt(15 / 56), **EXACT)


@pytest.mark.parametrize("f_norm", F_NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a5_a_group_without_spread_has_advantage_exactly_zero(f_norm, dtype):
    # the mean of eight 0.1 is not 0.1 in float32, and 0 / std of it would be anything
    rewards = torch.tensor([[0.1] * 8, [0.7] * 8, [1e6 + 0.1] * 8, [1.0] + [0.0] * 7], dtype=dtype)
    advantages = group_advantages(rewards, f_norm)
    assert advantages.dtype == dtype
    assert torch.equal(advantages[:3], torch.zeros(3, 8, dtype=dtype))
    assert (advantages[3] != 0).all()
    assert gpg.valid_groups(rewards).tolist() == [False, False, False, True]


def test_a2_permuting_prompts_permutes_advantages_and_a1_equal_groups_stay_two():
    rewards, _ = random_batch(3, groups=5)
    order = torch.tensor([3, 1, 4, 0, 2])
    for f_norm in F_NORMS:
        assert_close(group_advantages(rewards[order], f_norm), group_advantages(rewards, f_norm)[order], **EXACT)
    # two copies of one prompt are two groups: their means are not mixed
    assert_close(group_advantages(f64([[1, 0], [0, 0]])), f64([[0.5, -0.5], [0, 0]]), **EXACT)


@pytest.mark.parametrize("seed", range(20))
def test_n7_advantages_ignore_a_shift_and_scale_with_the_rewards(seed):
    rewards, _ = random_batch(seed)
    rewards = (rewards * 8).round()  # so that shifting and scaling round nothing
    assert_close(group_advantages(rewards + 3), group_advantages(rewards), **EXACT)
    assert_close(group_advantages(4 * rewards), 4 * group_advantages(rewards), **EXACT)
    assert_close(group_advantages(4 * rewards, "group"), group_advantages(rewards, "group"), **EXACT)


def test_batch_std_does_not_cancel():
    # E[x^2] - mean^2 would keep no digit of a spread of 1e-3 on 1e6
    rewards = f64([[0, 1e-3], [2e-3, 3e-3]])
    shifted = group_advantages(rewards + 1e6, "batch")
    assert_close(shifted, group_advantages(rewards, "batch"), rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------ Eq. 7 and 8: alpha, weights


def test_eq7_alpha_by_hand():
    assert alpha(8, 2) == 4.0  # B / (B - M) with 8 groups of G: 8 G / (8 G - 6 G)
    assert alpha(5, 5) == 1.0  # N6: nothing is invalid
    assert alpha(3, 4) == 1.0  # more valid groups than were asked for: never below 1
    assert alpha(4, 0) == math.inf


def test_m_counts_groups_without_spread_not_samples_without_reward():
    # verl's count of non-zero rewards gives 1.23, 16 and 2.67 on these; Eq. 7 gives 4, 4 and 1
    for rewards, expected in (
        ([[1, 1, 1, 1]] * 3 + [[1, 0, 0, 0]], 4.0),
        ([[0, 0, 0, 0]] * 3 + [[1, 0, 0, 0]], 4.0),
        ([[1, 0, 0, 0], [1, 1, 0, 0]], 1.0),
    ):
        mask = torch.ones(len(rewards), 4, 1)
        on, off = (token_weights(f64(rewards), mask, age=age) for age in (True, False))
        assert_close(on, expected * off, **EXACT)


# One batch for the five norms. P = 3, G = 2, T = 3.
#   group 0: rewards 1, 0 -> A = +1/2, -1/2; lengths 2, 3: 5 tokens
#   group 1: rewards 1, 1 -> A = 0, 0;       lengths 3, 3: 6 tokens
#   group 2: rewards 0, 3 -> A = -3/2, +3/2; lengths 1, 3: 4 tokens
# two groups of three are valid: alpha = 3/2; 15 tokens in all, 9 of them in valid groups
REWARDS = [[1, 0], [1, 1], [0, 3]]
LENGTHS = [[2, 3], [3, 3], [1, 3]]
BY_HAND = {  # weight of each token of the samples (0, 0), (0, 1), (2, 0), (2, 1)
    # alpha * A / (P * tokens of the group): 3/2 * 1/2 / (3 * 5) = 1/20; 3/2 * 3/2 / (3 * 4) = 3/16
    "group": (1 / 20, -1 / 20, -3 / 16, 3 / 16),
    # A / tokens of valid groups: 1/2 / 9, 3/2 / 9
    "valid_token": (1 / 18, -1 / 18, -1 / 6, 1 / 6),
    # alpha * A / all tokens: 3/2 * 1/2 / 15, 3/2 * 3/2 / 15
    "token": (1 / 20, -1 / 20, -3 / 20, 3 / 20),
    # alpha * A / (B * tokens of the sample), B = 6: 3/4 / (6 * 2), 3/4 / (6 * 3), 9/4 / (6 * 1), 9/4 / (6 * 3)
    "sequence": (1 / 16, -1 / 24, -3 / 8, 1 / 8),
    # alpha * A / (B * max_len), max_len = 10: 3/4 / 60, 9/4 / 60
    "constant": (1 / 80, -1 / 80, -3 / 80, 3 / 80),
}


@pytest.mark.parametrize("norm", NORMS)
def test_eq5_and_eq8_weights_by_hand(norm):
    weights = token_weights(f64(REWARDS), mask_of(LENGTHS), norm=norm, max_len=10)
    a, b, c, d = BY_HAND[norm]
    expected = f64([[[a, a, 0], [b, b, b]], [[0, 0, 0], [0, 0, 0]], [[c, 0, 0], [d, d, d]]])
    assert_close(weights, expected, **EXACT)


def test_eq8_loss_by_hand():
    # log-probabilities -1, -2, -3 at positions 0, 1, 2 everywhere; norm "group":
    # sum of w * logp = 1/20 (-3) - 1/20 (-6) - 3/16 (-1) + 3/16 (-6) = 3/20 - 15/16 = -63/80
    logprobs = f64([-1, -2, -3]).expand(3, 2, 3)
    assert_close(gpg_loss(logprobs, f64(REWARDS), mask_of(LENGTHS)), f64(63 / 80), **EXACT)


def test_appendix_a_alpha_turns_the_mean_over_all_into_the_mean_over_valid():
    # N = 2 GPUs, K = 4 samples each, B = 8, one token a sample; the second and the third group are invalid: M = 4
    rewards = f64([[1, 0], [1, 1], [0, 0], [2, 0]])
    mask = torch.ones(4, 2, 1)
    gradients = -group_advantages(rewards)  # Eq. 9: g of a sample, for a token whose d logp / d theta is 1
    pytorch = gradients.sum() / 8, (gradients**2).sum() / 8  # Eq. 10, of two test functions
    true = gradients.sum() / 4, (gradients**2).sum() / 4  # Eq. 11: S = B - M = 8 - 4
    weights = token_weights(rewards, mask, norm="sequence")
    assert_close(-weights.sum(), true[0], **EXACT)
    assert_close((weights.squeeze(2) * -gradients).sum(), true[1], **EXACT)
    assert_close(true[1], alpha(4, 2) * pytorch[1], **EXACT)  # Eq. 17


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("age", [True, False])
@pytest.mark.parametrize("f_norm", F_NORMS)
def test_gradient_of_a_softmax_policy_is_w_times_onehot_minus_p(f_norm, age, norm):
    for seed in range(10):
        rewards, mask = random_batch(seed)
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(*mask.shape, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        ids = torch.randint(5, mask.shape, generator=generator)
        options = {"f_norm": f_norm, "age": age, "norm": norm, "max_len": 7}
        gpg_loss(token_logprobs(logits, ids), rewards, mask, **options).backward()
        # d(-w logp[id]) / d logits = -w (onehot(id) - p)
        w = plain_weights(rewards, mask, **options)
        onehot = torch.nn.functional.one_hot(ids, 5)
        expected = -w[..., None] * (onehot - logits.detach().softmax(dim=-1))
        assert_close(logits.grad, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(10))
def test_n1_cutting_the_batch_leaves_the_gradient(norm, seed):
    rng = random.Random(seed)
    rewards, mask = random_batch(seed)
    logits = torch.randn(*mask.shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ids = torch.zeros(mask.shape, dtype=torch.long)
    weights = token_weights(rewards, mask, norm=norm, max_len=7).flatten(0, 1)

    def gradient(pieces):
        x = logits.clone().requires_grad_()
        for piece in pieces:
            (-(weights[piece] * token_logprobs(x, ids).flatten(0, 1)[piece]).sum()).backward()
        return x.grad

    samples = list(range(len(weights)))
    rng.shuffle(samples)
    cuts = sorted(rng.sample(range(1, len(samples)), rng.randint(1, len(samples) - 1)))
    pieces = [samples[a:b] for a, b in zip([0, *cuts], [*cuts, len(samples)], strict=True)]
    assert_close(gradient(pieces), gradient([samples]), rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("age", [True, False])
@pytest.mark.parametrize("f_norm", ["none", "group"])
@pytest.mark.parametrize("norm", NORMS)
def test_n5_adding_an_invalid_group_of_any_length(norm, f_norm, age):
    """With alpha it changes nothing, but for `token`; without, nothing under `valid_token` alone."""
    for seed in range(10):
        rewards, mask = random_batch(seed, groups=4)
        if not gpg.valid_groups(rewards).any():
            continue
        G = rewards.shape[1]
        length = random.Random(seed).choice([1, 7])
        more_rewards = torch.cat([rewards, torch.full((1, G), float(seed % 2), dtype=torch.float64)])
        more_mask = torch.cat([mask, mask_of([[length] * G], 7)])
        options = {"norm": norm, "f_norm": f_norm, "age": age, "max_len": 7}
        before = token_weights(rewards, mask, **options)
        after = token_weights(more_rewards, more_mask, **options)[:-1]
        if norm == "valid_token" or (age and norm != "token"):
            assert_close(after, before, **EXACT)
        else:
            assert not torch.allclose(after, before, rtol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_token_is_off_from_valid_token_by_the_ratio_of_mean_lengths(seed):
    rewards, mask = random_batch(seed, groups=5)
    valid = gpg.valid_groups(rewards)
    lengths = mask.sum(dim=2).double()
    if not valid.any():
        return
    ratio = lengths[valid].mean() / lengths.mean()
    expected = token_weights(rewards, mask, norm="valid_token") * ratio
    assert_close(token_weights(rewards, mask, norm="token"), expected, **EXACT)


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("seed", range(5))
def test_l9_on_policy_the_other_methods_are_options(method, seed):
    """Against their surrogates, written out: on policy the ratio is 1, and its gradient that of the log-probability."""
    rewards, mask = random_batch(seed, groups=4)
    P, G, T = mask.shape
    x = torch.randn(P, G, T, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    ratio = (x - x.detach()).exp()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = rewards.std(dim=1, keepdim=True)
    scaled = torch.where(rewards.amax(1, keepdim=True) > rewards.amin(1, keepdim=True), centred / spread, 0.0)
    if method == "grpo":  # mean over samples of the mean over tokens
        loss = -((ratio * scaled[:, :, None] * mask).sum(dim=2) / mask.sum(dim=2)).mean()
        options = {"f_norm": "group", "norm": "sequence", "age": False}
    elif method == "dr_grpo":  # no std, a constant length
        loss = -((ratio * centred[:, :, None] * mask).sum(dim=2) / 7).mean()
        options = {"norm": "constant", "max_len": 7, "age": False}
    else:  # one mean over all tokens
        loss = -(ratio * scaled[:, :, None] * mask).sum() / mask.sum()
        options = {"f_norm": "group", "norm": "token", "age": False}
    (expected,) = torch.autograd.grad(loss, x)
    (gradient,) = torch.autograd.grad(gpg_loss(x, rewards, mask, **options), x)
    assert_close(gradient, expected, rtol=1e-10, atol=1e-14)  # atol: centred / spread of equal rewards is rounding


# ---------------------------------------------------------------------------- beta_th: what a step of rounds counts


def test_a9_num_groups_of_several_rounds_by_hand():
    # P = 4 prompts a round, two rounds: 8 groups sampled, 2 of them valid, one token each, G = 2
    rewards = f64([[1, 0], [0, 0], [1, 1], [0, 0], [0, 0], [0, 1], [1, 1], [0, 0]])
    mask = torch.ones(8, 2, 1)
    # the step counts as 4 groups: alpha = 4 / 2; group: 2 * 1/2 / (4 * 2) = 1/8, the plain mean over the 2 valid groups
    assert token_weights(rewards, mask, num_groups=4)[0, 0, 0] == pytest.approx(1 / 8, rel=1e-12)
    assert token_weights(rewards, mask, num_groups=4, age=False)[0, 0, 0] == pytest.approx(1 / 16, rel=1e-12)
    # under token the batch has 16 * 4 / 8 = 8 tokens: 2 * 1/2 / 8
    assert token_weights(rewards, mask, num_groups=4, norm="token")[0, 0, 0] == pytest.approx(1 / 8, rel=1e-12)
    # under sequence it is 2 * 1/2 over 4 * 2 * 1
    assert token_weights(rewards, mask, num_groups=4, norm="sequence")[0, 0, 0] == pytest.approx(1 / 8, rel=1e-12)


def test_a9_more_valid_groups_than_prompts_leave_their_plain_mean():
    rewards = f64([[1, 0]] * 5)
    mask = torch.ones(5, 2, 1)
    # P = 3, S = 5 valid: num_groups = max(3, 5), alpha = 1, each 1/2 / (5 * 2)
    assert_close(token_weights(rewards, mask, num_groups=5)[0, 0, 0], f64(1 / 20), **EXACT)
    with pytest.raises(ValueError, match="num_groups=3 is below the 5 valid groups"):
        token_weights(rewards, mask, num_groups=3)


# ------------------------------------------------------------------------------------------------------------ the edges


@pytest.mark.parametrize("norm", NORMS)
def test_n6_no_valid_group_gives_zero_weights_and_no_nan(norm):
    weights = token_weights(f64([[1, 1], [0, 0]]), torch.ones(2, 2, 3), norm=norm, max_len=3)
    assert torch.equal(weights, torch.zeros(2, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_a_rank_with_nothing(norm):
    weights = token_weights(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 4, 6), norm=norm, max_len=6)
    assert weights.shape == (0, 4, 6) and weights.dtype == torch.float64


def test_one_group_is_its_own_batch():
    # A = +-1/2, 3 tokens, P = 1: 1/2 / 3
    weights = token_weights(f64([[1, 0]]), mask_of([[1, 2]]))
    assert_close(weights, f64([[[1 / 6, 0], [-1 / 6, -1 / 6]]]), **EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_n4_a_sample_with_an_empty_mask_has_no_weight_and_no_token(norm):
    rewards = f64([[1, 0, 1], [1, 0, 0]])
    weights = token_weights(rewards, mask_of([[2, 0, 1], [0, 0, 0]], 3), norm=norm, max_len=3)
    assert weights.isfinite().all()
    assert not weights[0, 1].any() and not weights[1].any() and weights[0, 0, :2].all()


def test_n4_an_empty_sample_counts_as_no_token_by_hand():
    # lengths 2, 0, 1 and 1, 1, 1: 3 tokens a group, 6 in all; A = 2, -1, -1 and -1, -1, 2; two groups of three
    rewards, mask = f64([[3, 0, 0], [0, 0, 3]]), mask_of([[2, 0, 1], [1, 1, 1]])
    # group: A / (2 * 3); valid_token, token: A / 6; sequence: A / (2 * 3 * own length); constant: A / (2 * 3 * 4)
    firsts = {"group": 2 / 6, "valid_token": 2 / 6, "token": 2 / 6, "sequence": 2 / 12, "constant": 2 / 24}
    units = {"group": 1 / 6, "valid_token": 1 / 6, "token": 1 / 6, "sequence": 1 / 6, "constant": 1 / 24}
    for norm in NORMS:
        a, u = firsts[norm], units[norm]
        expected = f64([[[a, a], [0, 0], [-u, 0]], [[-u, 0], [-u, 0], [2 * u, 0]]])
        assert_close(token_weights(rewards, mask, norm=norm, max_len=4), expected, **EXACT)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(10))
def test_n3_inputs_stay_and_dtype_and_kind_of_mask_do_not_matter(norm, seed):
    rewards, mask = random_batch(seed)
    kept = rewards.clone(), mask.clone()
    weights = token_weights(rewards, mask, norm=norm, max_len=7)
    assert torch.equal(rewards, kept[0]) and torch.equal(mask, kept[1])
    for other in (mask.bool(), mask.double(), mask.float(), mask.int()):
        assert torch.equal(token_weights(rewards, other, norm=norm, max_len=7), weights)
    single = token_weights(rewards.float(), mask, norm=norm, max_len=7)
    assert single.dtype == torch.float32
    assert_close(single.double(), weights, rtol=1e-4, atol=1e-6)


def test_n8_constant_divides_by_the_budget_not_by_the_padded_width():
    rewards = f64([[1, 0]])
    narrow = token_weights(rewards, mask_of([[1, 2]], 2), norm="constant", max_len=9)
    wide = token_weights(rewards, mask_of([[1, 2]], 5), norm="constant", max_len=9)
    assert_close(narrow, wide[:, :, :2], **EXACT)


@pytest.mark.parametrize("f_norm", F_NORMS)
def test_rewards_that_differ_by_rounding_are_equal(f_norm):
    """0.1 + 0.2 + 0.3 added in two orders: 0.6000000000000001 and 0.6; 1e-300 and 0 do differ."""
    rewards = f64([[0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.6], [1, 0, 0]])
    assert rewards[0, 0] != rewards[0, 2]
    assert group_advantages(rewards, f_norm)[0].tolist() == [0, 0, 0]
    mask = torch.ones(2, 3, 4)
    assert_close(token_weights(rewards, mask)[1], token_weights(rewards[1:], mask[1:])[0], rtol=1e-14, atol=0)
    assert gpg.valid_groups(f64([[1e-300, 0], [-1, 1], [1e6, 1e6 + 1e-3]])).tolist() == [True] * 3


def test_a_mask_of_any_dtype_counts_tokens_exactly():
    """1001 and 3001 tokens: bfloat16 would round these sums to 1000 and 3008."""
    lengths, rewards = torch.tensor([[1001, 3001]]), f64([[1, 0]])
    mask = torch.arange(3001) < lengths[:, :, None]
    for dtype in (torch.bool, torch.long, torch.float32, torch.bfloat16, torch.float16):
        weights = token_weights(rewards, mask.to(dtype), norm="sequence")
        assert_close(weights[0, :, 0], f64([0.5 / 2 / 1001, -0.5 / 2 / 3001]), rtol=1e-14, atol=0)


def test_weights_are_constants():
    """A reward model's graph gets no gradient through them."""
    rewards = f64([[1, 0]]).requires_grad_()
    assert not token_weights(rewards, torch.ones(1, 2, 3)).requires_grad


@pytest.mark.parametrize("norm", NORMS)
def test_no_groups_at_all_have_no_weights(norm):
    for f_norm, age in itertools.product(F_NORMS, (True, False)):
        options = {"f_norm": f_norm, "age": age, "norm": norm, "max_len": 3}
        assert token_weights(torch.zeros(0, 2), torch.ones(0, 2, 3), **options).shape == (0, 2, 3)


def test_log_probabilities_of_another_shape_are_not_broadcast():
    for shape in ((1, 2), (1, 2, 1), (2, 3), ()):
        with pytest.raises(ValueError, match="differ in shape"):
            gpg_loss(torch.zeros(shape), f64([[1, 0]]), torch.ones(1, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((f64([1, 0]), torch.ones(1, 2, 3)), {}, r"shape \(P, G\); got torch.float64, \(2,\)"),
        ((torch.ones(1, 2).long(), torch.ones(1, 2, 3)), {}, "must be float32 or 64"),
        ((torch.ones(1, 2).bfloat16(), torch.ones(1, 2, 3)), {}, "must be float32 or 64"),
        ((f64([[1]]), torch.ones(1, 1, 3)), {}, "a group of one has no baseline"),  # A8
        ((f64([[1, math.nan]]), torch.ones(1, 2, 3)), {}, r"rewards\[0, 1\] is nan"),  # A7
        ((f64([[0, 1], [math.inf, 1]]), torch.ones(2, 2, 3)), {}, r"rewards\[1, 0\] is inf"),
        ((f64([[0, 1]]), torch.ones(2, 1, 3)), {}, r"\(2, 1, 3\) and \(1, 2\)"),
        ((f64([[0, 1]]), torch.ones(1, 2)), {}, r"completion_mask must be \(P, G, T\)"),
        (
            (f64([[0, 1]]), torch.ones(1, 2, 3)),
            {"norm": "mean"},
            'norm="mean" is unknown; use one of group, valid_token',
        ),
        ((f64([[0, 1]]), torch.ones(1, 2, 3)), {"f_norm": "std"}, 'f_norm="std" is unknown; use one of none, group'),
        ((f64([[0, 1]]), torch.ones(1, 2, 3)), {"norm": "constant"}, "needs max_len"),
        ((f64([[0, 1]]), torch.ones(1, 2, 3)), {"norm": "constant", "max_len": 2}, "needs max_len"),
    ],
)
def test_what_cannot_be_meant_is_a_value_error(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        token_weights(*arguments, **options)


# ------------------------------------------------------------- a policy small enough to enumerate every outcome


def outcomes(theta):
    """A policy over {EOS, a, b} that may say two tokens: its 7 completions as (logprob of each token, length)."""
    first, second = theta[:3].log_softmax(0), theta[3:].view(2, 3).log_softmax(1)
    yield torch.stack([first[0], first.new_zeros(())]), 1
    for a, b in itertools.product(range(2), range(3)):
        yield torch.stack([first[a + 1], second[a, b]]), 2


def expected_gradient(theta, rewards, G, **options):
    """E[gradient of gpg_loss] over all 7^G groups of one prompt, weighted by their exact probability."""
    total = torch.zeros_like(theta)
    possible = list(outcomes(theta))
    for group in itertools.product(range(7), repeat=G):
        logprobs = torch.stack([possible[o][0] for o in group])[None]  # (1, G, 2)
        mask = mask_of([[possible[o][1] for o in group]], 2)
        probability = logprobs.sum().exp().detach()
        loss = gpg_loss(logprobs, rewards[list(group)][None], mask, **options)
        total += probability * torch.autograd.grad(loss, theta, retain_graph=True)[0]
    return total


THETA = [0.3, -0.7, 0.5, 1.1, -0.2, 0.4, -0.9, 0.8, 0.1]
OUTCOME_REWARDS = [0.0, 1.0, 0.0, 0.25, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("G", [2, 3, 4])
def test_expected_gradient_is_the_policy_gradient_times_1_minus_1_over_g(G):
    """E[GPG gradient] = (1 - 1/G) grad J, for alpha = 1, F_norm = 1, norm constant.

    The factor comes from the baseline, which holds the sample itself: E[mean(r) * grad log pi_i] = E[r_i * grad log
    pi_i] / G, as the other G - 1 rewards are independent of sample i and E[grad log pi_i] = 0. So 1/G of the
    gradient is subtracted.
    """
    theta = f64(THETA).requires_grad_()
    rewards = f64(OUTCOME_REWARDS)
    # grad J exactly: J = sum over outcomes of p(o) r(o)
    J = sum(logprobs.sum().exp() * r for (logprobs, _), r in zip(outcomes(theta), rewards, strict=True))
    (policy_gradient,) = torch.autograd.grad(J, theta)
    gradient = expected_gradient(theta, rewards, G, age=False, norm="constant", max_len=2)
    # the loss is minimised, hence the sign; max_len = 2 divides
    assert_close(gradient, -(1 - 1 / G) * policy_gradient / 2, rtol=1e-10, atol=1e-14)


def test_alpha_is_a_step_size_the_direction_stays():
    """Two prompts of the same policy: E[alpha g | some group valid] = E[g of a valid group] = E[g] / P(valid)."""
    theta = f64([0.4]).requires_grad_()  # one token of {right, wrong}: p = sigmoid(theta), reward 1 or 0; G = 2
    logp = torch.stack([torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)]).squeeze(1)
    total, mass = 0.0, 0.0
    for draw in itertools.product((0, 1), repeat=4):
        rewards = f64([[1 - draw[0], 1 - draw[1]], [1 - draw[2], 1 - draw[3]]])
        logprobs = logp[list(draw)].view(2, 2, 1)
        if not gpg.valid_groups(rewards).any():
            continue
        loss = gpg_loss(logprobs, rewards, torch.ones(2, 2, 1), norm="sequence")
        probability = logprobs.sum().exp().item()
        mass += probability
        total += probability * torch.autograd.grad(loss, theta, retain_graph=True)[0].item()
    p = torch.sigmoid(theta).item()
    valid = 2 * p * (1 - p)  # the two samples differ
    # E[g] of one group: -(1 - 1/G) dJ/dtheta = -1/2 p (1 - p); given that it is valid: that / valid = -1/4
    assert total / mass == pytest.approx(-0.5 * p * (1 - p) / valid, rel=1e-12)
    assert total / mass == pytest.approx(-1 / 4, rel=1e-12)


# -------------------------------------------------------------------------------------------------------------- mutants

MUTANTS = {  # a bug that another trainer has had: (text of gpg.py, what stands there instead)
    "alpha from non-zero rewards, as verl": ("num_valid) if age", "(rewards != 0).sum().item() / G) if age"),
    "local mean over the micro-batch": (
        "num_groups * lengths.sum(dim=1, keepdim=True)",
        "lengths.sum(dim=1, keepdim=True)",
    ),
    "validity by a float std": (
        "high - low > 8 * torch.finfo(rewards.dtype).eps * torch.maximum(low.abs(), high.abs())",
        "(rewards - rewards.mean(1, True)).any(1)",
    ),
    "an epsilon in the std": ("rewards.std(dim=1, keepdim=True)", "(rewards.std(dim=1, keepdim=True) + 1e-4)"),
    "population std": ("rewards.std(dim=1, keepdim=True)", "rewards.std(dim=1, keepdim=True, correction=0)"),
    "tokens of valid groups under token": (
        "tokens * num_groups / max(1, given)",
        "valid_tokens * num_groups / max(1, given)",
    ),
    "padded width as max_len": ("num_groups * G * max_len)", "num_groups * G * completion_mask.shape[2])"),
    "alpha twice under valid_token": (' and norm != "valid_token"', ""),
    "padding gets weight": (
        "weights[:, :, None] * completion_mask.to(rewards.dtype)",
        "weights[:, :, None].expand_as(completion_mask)",
    ),
    "samples instead of groups": ("num_groups * G * lengths", "num_groups * lengths"),
}


def agrees_with_the_plain_version(module):
    for seed, f_norm, age, norm in itertools.product(range(12), F_NORMS, (True, False), NORMS):
        rewards, mask = random_batch(seed)
        options = {"f_norm": f_norm, "age": age, "norm": norm, "max_len": 9}
        if seed % 2:
            options["num_groups"] = len(rewards)
        if not torch.allclose(
            module.token_weights(rewards, mask, **options), plain_weights(rewards, mask, **options), **EXACT
        ):
            return False
    return True


@pytest.mark.parametrize("bug", ["none", *MUTANTS])
def test_a_known_bug_turns_this_file_red(bug):
    source = Path(gpg.__file__).read_text()
    if bug != "none":
        right, wrong = MUTANTS[bug]
        assert right in source, "gpg.py has changed: write this mutant anew"
        source = source.replace(right, wrong)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    assert agrees_with_the_plain_version(module) == (bug == "none")
