"""Runs the paper's comparisons on the built-in task: variants times seeds, a table with error bars, a picture.

    python -m tools.study table1                            runs what is missing, then writes results/table1
    python -m tools.study table1 --seeds 3                  fewer seeds
    python -m tools.study table10 --out runs/long -- --steps 200      flags of train.py for all variants of the preset

config/studies.ini has the presets. Every run is train.py in its own process, on one thread, and becomes one line of
runs.jsonl, beside the study's folder: its flags and its curves. A run that is there already, from any preset, is not
repeated. The study's folder gets rows.jsonl, table.md and curves.png (tools/compare.py); when no run is missing, the
command only makes these again.
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
from configparser import ConfigParser
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

from run.flags import fail, parse_args, user_input
from tools import compare
from tools.runs import BOOKKEEPING, accuracy, read, rounded

ROOT = Path(__file__).parents[1]
# What all runs share, chosen so that the reward still rises after 40 steps: see results/README.md
TASK = "--steps 40 --prompts-per-step 8 --group-size 8 --lr 7.5e-5 --warmup 5 --beta-th 0 --eval-every 10"
# ends its output with its CPU seconds, those of imports not counted
TIMED_RUN = "import sys, time, train; t = time.process_time(); train.main(sys.argv[1:]); print(time.process_time() - t)"
NOWHERE = str(Path(tempfile.gettempdir(), "study-nowhere"))  # an --out without a run


class Preset(NamedTuple):
    title: str
    seeds: int
    reference: str  # the variant that the others are compared with
    variants: dict[str, str]  # name -> flags of train.py, after TASK's


def read_presets() -> dict[str, Preset]:
    """Those of config/studies.ini, by name."""
    parser = ConfigParser(delimiters=("::",), interpolation=None)
    parser.optionxform = str  # names have capitals
    parser.read(ROOT / "config" / "studies.ini", encoding="utf-8")
    presets = {}
    for name in parser.sections():
        variants = dict(parser[name])
        title, seeds, reference = map(variants.pop, ("title", "seeds", "reference"))
        common = variants.pop("common", "")
        variants = {variant: f"{common} {words}".strip() for variant, words in variants.items()}
        presets[name] = Preset(title, int(seeds), reference, variants)
    return presets


PRESETS = read_presets()


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
    out, (title, seeds, reference, variants) = Path(args.out or Path("results", args.name)), PRESETS[args.name]
    args.seeds = seeds if args.seeds is None else args.seeds
    if args.seeds < 1:
        fail("--seeds: must be 1 or more")
    store = out.parent / "runs.jsonl"
    user_input(store.parent.mkdir, parents=True, exist_ok=True)
    if own := {word.partition("=")[0] for word in extra} & {"--seed", "--out", "--plan", "--doctor", "--replay"}:
        fail(f"{min(own)} after --: a study gives its own; see --seeds, --first-seed, --out")
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
    for line in store.read_text(encoding="utf-8").split("\n") if store.exists() else []:
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
