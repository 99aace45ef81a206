"""The flags of eval.py. As in flags.py, a wrong one is found before torch is imported."""

import argparse
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from run.flags import Help, add_shared_flags, checked, complain, fail, user_input
from tasks import benchmarks
from tasks.built_in import BENCHES, DEFAULTS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked; exits with 2 on the first wrong one."""
    parser = make_parser()
    args = parser.parse_args(argv)
    bench = args.bench or (None if args.data else BENCHES.get(args.model))
    if own := [DEFAULTS[model] for model, name in BENCHES.items() if bench and bench.partition("[")[0] == name]:
        lengths = {name: own[0][name] for name in ("max_prompt_tokens", "max_new_tokens")}
        parser.set_defaults(bench=bench, **lengths)
        args = parser.parse_args(argv)
    reads = {"compare"} if args.compare else {"regrade", "out", "overwrite", "pass_k"}
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    if unread := sorted(given - reads) if (args.compare or args.regrade) and not args.model else []:
        fail(f"--{unread[0].replace('_', '-')}: not with --{'compare' if args.compare else 'regrade'}; leave it out")
    args.out = args.out or ("eval.jsonl" if args.model else None)
    return checked(args, mistakes(args))


def make_parser() -> argparse.ArgumentParser:
    about = "Evaluates a model on benchmarks, compares two results, or grades a result again. See docs/evaluation.md."
    parser = argparse.ArgumentParser(prog="eval.py", description=about, formatter_class=Help, allow_abbrev=False)
    parser.error = partial(complain, parser)
    # fmt: off
    add = parser.add_argument_group("model and problems").add_argument
    add("--model", metavar="NAME",
        help="folder or hub name of a causal LM, such as OUT/final; tiny, tiny-pictures: built in, before training")
    add("--bench", metavar="NAME,...",
        help=f"{', '.join(benchmarks.BENCHMARKS)}; NAME[:N] takes the first N (paper: the first five, in full)")
    add("--data-dir", metavar="DIR", help="folder of benchmark files such as aime24.jsonl (default: from the hub)")
    add("--data", metavar="SOURCE", help="your own: .jsonl, .json, .parquet or hub data set (its test split)")
    add("--samples", type=int, default=0, metavar="N", help="samples per problem, besides the greedy one (paper: 0)")
    add("--pass-k", metavar="K,...", help="the k of unbiased pass@k, at most N each (default: N)")
    add_shared_flags(parser)
    parser.set_defaults(temperature=0.6, top_p=0.95, cache_tokens=2**18)

    add = parser.add_argument_group("result").add_argument
    add("--out", metavar="FILE", help="file for settings, completions and verdicts (default: eval.jsonl)")
    add("--overwrite", action="store_true", help="replace --out")
    add("--resume", action="store_true", help="continue --out, left unfinished by a run with the same settings")
    add("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="two results: what changed on the problems in both")
    add("--regrade", metavar="FILE", help="a result: grade its completions with the current grader")
    # fmt: on
    return parser


def mistakes(args: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """What could be wrong with the flags, and whether it is."""
    out, fields = Path(args.out or ""), args.problem_field or args.answer_field or args.box_scale
    new = args.out and not (args.overwrite or args.resume)
    one = sum(map(bool, (args.model, args.compare, args.regrade)))
    # fmt: off
    yield "give one of --model (with --bench or --data), --compare BEFORE AFTER, --regrade FILE", one != 1
    yield "give --bench or --data, one of the two", args.model and bool(args.bench) == bool(args.data)
    yield "--data-dir needs --bench; with --data, name the files", args.data_dir and not args.bench
    yield "--problem-field, --answer-field and --box-scale need --data", fields and not args.data
    yield f"--cache-tokens {args.cache_tokens}: must be 1 or more", args.cache_tokens < 1
    yield f"--out {out}: is a folder or a device; give a file", args.out and out.exists() and not out.is_file()
    yield f"--out {out}: exists; --resume continues it, --overwrite replaces it", new and out.is_file()
    yield f"--out {out}: does not exist; start it without --resume", args.resume and not out.exists()
    # fmt: on
    user_input(benchmarks.parse_benches, args.bench or "addition")
    if args.model:
        user_input(parse_ks, args.pass_k, args.samples)
    user_input(out.parent.mkdir, parents=True, exist_ok=True)
    locked = args.out and not os.access(out.parent, os.W_OK)
    yield f"--out {out}: can't write to its folder; give a file in another", locked


def parse_ks(text: str | None, n: int) -> list[int]:
    """The k of pass@k, by default n. ValueError: not from 1 to n."""
    if text is None:
        return [n] if n else []
    words = [word.strip() for word in text.split(",")]
    ks = [int(word) for word in words if re.fullmatch(r"[1-9]\d{0,5}", word)]
    if len(ks) < len(words) or max(ks) > n:
        raise ValueError(f"--pass-k {text}: needs numbers from 1 to --samples, which is {n}")
    return ks
