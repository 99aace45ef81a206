"""Times a training step, its parts, and each optimization ("lever") on and off; compares with the machine and with TRL.

    python -m tools.bench                                           the built-in model with its default batch
    python -m tools.bench --model DIR --data FILE                   any other, by default 4 prompts x 8 x 128 tokens
    python -m tools.bench --random 1.5B --json results/gpu/a.json   a random Qwen2.5, 64 prompts x 8 x 256 tokens
    python -m tools.bench --peer trl --valid-share 0.5 0.25         a step against TRL's GRPOTrainer, with vLLM too
    python -m tools.bench --check                                   one step on CPU and GPU, with and without graphs

All other flags are train.py's. Seconds, s, are the process's CPU seconds, or a GPU's by the clock: medians after a
warm-up. Both sides of a ratio are measured in turn in one process, so that a busy machine slows both. Memory, MB, is
the increase in peak resident memory; nan: it was not enough. tools/speed.py measures.
"""

import argparse
import importlib.util
import json
import shlex
import sys
import tempfile
from pathlib import Path

from run import flags
from tools.runs import markdown

OUT = Path(tempfile.gettempdir(), "gpg-bench-is-not-written")  # train.py's flags need a folder; it is never made
# of Qwen2.5: hidden and intermediate size, layers, heads
SIZES = {"0.5B": (896, 4864, 24, 14), "1.5B": (1536, 8960, 28, 12), "7B": (3584, 18944, 28, 28)}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from tools import speed  # imports torch

    made = shlex.join(["python", "-m", "tools.bench", *(sys.argv[1:] if argv is None else argv)])
    if args.random:
        speed.make_random(args.model, args.data, args.prompts_per_step, SIZES[args.random])
    if args.json:
        flags.user_input(args.json.parent.mkdir, parents=True, exist_ok=True)
        flags.user_input(open, args.json, "a").close()
    found = {}
    for found in (speed.check if args.check else speed.peers if args.peer else speed.parts_and_levers)(args):
        if args.json:  # after each number: what comes next may fail
            text = json.dumps({"command": made} | found, indent=1, ensure_ascii=False)
            args.json.write_text(text.replace("NaN", "null") + "\n", encoding="utf-8")
    print("\n\n".join(table(title, rows) for title, rows in found.items()))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Our flags and train.py's, for steps of one round."""
    about = __doc__.partition("\n")[0] + " All other flags are train.py's."
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=about, allow_abbrev=False)
    parser.error = flags.fail
    add = parser.add_argument
    add("--model", default=flags.BUILT_IN, metavar="DIR", help="folder or hub name (default: the built-in model)")
    add("--random", choices=SIZES, help="a Qwen2.5 of this size with random weights, and prompts of 62 to 64 tokens")
    add("--valid-share", type=float, nargs="+", default=[0.5], metavar="S", help="valid groups (default: 0.5)")
    add("--repeats", type=int, default=3, help="timed, after one for warm-up (default: 3)")
    add("--peer", choices=("trl",), help="compare a step with TRL's GRPOTrainer, also with vLLM, instead")
    add("--check", action="store_true", help="compare samples and gradients of CPU and GPU instead, and graphs")
    add("--json", type=Path, metavar="FILE", help="write the numbers there too")
    ours, words = parser.parse_known_args(argv)
    usual = ["--prompts-per-step", "4", "--max-new-tokens", "128"]
    if ours.random:
        folder = Path(tempfile.gettempdir(), f"gpg-bench-{ours.random}")
        folder.mkdir(exist_ok=True)
        ours.model, usual = str(folder), ["--prompts-per-step", "64", "--max-new-tokens", "256"]
        usual += ["--data", f"{folder}/problems.jsonl"]
    usual = [] if ours.model == flags.BUILT_IN else usual
    words = ["--model", ours.model, *usual, *words, "--beta-th", "0", "--eval-every", "0", "--out", str(OUT)]
    args = argparse.Namespace(**vars(flags.parse_args(words)) | vars(ours))
    args.valid = [max(1, round(share * args.prompts_per_step)) for share in args.valid_share]  # groups
    if args.peer and not importlib.util.find_spec("trl"):
        flags.fail("--peer trl: pip install trl")
    if args.repeats < 1:
        flags.fail("--repeats: must be 1 or more")
    if not args.peer and len(args.valid_share) > 1:
        flags.fail("--valid-share: several are for --peer; give one")
    if not all(0 < share <= 1 for share in args.valid_share):
        flags.fail(f"--valid-share {args.valid_share}: must be above 0, and at most 1")
    return args


def table(title: str, rows: dict[str, dict[str, object]]) -> str:
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    return markdown([[title, *columns], *([name, *map(row.get, columns)] for name, row in rows.items())])


if __name__ == "__main__":
    main()
