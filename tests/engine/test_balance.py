"""engine/balance.py: every sample with a weight is trained on once, by ranks that have about as much to do.

Tried by hand, each turns this file red: groups dealt out in turn, groups never halved, prompts not counted, a part lost
when a group is halved, weights padded on the left, samples numbered by the rank's own groups.
"""

import random
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forked import on_ranks
from test_policy import random_rollout

from engine import balance
from engine.micro_batches import micro_batches
from rollout import Pictures

G = 3


def shares_of(lengths, prompts, ranks):
    """Groups of the given completion lengths, and the tokens of a part of one."""
    groups = [[s * 8 + g for g in range(len(row))] for s, row in enumerate(lengths)]

    def tokens(samples):
        return prompts[samples[0] // 8] + sum(lengths[i // 8][i % 8] for i in samples)

    return groups, tokens, balance.even_shares(groups, tokens, ranks)


def test_shares_by_hand():
    # tokens 10 + 8 * 10 = 90, 10 + 8 * 5 = 50, 10 + 8 * 4 = 42: 90 to one rank, 50 + 42 = 92 to the other
    groups, tokens, shares = shares_of([[10] * 8, [5] * 8, [4] * 8], [10, 10, 10], 2)
    assert [tokens(group) for group in groups] == [90, 50, 42]
    assert shares == [[groups[0]], [groups[1], groups[2]]]
    assert balance.imbalance(shares, tokens) == pytest.approx(92 / 91)
    # one group on two ranks: halves of 10 + 4 * 10 = 50 tokens each, the prompt is forwarded twice
    groups, tokens, shares = shares_of([[10] * 8], [10], 2)
    assert shares == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]] and balance.imbalance(shares, tokens) == 1
    assert balance.imbalance([[groups[0]], []], tokens) == 2  # 90 over a mean of 45
    assert balance.even_shares([], tokens, 3) == [[], [], []] and balance.imbalance([[], []], tokens) == 1


def test_patches_of_pictures_cost_a_forward_and_fill_a_budget():
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    ids, ones = torch.zeros(2, 1, 2, dtype=torch.long), torch.ones(2, 1, 2, dtype=torch.long)
    r = balance.Rollout(mask, mask, ids, ones, -ones, torch.zeros(2, 1, dtype=torch.bool))
    shown = replace(r, images=(Pictures(), Pictures((b"", b""), 40)))
    assert balance.prompt_costs(r) == [2, 3] and balance.prompt_costs(shown) == [2, 3 + 40]
    # both in one forward: 2 prompts of 3 and 2 completions of 2 are 10 tokens; with the patches 2 * 43 + 4 = 90
    for rollout, budget, pieces in ((r, 10, 1), (r, 9, 2), (shown, 90, 1), (shown, 89, 2)):
        assert len(micro_batches(rollout, torch.arange(2), budget)) == pieces


@pytest.mark.parametrize("seed", range(40))
def test_every_sample_once_and_no_rank_above_the_slack(seed):
    rng = random.Random(seed)
    S, ranks = rng.randint(1, 40), rng.choice([1, 2, 3, 4, 8, 16])
    lengths = [[rng.choice([1, 5, 50, 400]) + rng.randint(0, 20) for _ in range(8)] for _ in range(S)]
    groups, tokens, shares = shares_of(lengths, [rng.randint(1, 60) for _ in range(S)], ranks)
    assert sorted(i for share in shares for part in share for i in part) == sorted(sum(groups, []))
    loads = [sum(map(tokens, share)) for share in shares]
    longest = max(tokens([i]) for i in sum(groups, []))
    fullest = shares[loads.index(max(loads))]
    assert max(loads) * ranks <= balance.SLACK * sum(loads) or all(len(part) == 1 for part in fullest)
    # parts of one sample, the largest first to the least loaded: never worse than the mean and one sample
    assert max(loads) <= sum(loads) / ranks * balance.SLACK + longest


def rank_main(folder):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    r, weights = sampled(rank)
    torch.save(balance.share_out(r, weights)._asdict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def sampled(rank):
    """A skewed case: rank 0 has one short valid group, rank 1 none, rank 2 nothing at all, rank 3 all the rest."""
    r = random_rollout(rank, prompts=0 if rank == 2 else 6, G=G, longest=5 if rank == 0 else 200) if rank != 2 else None
    if r is None:
        r = random_rollout(0, prompts=1, G=G)
        r = balance.Rollout(**{name: value[:0] for name, value in vars(r).items()})
    weights = r.completion_mask.double() * torch.arange(1.0, r.truncated.numel() + 1).view(*r.truncated.shape, 1)
    weights[1 if rank == 0 else 0 if rank in (1, 2) else 6 :] = 0.0
    return r, weights * (-1) ** rank


@pytest.mark.slow
def test_ranks_share_out_all_that_any_of_them_sampled(tmp_path):
    on_ranks(4, tmp_path, rank_main, tmp_path)
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(4)]
    expected = []
    for rank in range(4):
        r, weights = sampled(rank)
        for p, g in weights.any(dim=2).nonzero().tolist():
            n = int(r.completion_mask[p, g].sum())
            prompt = r.prompt_ids[p][r.prompt_mask[p].bool()].tolist()
            expected.append((prompt, r.completion_ids[p, g, :n].tolist(), weights[p, g, :n].tolist()))
    got = []
    for share in shares:
        r, weights = share["rollout"], share["weights"]
        for p, g in (divmod(i, G) for i in share["samples"].tolist()):
            n = int(r.completion_mask[p, g].sum())
            prompt = r.prompt_ids[p][r.prompt_mask[p].bool()].tolist()
            got.append((prompt, r.completion_ids[p, g, :n].tolist(), weights[p, g, :n].tolist()))
            assert r.logprobs[p, g].tolist() == (r.completion_mask[p, g] * -1.0).tolist()
    assert sorted(got) == sorted(expected) and len(got) == (1 + 6) * G
    assert {share["before"] for share in shares} != {share["after"] for share in shares}
    assert shares[0]["before"] > 3.5 and shares[0]["after"] < 1.1  # the longest rank's tokens over the mean
