"""Weak scaling: times a step on 1, 2, … ranks with the same work per rank, and the communication in it.

    OMP_NUM_THREADS=1 python -m tools.scaling --ranks 1 2

Steps are train.py's, with the built-in model; ranks are processes on this machine, with gloo. Times are wall-clock,
and meaningful only if each rank has a core to itself. Communication is timed separately, with all ranks starting
together: one all_reduce of all gradients, the exchange of groups, and the small sums of counts.
"""

import argparse
import gc
import statistics
import tempfile
import time
from dataclasses import replace

import torch
import torch.distributed as dist

import train
from engine.balance import share_out
from gpg import global_sum
from rewards import parse_rewards
from run import flags
from run.checkpoint import State
from run.models import load_trained
from run.problems import load_problems, make_scorer
from tasks import addition
from tools import plot


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.scaling", description=__doc__.partition("\n")[0])
    parser.error = flags.fail
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument("--prompts", type=int, default=16, help="per rank, 8 completions each (default: 16)")
    parser.add_argument("--steps", type=int, default=8, help="timed, after two for warm-up (default: 8)")
    work = parser.parse_args(argv)
    if min(*work.ranks, work.prompts, work.steps) < 1:
        flags.fail("--ranks, --prompts, --steps: must be 1 or more")
    addition.ensure(0)  # once, before anything is timed
    results = {}
    for ranks in work.ranks:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(rank_main, args=(ranks, work, folder), nprocs=ranks)
            results[ranks] = torch.load(f"{folder}/result.pt")
    print(table(results))


def rank_main(rank: int, ranks: int, work: argparse.Namespace, folder: str) -> None:
    """One rank; rank 0 saves what `steps` measures."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    result = steps(ranks, work, folder)  # model and DDP must be gone before the process group is
    gc.collect()
    if rank == 0:
        torch.save(result, f"{folder}/result.pt")
    dist.destroy_process_group()


def steps(ranks: int, work: argparse.Namespace, folder: str) -> dict[str, float]:
    """Median seconds of a step, and of each kind of communication in it."""
    words = ["--prompts-per-step", str(work.prompts * ranks), "--beta-th", "0", "--out", f"{folder}/out"]
    args = flags.parse_args(words)
    device = torch.device("cpu")
    model_folder, tokenizer, _, problems, _ = load_problems(args, None, "ddp")
    trained, state = load_trained(args, model_folder, tokenizer, None, "ddp", None, device), State()
    scorer = make_scorer(args, parse_rewards(args.rewards, args.max_new_tokens), problems, [])
    seconds = []
    for step in range(work.steps + 2):
        dist.barrier()
        began = time.perf_counter()
        now = replace(state, step=step, position=step * args.prompts_per_step)
        batch = train.collect(trained, problems, scorer, args, now)
        share = share_out(batch.rollout, train.weigh(batch, args))
        gradient = train.gradient_of(trained, share, args, halves=False)
        train.global_totals(batch, gradient, args.prompts_per_step, device)
        train.take_step(trained.optimizer, train.rate(args, now), learn=gradient.is_finite())
        dist.barrier()  # the slowest rank's step
        seconds.append(time.perf_counter() - began)
    gradients = torch.zeros(sum(parameter.numel() for parameter in trained.model.parameters()))
    weights = train.weigh(batch, args)
    return {
        "step": statistics.median(seconds[2:]),
        "gradients": timed(lambda: dist.all_reduce(gradients)),
        "groups": timed(lambda: share_out(batch.rollout, weights)),
        # valid groups of a round, counts in token_weights, totals of the step
        "counts": timed(lambda: [global_sum(torch.zeros(30, dtype=torch.float64)) for _ in range(3)]),
    }


def timed(function) -> float:
    """Median seconds of a collective, all ranks starting together."""
    seconds = []
    for _ in range(20):
        dist.barrier()
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def table(results: dict[int, dict]) -> str:
    """Markdown: seconds per step, efficiency (1: perfect scaling), and communication as shares of a step."""
    alone = next(iter(results.values()))["step"]
    lines = [["ranks", "s per step", "efficiency", "gradients", "exchange of groups", "sums of counts"]]
    for ranks, result in results.items():
        shares = [f"{result[name] / result['step']:.2%}" for name in ("gradients", "groups", "counts")]
        lines.append([str(ranks), f"{result['step']:.3f}", f"{alone / result['step']:.0%}", *shares])
    return plot.markdown(lines)


if __name__ == "__main__":
    main()
