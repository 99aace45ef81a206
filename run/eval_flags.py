"""The flags of eval.py. As in flags.py, a wrong one is found before torch is imported."""

import argparse
import math
import os
import re
from functools import partial
from pathlib import Path

from run.flags import DTYPES, NO_FOLDER, Help, add_prompt_flags, complain, fail, for_device, no_folder, user_input
from tasks import benchmarks
from tasks.built_in import BENCHES, DEFAULTS
from tasks.prompts import load_template, system_prompt


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked; exits with 2 on the first wrong one."""
    parser = make_parser()
    args = parser.parse_args(argv)
    bench = args.bench or (None if args.data else BENCHES.get(args.model))
    if own := [DEFAULTS[model] for model, name in BENCHES.items() if bench and bench.partition("[")[0] == name]:
        lengths = {name: own[0][name] for name in ("max_prompt_tokens", "max_new_tokens")}
        parser.set_defaults(bench=bench, **lengths)
        args = parser.parse_args(argv)
    check(args)
    return for_device(args)


def make_parser() -> argparse.ArgumentParser:
    about = "Evaluates a model on benchmarks, compares two results, or grades a result again. See docs/evaluation.md."
    parser = argparse.ArgumentParser(prog="eval.py", description=about, formatter_class=Help, allow_abbrev=False)
    parser.error = partial(complain, parser)
    # fmt: off
    add = parser.add_argument_group("model and problems").add_argument
    add("--model", metavar="NAME",
        help="folder or hub name of a causal LM, such as OUT/final; tiny, tiny-pictures: built in, before training")
    add("--trust-remote-code", action="store_true", help="run the code that comes with --model, if it needs any")
    add("--bench", metavar="NAME,...",
        help=f"{', '.join(benchmarks.BENCHMARKS)}; NAME[:N] takes the first N (paper: the first five, in full)")
    add("--data-dir", metavar="DIR", help="folder of benchmark files such as aime24.jsonl (default: from the hub)")
    add("--data", metavar="SOURCE",
        help="your own problems: .jsonl, .json, .parquet or hub data set (its test split); a,b joins")
    add_prompt_flags(add)

    add = parser.add_argument_group("decoding").add_argument
    add("--samples", type=int, default=0, metavar="N", help="samples per problem, besides the greedy one (paper: 0)")
    add("--pass-k", metavar="K,...", help="the k of unbiased pass@k, at most N each (default: N)")
    add("--temperature", type=float, default=0.6, help="of the samples (paper's 1.5B code: 0.6)")
    add("--top-p", type=float, default=0.95, help="sample the fewest tokens of this mass; 1: off (1.5B code: 0.95)")
    add("--top-k", type=int, default=0, help="sample among this many likeliest tokens; 0: off (paper: not given)")
    add("--stop", nargs="+", metavar="TEXT", help="texts that end a completion, as its last part")
    add("--seed", type=int, default=0, help="of the samples, and of a built-in model")
    add("--max-prompt-tokens", type=int, default=1024,
        help="longer prompts are left out and counted (built-in tasks: 32, 40; paper: not given)")
    add("--max-new-tokens", type=int, default=2048,
        help="tokens of a completion (built-in tasks: 40, 14; 1.5B code: 32768)")
    add("--cache-tokens", type=int, default=2**18,
        help="prompt and completion tokens decoded at once: affects memory of the key-value cache, not results")
    add("--dtype", choices=DTYPES,
        help="of matrix products, as in training (paper: not given) (default: bfloat16 on a GPU, float32 on a CPU)")

    add = parser.add_argument_group("result").add_argument
    add("--out", metavar="FILE", help="file for settings, completions and verdicts (default: eval.jsonl)")
    add("--overwrite", action="store_true", help="replace --out")
    add("--resume", action="store_true", help="continue --out, left unfinished by a run with the same settings")
    add("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="two results: what changed on the problems in both")
    add("--regrade", metavar="FILE", help="a result: grade its completions with the current grader")
    # fmt: on
    return parser


def check(args: argparse.Namespace) -> None:
    """Exits on the first wrong flag, before anything slow."""
    if sum(map(bool, (args.model, args.compare, args.regrade))) != 1:
        fail("give one of --model (with --bench or --data), --compare BEFORE AFTER, --regrade FILE")
    args.out = args.out or ("eval.jsonl" if args.model else None)
    out = Path(args.out or "")
    least = {"samples": 0, "top_k": 0, "seed": 0, "max_prompt_tokens": 1, "max_new_tokens": 1, "cache_tokens": 1}
    for name, bound in least.items():
        if getattr(args, name) < bound:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {bound} or more")
    fields, new = args.problem_field or args.answer_field, args.out and not (args.overwrite or args.resume)
    for wrong, message in (
        (no_folder(args.model), f"--model {args.model}: {NO_FOLDER}"),
        (args.model and bool(args.bench) == bool(args.data), "give --bench or --data, one of the two"),
        (args.data_dir and not args.bench, "--data-dir needs --bench; with --data, name the files"),
        (fields and not args.data, "--problem-field and --answer-field need --data"),
        (not 0 < args.temperature < math.inf, f"--temperature {args.temperature}: must be above 0; greedy needs none"),
        ("" in (args.stop or ()), "--stop: an empty text ends every completion at its first token"),
        (not 0 < args.top_p <= 1, f"--top-p {args.top_p}: must be above 0, and at most 1 (off)"),
        (args.resume and not args.model, "--resume needs --model"),
        (args.resume and args.overwrite, "--resume continues --out, --overwrite replaces it: give one of them"),
        (args.out and out.is_dir(), f"--out {out}: is a folder; give a file"),
        (new and out.is_file(), f"--out {out}: exists; --resume continues it, --overwrite replaces it"),
        (args.resume and not out.exists(), f"--out {out}: does not exist; start it without --resume"),
    ):
        if wrong:
            fail(message)
    user_input(benchmarks.parse_benches, args.bench or "addition")
    user_input(system_prompt, args.system_prompt)
    user_input(load_template, args.template)
    if args.model:
        user_input(parse_ks, args.pass_k, args.samples)
    user_input(out.parent.mkdir, parents=True, exist_ok=True)
    if args.out and not os.access(out.parent, os.W_OK):
        fail(f"--out {out}: can't write to the folder {out.parent}; give a file in another")


def parse_ks(text: str | None, n: int) -> list[int]:
    """The k of pass@k, by default n. ValueError: not from 1 to n."""
    if text is None:
        return [n] if n else []
    words = [word.strip() for word in text.split(",")]
    ks = [int(word) for word in words if re.fullmatch(r"[1-9]\d{0,5}", word)]
    if len(ks) < len(words) or max(ks) > n:
        raise ValueError(f"--pass-k {text}: needs numbers from 1 to --samples, which is {n}")
    return ks
