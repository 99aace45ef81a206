"""Several ranks are one process: real gloo groups, uneven shares, ranks with nothing.

Tried by hand, each turns this file red: counts of one rank, no all_reduce under f_norm batch, the mean over ranks of
DistributedDataParallel in place of the sum (also times the world size: see parallel.sum_gradients), streams keyed by
rank, a rank without samples that skips its backward (a hang, ended by the time limit), a rank whose weights drift
unseen.
"""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import on_ranks
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


def rank_main(folder):
    """Every case on this rank's share; rank 0 writes the sums over ranks of weights (in their places) and losses."""
    dist.init_process_group("gloo")
    rank, world, results = dist.get_rank(), dist.get_world_size(), []
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
    on_ranks(world, tmp_path, rank_main, tmp_path)
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
            if n == 2:
                torchrun(n, world(many, **changes))
            else:
                on_ranks(n, tmp_path, train.main, world(many, **changes))
            weights = [load_file(out / "final" / "model.safetensors") for out in (one, many)]
            for name in weights[0]:
                assert_close(weights[1][name], weights[0][name], rtol=1e-10, atol=1e-13)
            rows = [[json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()] for out in (one, many)]
            for a, b in zip(*rows, strict=True):
                same = [name for name in a if not name.startswith(("seconds", "imbalance"))]
                assert {name: b[name] for name in same} == pytest.approx({name: a[name] for name in same}, rel=1e-9)
            for name in ("samples.jsonl", "groups.jsonl"):  # S4: completions do not depend on the ranks
                assert (one / name).read_bytes() == (many / name).read_bytes()


# Every norm and f_norm on 1 to 4 ranks: one process a rank makes all the runs, one after the other.

RUNS = [(norm, f_norm, "float64") for norm in NORMS for f_norm in F_NORMS]
RUNS += [(norm, "none", "float32") for norm in NORMS] + [("group", f_norm, "float32") for f_norm in F_NORMS[1:]]
STEPS, P, G = 5, 5, 4
EASY_IN_STEP_2 = """
calls = 0
def easy_in_step_2(completions, **_):
    global calls
    calls += 1
    return [1.0 if calls == 2 else float(len(c) % 2) for c in completions]
"""
COSINE = {"float64": {"rel": 1e-10, "abs": 1e-12}, "float32": {"abs": 1e-3}}
TOLERANCE = {"float64": {"rtol": 1e-10, "atol": 1e-13}, "float32": {"rtol": 1e-5, "atol": 1e-5}}


def noting_evaluations(rollout, prompts):
    """The function rollout, which also appends the prompts of greedy completions: those of an evaluation."""

    def noting(*arguments, **options):
        prompts.extend(() if options["temperature"] else map(tuple, arguments[2]))
        return rollout(*arguments, **options)

    return noting


def runs_main(folder, commands):
    """Makes all runs on this rank; leaves every sample of every step, and how a run ended that did not end well."""
    import train
    from run import flags
    from tools import replay

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    seen, steps, weigh, take_step, gradient_of = {}, Counter(), train.weigh, train.take_step, train.gradient_of
    now = {}

    def watched(batch, args):
        """Notes (completion, reward, its tokens' weights) under (run, number of the step, round, place in it)."""
        weights = weigh(batch, args)
        now["args"] = args
        places = list(range(rank, P, world))
        steps[args.out] += 1
        for group, rewards in enumerate(batch.rewards):
            key = (args.out, steps[args.out], group // len(places), places[group % len(places)])
            mask = batch.rollout.completion_mask[group].bool()
            ids = [row[keep].tolist() for row, keep in zip(batch.rollout.completion_ids[group], mask, strict=True)]
            seen[key] = (ids, rewards, weights[group].sum(dim=1))
        return weights

    def measured(*arguments, **options):
        now["gradient"] = gradient_of(*arguments, **options)
        if now["args"].out.endswith("skips") and rank == 1 and steps[now["args"].out] == 3:
            now["gradient"] = now["gradient"]._replace(loss=math.inf)
        return now["gradient"]

    def drifting(optimizer, lr, learn):
        take_step(optimizer, lr, learn)
        args, step = now["args"], steps[now["args"].out]
        if args.record or args.replay:
            parameters = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
            seen[args.replay or f"step {step}", world, rank] = now["gradient"].norm, parameters
        if args.out.endswith("skips"):
            seen["skips", rank, step] = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
        if args.out.endswith("drift") and rank == world - 1 and step == 3:
            with torch.no_grad():  # by one bit
                x = optimizer.param_groups[0]["params"][1].view(-1)
                x[3] = torch.nextafter(x[3], x[3] + 1)

    train.weigh, train.take_step, train.gradient_of = watched, drifting, measured
    train.rollout = noting_evaluations(train.rollout, seen.setdefault(("evaluated", world, rank), []))
    for words in commands:
        args = flags.parse_args(words)
        try:
            (replay.run if args.replay else train.train)(args, torch.device("cpu"))
        except FloatingPointError as error:
            seen[args.out, "error"] = str(error)
    torch.save(seen, f"{folder}/seen-{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    """The folder of all runs, by world/norm/f_norm/dtype, and what their ranks saw: {world: {(run, ...): sample}}."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("worlds")
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
    tokenizer.save_pretrained(folder / "model")
    # no biases: the gradient of a key's is 0 but for rounding, which AdamW would blow up to whole steps
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    config = LlamaConfig(**shape, eos_token_id=tokenizer.eos_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    options = {"model": folder / "model", "eval_data": None, "steps": STEPS, "prompts_per_step": P, "group_size": G}
    options |= {"beta_th": 0.8, "max_rounds": 2, "max_new_tokens": 4, "check_every": 1, "save_every": 0}
    options |= {"noise_every": 2}
    seen = {}
    for n in (4, 3, 2, 1):
        out = folder / str(n)
        commands = [
            world(out / f"{norm}-{f_norm}-{dtype}", **options, norm=norm, f_norm=f_norm, dtype=dtype)
            for norm, f_norm, dtype in RUNS
        ]
        if n == 4:
            commands.append(world(folder / "moved", **options | {"steps": 3}))
        if n == 2:
            commands.append(["--out", str(folder / "moved"), "--resume", "--steps", str(STEPS)])
        if n == 3:
            commands.append(world(folder / "cut", **options | {"steps": 3, "dtype": "float32"}))
            commands.append(["--out", str(folder / "cut"), "--resume", "--steps", str(STEPS)])
        commands.append(world(out / "drift", **options))
        if n == 2:
            rewards = folder / "rewards.py"
            rewards.write_text(EASY_IN_STEP_2)
            skips = {"rewards": f"{rewards}:easy_in_step_2", "steps": 4, "beta_th": 0, "dtype": "float32"}
            skips |= {"eval_data": f"{world.folder / 'test.jsonl'}[:11]", "noise_every": 0}
            commands.append(world(folder / "skips", **options | skips))
            recorded = {"steps": 2, "record": 1, "save_every": 1, "dtype": "float32"}
            commands.append(world(folder / "recorded", **options | recorded))
        if n < 3:
            commands.append(["--replay", str(folder / "recorded" / "rollouts" / "step-000002.safetensors")])
        on_ranks(n, folder, runs_main, folder, commands)
        seen[n] = {}
        for rank in range(n):
            seen[n] |= torch.load(folder / f"seen-{n}-{rank}.pt")
    return folder, seen


def assert_same_weights(folder, expected, dtype):
    weights = [load_file(out / "final" / "model.safetensors") for out in (folder, expected)]
    for name, value in weights[1].items():
        assert value.dtype == getattr(torch, dtype)
        assert_close(weights[0][name], value, **TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4])
def test_n2_d1_every_norm_and_f_norm_on_many_ranks_is_the_run_on_one(worlds, n):
    """Completions, rewards, weights (so advantages and alpha), rows, and the parameters after five steps."""
    folder, seen = worlds
    rounds = []
    for norm, f_norm, dtype in RUNS:
        name = f"{norm}-{f_norm}-{dtype}"
        outs = [folder / f"{k}" / name for k in (1, n)]
        one, many = (
            {key[1:]: sample for key, sample in seen[k].items() if key[0] == str(out)}
            for k, out in zip((1, n), outs, strict=True)
        )
        assert one.keys() == many.keys() and len({key[0] for key in one}) == STEPS
        for key, (ids, rewards, weights) in one.items():
            assert many[key][0] == ids and torch.equal(many[key][1], rewards)
            assert_close(many[key][2], weights, rtol=1e-12, atol=0)
        rows = [[json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()] for out in outs]
        for a, b in zip(*rows, strict=True):
            assert (a["alpha"], a["rounds"], a["valid_share"]) == (b["alpha"], b["rounds"], b["valid_share"])
            rounds.append(a["rounds"])
            assert ("grad_cosine" in a) == (a["step"] % 2 == 1)  # measured on one rank in test_noise.py
            cosines = ({name: x for name, x in row.items() if name == "grad_cosine"} for row in (b, a))
            assert next(cosines) == pytest.approx(next(cosines), **COSINE[dtype])
        assert_same_weights(outs[1], outs[0], dtype)
    assert set(rounds) >= {1, 2}  # beta_th collects


@pytest.mark.slow
def test_r5_a_run_of_four_ranks_resumes_on_two(worlds):
    folder, _ = worlds
    assert_same_weights(folder / "moved", folder / "1" / "group-none-float64", "float64")
    samples = [(out / "samples.jsonl").read_text() for out in (folder / "moved", folder / "1" / "group-none-float64")]
    assert samples[0] == samples[1]


@pytest.mark.slow
def test_r1_a_resumed_run_of_three_ranks_has_the_same_bits(worlds):
    """Sums of three float32 depend on their order, so the first step must add in the order of all later ones."""
    folder, _ = worlds
    cut, whole = (
        load_file(out / "final" / "model.safetensors") for out in (folder / "cut", folder / "3/group-none-float32")
    )
    assert all(torch.equal(cut[name], x) for name, x in whole.items())


@pytest.mark.slow
def test_n6_d3_all_ranks_leave_out_a_step_together_and_take_the_next(worlds):
    """Step 2 has no valid group; in step 3 the loss of rank 1 alone is infinite."""
    folder, seen = worlds
    one, two, three, four = ([seen[2]["skips", rank, step] for rank in range(2)] for step in range(1, 5))
    for rank in range(2):
        assert all(map(torch.equal, one[rank], two[rank])) and all(map(torch.equal, one[rank], three[rank]))
        assert not all(map(torch.equal, three[rank], four[rank]))
        assert all(map(torch.equal, four[rank], four[0]))
    rows = [json.loads(line) for line in (folder / "skips" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1]
    assert [(row["valid_share"] > 0, row["loss"] is None) for row in rows] == [
        (True, False), (False, False), (True, True), (True, False),
    ]  # fmt: skip


@pytest.mark.slow
def test_d5_an_evaluation_is_divided_among_the_ranks(worlds):
    """11 problems, before the first step and after the last: 6 each time on one rank, 5 on the other."""
    mine, other = (worlds[1][2]["evaluated", 2, rank] for rank in range(2))
    assert (len(mine), len(other)) == (12, 10)
    assert mine[:6] == mine[6:] and other[:5] == other[5:] and len({*mine, *other}) == 11


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_d1_one_bit_that_differs_on_one_rank_ends_the_run_and_is_named(worlds, n):
    folder, seen = worlds
    error = seen[n].get((str(folder / f"{n}" / "drift"), "error"))
    assert error == (f"after step 3 the parameters of rank {n - 1} are not those of rank 0" if n > 1 else None)
    assert not list((folder / f"{n}" / "drift").glob("checkpoint-*"))


@pytest.mark.slow
def test_a_replayed_update_has_the_same_bits_on_as_many_ranks_and_is_near_on_others(worlds):
    folder, seen = worlds
    file = str(folder / "recorded" / "rollouts" / "step-000002.safetensors")
    for rank in range(2):
        (norm, parameters), (again, others) = (seen[2][name, 2, rank] for name in ("step 2", file))
        assert norm == again > 0 and all(torch.equal(x, y) for x, y in zip(parameters, others, strict=True))
    alone, others = seen[1][file, 1, 0]
    assert alone == pytest.approx(norm, rel=1e-5)
    for x, y in zip(parameters, others, strict=True):
        assert_close(x, y, **TOLERANCE["float32"])


@pytest.mark.slow
def test_r5_a_run_of_one_rank_resumes_on_two(world, tmp_path):
    import train

    train.main(world(tmp_path / "one", steps=4))
    train.main(world(tmp_path / "changed", steps=2))
    on_ranks(2, tmp_path, train.main, ["--out", str(tmp_path / "changed"), "--resume", "--steps", "4"])
    weights = [load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "changed")]
    for name in weights[0]:
        assert_close(weights[1][name], weights[0][name], rtol=1e-10, atol=1e-13)
    assert (tmp_path / "one" / "samples.jsonl").read_text() == (tmp_path / "changed" / "samples.jsonl").read_text()
