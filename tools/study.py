"""Runs the paper's comparisons on the built-in task: variants times seeds, a table with error bars, a picture.

    python -m tools.study table1                            runs what is missing, then writes results/table1
    python -m tools.study table1 --seeds 3                  fewer seeds
    python -m tools.study table10 --out runs/long -- --steps 200      flags of train.py for all variants of the preset

Every run is train.py in its own process, on one thread, and becomes one line of runs.jsonl, beside the study's folder:
its flags and its curves. A run that is there already, from any preset, is not repeated. The study's folder gets
rows.jsonl, table.md and curves.png (tools/compare.py); when no run is missing, the command only makes these again.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

from run.flags import fail, parse_args
from tools import compare
from tools.runs import BOOKKEEPING, accuracy, read, rounded

# What all runs share, chosen so that the reward still rises after 40 steps: see results/README.md
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
TABLE_1_SGD = {name: f"{SGD} {words}" for name, words in TABLE_1.items()}
# GPG's lr divided by the ratio of the mean gradient norm to GPG's, in table1's runs of seeds 0 to 3, whose policies are
# nearly the same: GRPO 1.48, F_norm = 1 and α = 1 0.69, std 1.44, Dr. GRPO 0.51
RATES = zip(TABLE_1_SGD.items(), ("0.0169", "0.0363", "0.0174", "0.025", "0.025", "0.049"), strict=True)
SGD_NORMS = {name: words.replace("0.025", lr) for (name, words), lr in RATES}
TABLE_1_SGD |= {CONTROL: "--optimizer sgd --lr 0.0425 --no-age"}
TABLE_9 = {
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
    "GPG, lr × 2": "--lr 1.5e-4",  # the step of two updates
    "SFT, 64 solutions a step": "--algo sft --prompts-per-step 64 --group-size 1",
}
BETAS = {f"β_th = {b}": f"--beta-th {b}" for b in (0, 0.3, 0.6, 0.8)}
BETA_RATES = {f"{name}, lr {lr}": f"{BETAS[name]} --lr {lr}" for name in BETAS for lr in ("7.5e-5", "1.5e-4", "3e-4")}
BETA_BEST = {name: f"{words} --lr 3e-4" for name, words in BETAS.items()}  # of beta-rates, by sampled, whole run
SIZES = {f"G = {G}": f"--group-size {G} --prompts-per-step {64 // G}" for G in (2, 4, 8, 16)}
SIZES_WITHOUT_AGE = {name: f"{words} --no-age" for name, words in SIZES.items()}
F_NORMS = {f"F_norm = {name}": f"--f-norm {name} --no-age" for name in ("group", "batch")} | {"F_norm = 1": "--no-age"}
# alpha*LR: the rate times the mean alpha of the reference's run of the same seed
OWN = "α = 1, lr × the run's mean α"
STEP_SIZE = {GPG: "", "α = 1": "--no-age", OWN: "--no-age --lr alpha*7.5e-5"}
STEP_SIZE_SGD = {name: f"{SGD} {words.replace('7.5e-5', '0.025')}" for name, words in STEP_SIZE.items()}
LENGTHS = {
    f"{norm}, α = {age}": f"--model tiny-lengths --eval-every 20 --norm {norm} {flag}"
    for age, flag in (("B/(B−M)", ""), ("1", "--no-age"))
    for norm in ("group", "valid_token", "token", "sequence", "constant")
}
del LENGTHS["valid_token, α = 1"]  # it has no other α
# the job as --model tiny-pictures runs it, but without beta_th
PICTURES = "--model tiny-pictures --steps 200 --prompts-per-step 32 --lr 5e-4 --warmup 10 --eval-every 20"
TABLES_5_TO_8 = {name: f"{PICTURES} {TABLE_1[name]}" for name in (GPG, "GRPO", "Dr. GRPO")}
TABLES_5_TO_8 |= {"GPG, β_th = 0.25": f"{PICTURES} --beta-th 0.25", "DAPO": f"{PICTURES} --algo dapo --beta-th 1"}
TABLES_5_TO_8["SFT, 32 solutions a step"] = f"{PICTURES} --algo sft --group-size 1"
ALPHA = {
    GPG: "",
    "α = 1": "--no-age",
    "F_norm = std": "--f-norm group",
    "F_norm = std, α = 1": "--f-norm group --no-age",
}
ALPHA_OF = {
    kind: {name: f"{PICTURES.replace('pictures', kind)} {words}" for name, words in ALPHA.items()}
    for kind in ("count", "find")
}
# of the data that results/smollm2/problems.py writes; GPG with the paper's beta_th
SMOL = "--model HuggingFaceTB/SmolLM2-135M-Instruct --dtype bfloat16 --tokens-per-micro-batch 1024"
SUMS = f"{SMOL} --data sums_train.jsonl --eval-data sums_test.jsonl --template results/smollm2/sums.txt"
SUMS += " --max-new-tokens 6 --lr 5e-6 --eval-every 20"
MAWPS = f"{SMOL} --data mawps_train.jsonl --eval-data mawps_test.jsonl[:160] --template results/smollm2/mawps.txt"
MAWPS += " --max-new-tokens 14 --temperature 0.8 --prompts-per-step 6 --lr 1e-5 --eval-every 40"
THREE = {GPG: "--beta-th 0.6", "GRPO": TABLE_1["GRPO"], "Dr. GRPO": TABLE_1["Dr. GRPO"]}
KL = {"no KL": ""} | {f"KL {coef}, loss": f"--kl-coef {coef}" for coef in ("0.01", "0.04", "0.2")}
KL |= {"α = 1": "--no-age", "α = 1, KL 0.01, reward": "--no-age --kl-coef 0.01 --kl-in reward --kl k1"}

# name: (title, the variant that the others are compared with, {variant: flags of train.py})
PRESETS = {
    "table1": ("Table 1, AdamW", GPG, TABLE_1 | {CONTROL: "--no-age --lr 1.275e-4"}),
    "table1-sgd": ("Table 1, SGD in place of AdamW", GPG, TABLE_1_SGD),
    "sgd-norms": ("Table 1, SGD, rates that make up for each method's gradient norm", GPG, SGD_NORMS),
    "table9": ("Table 9, all methods, AdamW", GPG, TABLE_9),
    "table10": ("Table 10, β_th", "β_th = 0", BETAS),
    "table11": ("Table 11, G at 64 samples a step, without α, as in the paper", "G = 8", SIZES_WITHOUT_AGE),
    "table11-age": ("Table 11, G at 64 samples a step, with α", "G = 8", SIZES),
    "table12": ("Table 12, F_norm, without α, as in the paper", "F_norm = 1", F_NORMS),
    "step-size": ("α or the step size, AdamW", GPG, STEP_SIZE),
    "step-size-sgd": ("α or the step size, SGD", GPG, STEP_SIZE_SGD),
    "lengths": ("Norms where lengths differ fourfold, AdamW", "group, α = B/(B−M)", LENGTHS),
    "beta-rates": ("β_th, three rates each, on seeds of their own", "β_th = 0, lr 7.5e-5", BETA_RATES),
    "pictures": ("Tables 5 to 8, the built-in visual job", GPG, TABLES_5_TO_8),
    "pictures-alpha-count": ("α and F_norm where rewards are 0 or 1: counting", GPG, ALPHA_OF["count"]),
    "pictures-alpha-find": ("α and F_norm where rewards are graded: boxes", GPG, ALPHA_OF["find"]),
    "smollm2-sums": ("SmolLM2-135M on sums", GPG, {name: f"{SUMS} {words}" for name, words in THREE.items()}),
    "smollm2-mawps": ("SmolLM2-135M on MAWPS", GPG, {name: f"{MAWPS} {words}" for name, words in THREE.items()}),
    "beta-best": ("β_th, each at the best of three rates", "β_th = 0", BETA_BEST),
    "kl": ("GPG with a KL term", "no KL", KL),
}
# to resolve 1.5 points it takes 7 seeds, and 23 with beta_th
SEEDS, USUAL_SEEDS = dict.fromkeys(("table1", "step-size", "step-size-sgd", "lengths", "beta-best"), 20), 8
SEEDS |= dict.fromkeys(("pictures", "pictures-alpha-count", "pictures-alpha-find"), 10)
SEEDS |= {"smollm2-sums": 3, "smollm2-mawps": 3}
ROOT = Path(__file__).parents[1]
# ends its output with its CPU seconds, those of imports not counted
TIMED_RUN = "import sys, time, train; t = time.process_time(); train.main(sys.argv[1:]); print(time.process_time() - t)"
NOWHERE = str(Path(tempfile.gettempdir(), "study-nowhere"))  # an --out without a run


class Job(NamedTuple):
    variant: str
    words: list[str]  # flags of train.py, without --out
    flags: dict  # all of them after defaults, but BOOKKEEPING


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    ours, extra = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(prog="python -m tools.study", description=__doc__.partition("\n")[0])
    parser.error = fail
    parser.add_argument("name", choices=PRESETS, metavar="NAME", help=f"preset: {', '.join(PRESETS)}")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many (default: 3 to 20, by preset)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the others follow (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="folder of table and picture (default: results/NAME)")
    args = parser.parse_args(ours)
    args.seeds = SEEDS.get(args.name, USUAL_SEEDS) if args.seeds is None else args.seeds
    if args.seeds < 1:
        fail("--seeds: must be 1 or more")
    out, (title, reference, variants) = Path(args.out or Path("results", args.name)), PRESETS[args.name]
    store = out.parent / "runs.jsonl"
    store.parent.mkdir(parents=True, exist_ok=True)
    seeds, known, failed = range(args.first_seed, args.first_seed + args.seeds), load(store), set()
    while True:  # twice where a variant's rate comes from the reference's runs, which are made first
        jobs = make_jobs(variants, reference, seeds, extra, known)
        missing = [job for job in jobs if key(job.flags) not in known.keys() | failed]
        print(f"{args.name}: {len(jobs)} runs, {len(jobs) - len(missing)} of them in {store}", flush=True)
        if not missing:
            break
        for number, job in enumerate(missing, 1):
            run, said = run_one(job)
            if run:
                append(store, run)
            else:
                failed.add(key(job.flags))
            print(f"[{number}/{len(missing)}] {job.variant}, seed {job.flags['seed']}: {said}", flush=True)
        known = load(store)
    runs = [(job.variant, known[key(job.flags)]) for job in jobs if key(job.flags) in known]
    if runs:
        first = ["--first-seed", str(args.first_seed)] * bool(args.first_seed)
        shown = shlex.join(["python", "-m", "tools.study", args.name, "--seeds", str(args.seeds), *first])
        shown += f" -- {shlex.join(extra)}" if extra else ""
        common = shlex.join([*shlex.split(TASK), *extra])
        flags = {name: f"{common} {words}".strip() for name, words in variants.items()}
        compare.write(out, compare.Study(title, reference, flags, runs, shown))
        print(f"{out}/table.md, {out}/curves.png")
    if failed:
        sys.exit(f"{len(failed)} runs failed; the same command runs them again")


def make_jobs(variants: dict, reference: str, seeds: range, extra: list[str], known: dict[str, dict]) -> list[Job]:
    """All runs; of those with a rate alpha*LR only the ones whose reference has run, whose mean alpha is the factor."""
    jobs = []
    for seed in seeds:
        run = known.get(key(make_job(reference, variants[reference], seed, extra).flags))
        steps = [x for x in (run or {"alpha": []})["alpha"] if x is not None]
        for name, words in variants.items():
            before, scaled, rate = words.partition("alpha*")
            if scaled and steps:
                words = f"{before}{float(rate) * statistics.fmean(steps):.6g}"
            if not scaled or steps:
                jobs.append(make_job(name, words, seed, extra))
    return jobs


def make_job(variant: str, words: str, seed: int, extra: list[str]) -> Job:
    """One run of a variant, whose flags override the extra ones, and those TASK's. A wrong flag exits with code 2."""
    words = f"{TASK} {shlex.join(extra)} {words} --seed {seed} --save-every 0 --noise-every 0"
    return Job(variant, shlex.split(words), parsed(words))


@cache
def parsed(words: str) -> dict:
    """train.py's flags that can change a number of a run."""
    flags = vars(parse_args([*shlex.split(words), "--out", NOWHERE]))
    return {name: value for name, value in flags.items() if name not in BOOKKEEPING}


def key(flags: dict) -> str:
    """Identifies a run. A flag newer than the run counts as its default."""
    return json.dumps(parsed("") | flags, sort_keys=True)


def load(store: Path) -> dict[str, dict]:
    """The runs of a file, by key; a line that a kill cut short is ignored."""
    runs = {}
    for line in store.read_text(encoding="utf-8").splitlines() if store.exists() else []:
        with suppress(json.JSONDecodeError):
            run = json.loads(line)
            runs[key(run["flags"])] = run
    return runs


def run_one(job: Job) -> tuple[dict | None, str]:
    """Runs train.py -> the run for the store, and what to say of it; None and the end of its output if it failed.

    The store has the run's flags, and its curves to four significant digits per step.
    """
    from run.models import BUILT_INS  # imports torch

    if task := BUILT_INS.get(job.flags["model"]):
        task.ensure(job.flags["seed"])  # its CPU seconds are no run's
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        command = [sys.executable, "-c", TIMED_RUN, *job.words, "--out", folder]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # however this process ends, but by SIGKILL, subprocess.run ends the child
        done = subprocess.run(command, cwd=ROOT, env={"OMP_NUM_THREADS": "1"} | os.environ, **options)
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            return None, "\n    ".join([f"failed, exit code {done.returncode}", *lines[-3:]])
        trained = read(Path(folder))
    rows, versions, cpu = trained.rows, trained.config["versions"], round(float(lines[-1]), 2)
    run = {"flags": job.flags, "commit": versions["commit"], "torch": versions["torch"]}
    run |= {"date": date.today().isoformat(), "cpu_seconds": cpu, "seconds": round(rows[-1]["seconds"], 2)}
    for name in compare.CURVES:
        run[name] = [rounded(row.get(name)) for row in rows]
    run["accuracy"] = [[step, rounded(share)] for step, share, _ in accuracy(trained, 1)]
    for name in [name for name in rows[-1] if name.startswith("accuracy/")]:
        before = rows[0].get(name.replace("accuracy", "accuracy_before"))
        run[name] = [[0, rounded(before)], *([row["step"], rounded(row[name])] for row in rows if name in row)]
    for control, scores in trained.controls.items():
        run |= {f"{name}, {control}": [[rows[-1]["step"], rounded(x)]] for name, x in scores.items() if "/" in name}
    for name, is_right in (("tokens, right", True), ("tokens, wrong", False)):
        run[name] = [mean_length(step, is_right) for step in trained.groups]
    if job.flags["algo"] == "sft":  # rewards and tokens are those of the given solutions
        run |= dict.fromkeys(
            ("reward", "easy_share", "hard_share", "tokens, right", "tokens, wrong"), [None] * len(rows)
        )
        run["generated_tokens"] = [0] * len(rows)
    return run, f"{cpu:.1f} s of CPU"


def mean_length(step: dict, is_right: bool) -> float | None:
    """Mean tokens of a step's samples with a reward of 1, or of the others; None without any. step: of groups.jsonl."""
    pairs = zip(sum(step["rewards"], []), sum(step["tokens"], []), strict=True)
    lengths = [tokens for reward, tokens in pairs if (reward == 1) == is_right]
    return rounded(statistics.fmean(lengths)) if lengths else None


def append(store: Path, run: dict) -> None:
    """Adds a line, on a new line even after one that a kill cut short."""
    cut = store.exists() and store.stat().st_size and not store.read_bytes().endswith(b"\n")
    with open(store, "a", encoding="utf-8") as file:
        file.write("\n" * bool(cut) + json.dumps(run, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
