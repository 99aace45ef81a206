"""Several ranks are one process: real gloo groups, uneven shares, ranks with nothing.

Tried by hand, each turns this file red: counts of one rank, no all_reduce under f_norm batch, the mean over ranks of
DistributedDataParallel in place of the sum (also times the world size: see train.sum_gradients), streams keyed by rank,
a rank without samples that skips its backward (a hang, ended by the time limit).
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from test_gpg import random_batch
from torch.testing import assert_close

from gpg import F_NORMS, NORMS, global_sum, gpg_loss, token_weights

ROOT = Path(__file__).parents[1]
SEEDS = 6


def shares(seed, P, world):
    """Which groups each rank holds: uneven, and with seed 0 the last rank has all, the others nothing."""
    owner = [random.Random(seed * 100 + g).randrange(world) if seed else world - 1 for g in range(P)]
    return [[g for g in range(P) if owner[g] == rank] for rank in range(world)]


def every_case():
    for seed, f_norm, age, norm in itertools.product(range(SEEDS), F_NORMS, (True, False), NORMS):
        rewards, mask = random_batch(seed, groups=5)
        options = {"f_norm": f_norm, "age": age, "norm": norm, "max_len": 7, "num_groups": 5 + seed % 2}
        generator = torch.Generator().manual_seed(seed)
        yield seed, rewards, mask, torch.randn(mask.shape, dtype=torch.float64, generator=generator), options


def rank_main(rank, world, folder):
    """Every case on this rank's share; rank 0 writes the sums over ranks of weights (in their places) and losses."""
    store = dist.FileStore(f"{folder}/store-{world}", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    results = []
    for seed, rewards, mask, logprobs, options in every_case():
        mine = shares(seed, len(rewards), world)[rank]
        whole = torch.zeros(mask.shape, dtype=torch.float64)
        whole[mine] = token_weights(rewards[mine], mask[mine], **options)
        loss = gpg_loss(logprobs[mine], rewards[mine], mask[mine], **options)
        results.append((global_sum(whole), global_sum(loss)))
    if rank == 0:
        torch.save(results, f"{folder}/results-{world}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
def test_n2_weights_and_loss_over_ranks_equal_one_process(world, tmp_path):
    torch.multiprocessing.spawn(rank_main, args=(world, str(tmp_path)), nprocs=world)
    results = torch.load(tmp_path / f"results-{world}.pt")
    cases = list(every_case())
    assert len(results) == len(cases) == SEEDS * 3 * 2 * 5
    for (weights, loss), (_, rewards, mask, logprobs, options) in zip(results, cases, strict=True):
        assert_close(weights, token_weights(rewards, mask, **options), rtol=1e-12, atol=1e-16)
        assert_close(loss, gpg_loss(logprobs, rewards, mask, **options), rtol=1e-12, atol=1e-15)


def test_global_sum_without_a_process_group_is_the_tensor_itself():
    assert not dist.is_initialized()
    x = torch.ones(3)
    assert global_sum(x) is x


def torchrun(world, words, code=0, during=None):
    """Runs train.py on several ranks -> stdout, stderr; a hang ends after two minutes with none of its processes left.

    code: torchrun's exit code, as it must be. during: what is done to the running process, given its Popen.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, str(ROOT / "train.py"), *words], start_new_session=True, **pipes)
    try:
        if during:
            during(process)
        printed, errors = process.communicate(timeout=120)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, errors[-3000:]
    return printed, errors


@pytest.mark.slow
def test_n2_d2_a_run_on_two_and_three_ranks_is_the_run_on_one(world, tmp_path):
    """Samples, rows and parameters; 5 prompts on 3 ranks are shared unevenly, with 2 prompts one rank has none."""
    import train

    for prompts, ranks in ((5, (2, 3)), (2, (3,))):
        changes = {"prompts_per_step": prompts, "beta_th": 0.8, "max_rounds": 3, "norm": "token", "f_norm": "batch"}
        one = tmp_path / f"{prompts}-on-1"
        train.main(world(one, **changes))
        for n in ranks:
            many = tmp_path / f"{prompts}-on-{n}"
            torchrun(n, world(many, **changes))
            weights = [load_file(out / "final" / "model.safetensors") for out in (one, many)]
            for name in weights[0]:
                assert_close(weights[1][name], weights[0][name], rtol=1e-10, atol=1e-13)
            rows = [[json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()] for out in (one, many)]
            for a, b in zip(*rows, strict=True):
                same = [name for name in a if not name.startswith("seconds")]
                assert {name: b[name] for name in same} == pytest.approx({name: a[name] for name in same}, rel=1e-9)
            samples = [(out / "samples.jsonl").read_text() for out in (one, many)]
            assert samples[0] == samples[1]  # S4: completions do not depend on the ranks


@pytest.mark.slow
def test_r5_a_run_of_one_rank_resumes_on_two(world, tmp_path):
    import train

    train.main(world(tmp_path / "one", steps=4))
    train.main(world(tmp_path / "changed", steps=2))
    torchrun(2, ["--out", str(tmp_path / "changed"), "--resume", "--steps", "4"])
    weights = [load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "changed")]
    for name in weights[0]:
        assert_close(weights[1][name], weights[0][name], rtol=1e-10, atol=1e-13)
    assert (tmp_path / "one" / "samples.jsonl").read_text() == (tmp_path / "changed" / "samples.jsonl").read_text()
