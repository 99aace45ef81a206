"""The paper's comparisons on the built-in task: a grid of variants and seeds, a table with error bars, a picture.

    python -m tools.study --list                            presets, with the flags of each variant
    python -m tools.study table1                            runs what is missing, then writes results/table1
    python -m tools.study table1 --seeds 3 --jobs 2         fewer seeds, two runs at once
    python -m tools.study table10 --out runs/long -- --steps 200      flags of train.py for all variants of the preset
    python -m tools.study gradient                          bias and noise of each estimate instead: tools/gradient.py

Every run is train.py, in a process of its own, on one thread, and ends as one line of RUNS (default: runs.jsonl beside
the study's folder): its flags, and its curves. A run whose flags and seed are there already is not run again, whichever
preset it was made for; one that was interrupted is. The study's folder holds rows.jsonl (a row a run), table.md and
curves.png (tools/compare.py); with all runs made, the command draws them again.
"""

import argparse
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from run.flags import BUILT_IN, fail, parse_args
from tasks import addition
from tools import compare

# What all runs share: a step of 8 groups costs a tenth of a second, and after 40 steps the reward is still rising.
# How it was chosen stands in results/README.md.
TASK = "--steps 40 --prompts-per-step 8 --group-size 8 --lr 7.5e-5 --warmup 5 --beta-th 0 --eval-every 10"
SGD = "--optimizer sgd --lr 0.025"

GPG = "GPG, α = B/(B−M)"
TABLE_1 = {
    "GRPO": "--f-norm group --norm sequence --no-age",
    "GPG, F_norm = 1, α = 1": "--no-age",
    "GPG, F_norm = std, α = 1": "--f-norm group --no-age",
    GPG: "",
    "GPG, α = B/(B−M), β_th = 0.6": "--beta-th 0.6",
    "Dr. GRPO": "--norm constant --no-age",
}
CONTROL = "α = 1, lr × 1.7"  # 1.7: the mean alpha of the pilot's runs of GPG, under AdamW and SGD alike

# name: (what is compared, the variant that others are held against, {variant: flags of train.py})
PRESETS = {
    "table1": ("Table 1, AdamW", GPG, TABLE_1 | {CONTROL: "--no-age --lr 1.275e-4"}),
    "table1-sgd": (
        "Table 1, SGD in place of AdamW",
        GPG,
        {name: f"{SGD} {words}".strip() for name, words in TABLE_1.items()}
        | {CONTROL: "--optimizer sgd --lr 0.0425 --no-age"},
    ),
    # lr of GPG over a method's mean gradient norm as a share of GPG's, in the AdamW runs of table1, seeds 0 to 3:
    # GRPO 1.48, F_norm = 1 and α = 1 0.69, std 1.44, Dr. GRPO 0.51. There, all methods see nearly the same policies.
    "sgd-norms": (
        "Table 1, SGD, rates that make up for each method's gradient norm",
        GPG,
        {
            name: f"--optimizer sgd --lr {lr} {TABLE_1[name]}".strip()
            for name, lr in zip(TABLE_1, ("0.0169", "0.0363", "0.0174", "0.025", "0.025", "0.049"), strict=True)
        },
    ),
    "table9": (
        "Table 9, all methods, AdamW",
        GPG,
        {
            GPG: "",
            "REINFORCE, mean of the group": "--no-age",
            "GRPO": TABLE_1["GRPO"],
            "GRPO, KL 0.04": "--algo grpo --kl-coef 0.04",
            "Dr. GRPO": TABLE_1["Dr. GRPO"],
            "DAPO": "--algo dapo --beta-th 1",
            "RLOO": "--algo rloo",
            "REINFORCE++": "--algo reinforce++",
            "ReMax": "--algo remax",
            "PPO, 2 updates": "--algo ppo",
            "GPG, lr × 2": "--lr 1.5e-4",  # as far as two updates go
            "SFT, 64 solutions a step": "--algo sft --prompts-per-step 64 --group-size 1",
        },
    ),
    "table10": (
        "Table 10, β_th",
        "β_th = 0",
        {f"β_th = {share}": f"--beta-th {share}" for share in ("0", "0.3", "0.6", "0.8")},
    ),
    "table11": (
        "Table 11, G at 64 samples a step, without α, as in the paper",
        "G = 8",
        {f"G = {G}": f"--group-size {G} --prompts-per-step {64 // G} --no-age" for G in (2, 4, 8, 16)},
    ),
    "table11-age": (
        "Table 11, G at 64 samples a step, with α",
        "G = 8",
        {f"G = {G}": f"--group-size {G} --prompts-per-step {64 // G}" for G in (2, 4, 8, 16)},
    ),
    "table12": (
        "Table 12, F_norm, without α, as in the paper",
        "F_norm = 1",
        {f"F_norm = {shown}": f"--f-norm {f} --no-age" for shown, f in (("group", "group"), ("batch", "batch"))}
        | {"F_norm = 1": "--no-age"},
    ),
    "kl": (
        "GPG with a KL term",
        "no KL",
        {"no KL": ""}
        | {f"KL {coef}, loss": f"--kl-coef {coef}" for coef in ("0.01", "0.04", "0.2")}
        | {"α = 1": "--no-age", "α = 1, KL 0.01, reward": "--no-age --kl-coef 0.01 --kl-in reward --kl k1"},
    ),
}
SEEDS = {"table1": 20, "table1-sgd": 20}  # for 1.5 points, paired, it takes 8, and 25 with beta_th
FEWEST_SEEDS = 8  # of the other presets

# Flags that change no number of a run, or are not the variant's: they don't tell runs apart.
BOOKKEEPING = {"out", "resume", "auto_resume", "overwrite", "plan", "tensorboard", "wandb", "save_every", "keep"}
BOOKKEEPING |= {"check_every", "rank_timeout", "reward_timeout", "cache_tokens", "noise_every", "record", "replay"}
PRELOADED = ["train", "transformers.models.qwen2.modeling_qwen2"]  # imported once, by the process that runs fork from
NOWHERE = str(Path(tempfile.gettempdir(), "study-nowhere"))  # an --out that holds no run
POLL = 0.5  # seconds between looks at whether a signal has come
LAST_LINES = 3  # of a failed run's output, which are shown


@dataclass(frozen=True)
class Job:
    variant: str
    words: list[str]  # flags of train.py, without --out
    flags: dict  # all of them after defaults, but BOOKKEEPING

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.flags['seed']}"


class Running(NamedTuple):
    job: Job
    out: Path  # train.py's --out; what it says is in OUT.log
    process: multiprocessing.Process
    receiver: Connection  # of its CPU seconds, at its end


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["gradient"]:
        from tools import gradient

        gradient.main(argv[1:])
        return
    ours, extra = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = parse_command(ours)
    if args.list:
        print("\n".join(describe(name) for name in PRESETS))
        return
    out, (title, reference, variants) = Path(args.out or Path("results", args.name)), PRESETS[args.name]
    store = Path(args.runs or out.parent / "runs.jsonl")
    jobs = [make_job(name, words, seed, extra) for seed in range(args.seeds) for name, words in variants.items()]
    known = load(store)
    missing = [job for job in jobs if key(job.flags) not in known]
    print(f"{args.name}: {len(jobs)} runs, {len(jobs) - len(missing)} of them in {store}", flush=True)
    failed = run_all(missing, args.jobs, store)
    known = load(store)
    runs = [(job.variant, known[key(job.flags)]) for job in jobs if key(job.flags) in known]
    if runs:
        shown = shlex.join(["python", "-m", "tools.study", args.name, "--seeds", str(args.seeds)])
        shown += f" -- {shlex.join(extra)}" if extra else ""
        flags = {
            name: shlex.join([*shlex.split(TASK), *extra, *shlex.split(words)]) for name, words in variants.items()
        }
        compare.write(out, compare.Study(title, reference, flags, runs, shown))
        print(f"{out}/table.md, {out}/curves.png")
    if failed:
        sys.exit(f"{len(failed)} runs failed; the same command runs them again")


def parse_command(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.study", description=__doc__.partition("\n")[0])
    parser.error = fail
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"preset: {', '.join(PRESETS)}")
    parser.add_argument("--list", action="store_true", help="show the presets, and stop")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 (default: 20 for table1, else 8)")
    parser.add_argument("--out", metavar="DIR", help="folder of table and picture, replaced (default: results/NAME)")
    parser.add_argument("--runs", metavar="FILE", help="all runs, a line each (default: DIR/../runs.jsonl)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at once, one thread each (default: 1)")
    args = parser.parse_args(argv)
    if args.list:
        return args
    if args.name not in PRESETS:
        fail(f"preset {args.name}: there is none; give one of {', '.join(PRESETS)} (see --list)")
    args.seeds = SEEDS.get(args.name, FEWEST_SEEDS) if args.seeds is None else args.seeds
    if min(args.seeds, args.jobs) < 1:
        fail("--seeds, --jobs: must be 1 or more")
    return args


def describe(name: str) -> str:
    title, reference, variants = PRESETS[name]
    lines = [f"{name}: {title}; {SEEDS.get(name, FEWEST_SEEDS)} seeds, held against {reference}"]
    return "\n".join(lines + [f"    {variant:<32} {words}" for variant, words in variants.items()])


def make_job(variant: str, words: str, seed: int, extra: list[str]) -> Job:
    """A variant's run; its own flags win over the extra ones, and those over what all share. Exits 2 on a wrong one."""
    words = [
        *shlex.split(TASK),
        *extra,
        *shlex.split(words),
        "--seed",
        str(seed),
        *"--save-every 0 --noise-every 0".split(),
    ]
    flags = vars(parse_args([*words, "--out", NOWHERE]))
    return Job(variant, words, {name: value for name, value in flags.items() if name not in BOOKKEEPING})


# ---------------------------------------------------------------------------------------------------------------- runs


def key(flags: dict) -> str:
    """What tells runs apart. A flag that is younger than a run has its default there: the code had no other way."""
    return json.dumps(_defaults() | flags, sort_keys=True)


@cache
def _defaults() -> dict:
    return {name: value for name, value in vars(parse_args(["--out", NOWHERE])).items() if name not in BOOKKEEPING}


def load(store: Path) -> dict[str, dict]:
    """The runs of a file, by what tells them apart; a line that a kill cut short counts as none."""
    runs = {}
    for number, line in enumerate(store.read_text(encoding="utf-8").splitlines() if store.exists() else [], 1):
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if not isinstance(run, dict) or "flags" not in run:
            fail(f"--runs {store}, line {number}: not a run of tools.study; give a file of its own, or none")
        runs[key(run["flags"])] = run
    return runs


def run_all(jobs: list[Job], num: int, store: Path) -> list[Job]:
    """Runs jobs, `num` at once, and adds a line to the store as each ends. Returns those that failed, after saying why.

    Whatever ends this process, a signal too, ends its children first.
    """
    if not jobs:
        return []
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        store.open("a").close()
    except OSError as error:
        fail(f"--runs {store}: can't be written ({error}); give a file in a folder of yours")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the server starts, whose environment all runs inherit
    make_models(jobs)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, running, failed, done = list(reversed(jobs)), [], [], 0
    with tempfile.TemporaryDirectory(prefix="study-") as folder, signals_noted() as stopped:
        try:
            while (waiting or running) and not stopped:
                while waiting and len(running) < num:
                    job = waiting.pop()
                    running.append(start(context, job, Path(folder, str(len(waiting)))))
                wait([each.process.sentinel for each in running], timeout=POLL)
                for each in [each for each in running if each.process.exitcode is not None and not stopped]:
                    running.remove(each)
                    done += 1
                    run = finished(each)
                    if run:
                        append(store, run)
                    else:
                        failed.append(each.job)
                    print(f"[{done}/{len(jobs)}] {each.job.name}: {brief(run) if run else trouble(each)}", flush=True)
        finally:
            for each in running:
                each.process.kill()
                each.process.join()
    if stopped:
        print(f"stopped; {done - len(failed)} runs were added to {store}, the same command goes on", flush=True)
        sys.exit(128 + stopped[0])
    return failed


def make_models(jobs: list[Job]) -> None:
    """The built-in model of each seed, so that no run makes it beside another that does."""
    torch.set_num_threads(1)
    for seed in sorted({job.flags["seed"] for job in jobs if job.flags["model"] == BUILT_IN}):
        addition.ensure(seed)


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """SIGINT and SIGTERM fill a list, and interrupt nothing: no child can be half started when they are ended."""
    noted = []
    before = {number: signal.signal(number, lambda n, _: noted.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(context, job: Job, out: Path) -> Running:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_one, args=([*job.words, "--out", str(out)], f"{out}.log", sender), daemon=True)
    process.start()
    sender.close()
    return Running(job, out, process, receiver)


def run_one(words: list[str], log: str, sender) -> None:
    """The child: train.py, all that it says in a file; sends its CPU seconds."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    file = os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import train

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a kill would leave behind
    began = time.process_time()
    train.main(words)
    sender.send(time.process_time() - began)


def end_with_parent() -> None:
    """A study that is killed outright can't end its runs: so they do."""
    multiprocessing.parent_process().join()
    os._exit(1)


def brief(run: dict) -> str:
    """What a run came to, for the person who watches."""
    reward = compare.measures(run, "steps", len(run["reward"]))["last"]
    return (
        f"reward of the last quarter {math.nan if reward is None else reward:.1f} %, {run['cpu_seconds']:.1f} s of CPU"
    )


def trouble(failed: Running) -> str:
    """Why a run failed: its exit code, and the end of what it said, indented."""
    log = Path(f"{failed.out}.log")
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n") if log.exists() else "no output"
    lines = [f"    {line}" for line in text.strip().splitlines()[-LAST_LINES:]]
    return "\n".join([f"failed, exit code {failed.process.exitcode}", *lines])


def finished(ended: Running) -> dict | None:
    """A run as one line: what it was, and its curves, a number a step, to four significant digits. None: it failed."""
    if ended.process.exitcode or not ended.receiver.poll():
        return None
    (job, out, *_), cpu_seconds = ended, ended.receiver.recv()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    run = {"flags": job.flags, "commit": config["versions"]["commit"], "torch": config["versions"]["torch"]}
    run |= {"date": date.today().isoformat(), "cpu_seconds": round(cpu_seconds, 2)}
    run["seconds"] = round(rows[-1]["seconds"], 2)
    for name in compare.CURVES:
        run[name] = [short(row.get(name)) for row in rows]
    if job.flags["algo"] == "sft":  # its rewards and tokens are those of solutions that it was given
        run |= dict.fromkeys(("reward", "easy_share", "hard_share"), [None] * len(rows))
        run["generated_tokens"] = [0] * len(rows)
    evaluated = [(row["step"], row["accuracy"]) for row in rows if "accuracy" in row]
    before = [(0, rows[0]["accuracy_before"])] if "accuracy_before" in rows[0] else []
    run["accuracy"] = [[step, short(share)] for step, share in before + evaluated]
    return run


def short(value: float | None) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def append(store: Path, run: dict) -> None:
    """One line at the end, after the end of a line that a kill cut short."""
    cut = store.exists() and store.stat().st_size and not store.read_bytes().endswith(b"\n")
    with open(store, "a", encoding="utf-8") as file:
        file.write("\n" * bool(cut) + json.dumps(run, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
