"""The flags of train.py, with their units and the paper's values. A wrong one ends in one line, with exit code 2.

Later values win: the paper's, then the built-in model's or the resumed run's, then a recipe's, then the user's. All are
checked before torch is imported, as that takes seconds.
"""

import argparse
import difflib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from run import checkpoint
from tasks.built_in import DEFAULTS
from tasks.pictures import GOLD_SIZES
from tasks.prompts import SYSTEM_PROMPTS, TEMPLATES, load_template, system_prompt

ROOT = Path(__file__).parents[1]
BUILT_IN = "tiny"
# flags of a command, not of a run
OF_COMMAND = {"out", "resume", "auto_resume", "overwrite", "allow_changes", "plan", "doctor", "replay"}
F_NORMS, NORMS = ("none", "group", "batch"), ("group", "valid_token", "token", "sequence", "constant")  # gpg.py's
BASELINES = ("group", "others", "batch", "greedy", "critic")

MOST, LEAST = sys.float_info.max, sys.float_info.min
RANGES = {  # of flags of train.py and of eval.py
    "0 or more": (0, MOST, "top_k warmup weight_decay grad_clip seed lora_rank kl_coef overlong_buffer eval_every "
                  "critic_lr_factor save_every check_every noise_every record keep reward_timeout cache_tokens "
                  "samples"),
    "1 or more": (1, MOST, "steps group_size prompts_per_step max_rounds max_prompt_tokens max_new_tokens updates "
                  "rank_timeout tokens_per_micro_batch"),
    "from 0 to 1": (0, 1, "beta_th lr_floor gae_lambda"),
    "above 0": (LEAST, MOST, "lr temperature"),
    "above 0, and at most 1": (LEAST, 1, "top_p"),
}  # fmt: skip

# The flags of each method, with the values of paper and code. What is not named keeps GPG's default.
_EVERY_GROUP = {"age": False, "beta_th": 0.0}
_CLIP = {"clip": (0.2, 0.2)}
ALGOS: dict[str, dict[str, object]] = {
    "gpg": {},
    "reinforce": _EVERY_GROUP,  # with the mean of the group as its baseline: GPG without its two additions
    "grpo": _EVERY_GROUP | _CLIP | {"f_norm": "group", "norm": "sequence"},  # its KL term: --kl-coef 0.04
    "dr-grpo": _EVERY_GROUP | _CLIP | {"norm": "constant"},
    # its dynamic sampling continues until P groups are valid; its loss is the mean over their tokens
    "dapo": {"age": False, "beta_th": 1.0, "f_norm": "group", "norm": "valid_token", "clip": (0.2, 0.28)},
    "rloo": _EVERY_GROUP | {"baseline": "others", "norm": "constant"},  # the sum over tokens, but for a constant
    "reinforce++": _EVERY_GROUP | _CLIP | {"baseline": "batch", "f_norm": "batch", "norm": "token"},
    "remax": _EVERY_GROUP | {"baseline": "greedy", "norm": "constant"},
    "ppo": _EVERY_GROUP | _CLIP | {"baseline": "critic", "f_norm": "batch", "norm": "token", "updates": 2},
    "sft": _EVERY_GROUP | {"norm": "token", "group_size": 1},
}

# our flags, each before what TRL, verl and nanoGPT call it
ELSEWHERE = """--lr learning-rate; --group-size num-generations n; --steps max-steps max-iters epochs num-train-epochs;
--prompts-per-step batch-size train-batch-size per-device-train-batch-size; --out output-dir out-dir; --norm loss-type;
--tokens-per-micro-batch gradient-accumulation-steps; --model model-name-or-path; --data dataset-name train-files;
@FILE config; --max-prompt-tokens max-prompt-length; --max-new-tokens max-completion-length max-response-length;
--kl-coef beta; --rewards reward-funcs; --updates num-iterations; CUDA_VISIBLE_DEVICES device"""
OURS = {theirs: ours for part in ELSEWHERE.split(";") for ours, *names in [part.split()] for theirs in names}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags with their defaults, checked; exits with 2 at the first wrong one."""
    parser, words = make_parser(), list(expanded(sys.argv[1:] if argv is None else argv))
    given = parser.parse_args(words)
    config = Path(given.out) / "config.json"
    resume = given.resume or (given.auto_resume and config.exists() and not given.replay)
    if given.replay:
        from run import record  # imports torch

        defaults = user_input(record.flags_of, given.replay)
    else:
        defaults = config_of_run(config) if resume else DEFAULTS.get(given.model, {}) | ALGOS[given.algo]
    of_run = {name: x for name, x in defaults.items() if name in vars(given).keys() - OF_COMMAND}
    if wrong := [x for x in parser._actions if x.dest in of_run and not fits(of_run[x.dest], x)] * resume:
        fail(f"--resume: {config}: {of_run[wrong[0].dest]!r} is no value of {wrong[0].option_strings[0]}; restore it")
    # numbers as text, which argparse reads as it does a flag's
    parser.set_defaults(**{name: str(x) if type(x) in (int, float) else x for name, x in of_run.items()})
    args = parser.parse_args(words)
    args.resume = resume
    if resume and args.algo != (algo := of_run.get("algo", "gpg")):
        fail(f"--algo {args.algo}: the run's is {algo}; leave it out, and give the flags that are to change")
    return checked(args, mistakes(args))


def config_of_run(config: Path) -> dict:
    """What is in a run's config.json."""
    if not config.exists():
        fail(f"--resume: no run in {config.parent}, it has no config.json; give the run's folder with --out")
    try:
        return {**json.loads(config.read_bytes())}
    except (ValueError, TypeError, OSError) as error:
        fail(f"--resume: {config} is damaged ({error}); restore it, or start a new run with --overwrite")


def fits(value: object, action: argparse.Action) -> bool:
    """Whether a value in a run's config.json can be that of a flag."""
    kinds = {int: int, float: (int, float), None: list if action.nargs == "+" else (str, bool)}
    right = isinstance(value, kinds.get(action.type, (list, dict)))
    return value == action.default or (right and (not action.choices or value in action.choices))


def absolute_paths(flags: dict) -> dict:
    """The flags, with whole paths where they name files or folders that are here: so they mean the same anywhere."""
    endings = {"model": "", "template": "", "data": r"(\[:\d+\])?", "eval_data": r"(\[:\d+\])?", "rewards": r":.*"}

    def absolute(part: str, ending: str) -> str:
        found = re.fullmatch(rf"\s*(.+?)({ending})\s*", part)
        here = found and found[1] not in {*DEFAULTS, *TEMPLATES} and os.path.exists(found[1])
        whole = os.path.abspath(found[1]) + found[2] if here else part
        return part if ending and re.search(",|=.*:", whole) else whole  # a comma or = would cut it

    given = {name: flags[name].split(",") for name in endings if flags.get(name)}
    return flags | {name: ",".join(absolute(part, endings[name]) for part in parts) for name, parts in given.items()}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="torchrun train.py [@config/NAME.args] [--flag value ...]",
        description="Group Policy Gradient. Defaults are those of the paper's 7B run where it gives them; the built-in "
        "model brings its own. @FILE reads flags from a file, with # comments. The device: a GPU if there is one.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.error = partial(complain, parser)
    # fmt: off
    add = parser.add_argument_group("model and data").add_argument
    add("--model", default=BUILT_IN, metavar="NAME",
        help="folder or hub name of a causal LM; tiny, tiny-lengths, tiny-pictures: built-in (paper: Qwen2.5-Math-7B)")
    add("--data", metavar="SOURCE",
        help="problems: .jsonl, .json, .parquet or hub data set; a,b joins, a[:N] takes the first N (paper: DAPO-17k)")
    add("--eval-data", metavar="SOURCE", help="held-out problems, as --data; without it nothing is evaluated")
    add("--rewards", default="accuracy", metavar="SPEC",
        help="NAME=WEIGHT,... of accuracy, format, accuracy_boxed, tag_count, cosine, choice, class_name, iou, "
             "iou>0.5, iou_or_name and path/to/file.py:function (paper's 7B: accuracy)")

    add = parser.add_argument_group("method").add_argument
    add("--steps", type=int, default=1100, help="optimizer steps; an epoch: problems / P (paper: 1100)")
    add("--prompts-per-step", type=int, default=144, help="P, over all ranks; the batch size is P * G (paper: 144)")
    add("--group-size", type=int, default=8, help="G, completions of a prompt (paper: 8)")
    add("--f-norm", choices=F_NORMS, default="none", help="F_norm of Eq. 6: 1, std of group or batch (paper: none)")
    add("--norm", choices=NORMS, default="group", help="how tokens are averaged, see gpg.py (paper: group, Eq. 5)")
    add("--no-age", dest="age", action="store_false", help="leave out alpha of Eq. 7 (paper: alpha is on)")
    add("--beta-th", type=float, default=0.6, help="valid groups to collect, a share of P; 0: one round (paper: 0.6)")
    add("--max-rounds", type=int, default=20, help="most rounds per step (paper: not given; released code: 19)")
    add("--mask-truncated", action="store_true", help="leave cut-off completions out of loss and baseline (paper: no)")

    # what GPG does without: by default each of these parts is absent
    add = parser.add_argument_group("compared methods").add_argument
    add("--algo", choices=ALGOS, default="gpg", help="another method's defaults, see docs/methods.md (paper: gpg)")
    add("--baseline", choices=BASELINES, default="group",
        help="taken off a reward: mean of its group, of the others in it (RLOO), of the step (REINFORCE++), a greedy "
             "completion's reward (ReMax), a critic's values (PPO) (paper: group)")
    add("--updates", type=int, default=1, help="optimizer steps on the same samples (paper: 1)")
    add("--clip", type=clip_range, metavar="LOW[,HIGH]",
        help="clip ratios to 1 - LOW, 1 + HIGH from the second update on; off: no ratio (GRPO: 0.2; DAPO: 0.2,0.28)")
    add("--kl-coef", type=float, default=0.0, help="weight of KL(policy || start) per token (paper: 0; GRPO: 0.04)")
    add("--kl", choices=("k1", "k2", "k3"), default="k3", help="its estimator, see methods.kl_estimate (Eq. 27: k3)")
    add("--kl-in", choices=("loss", "reward"), default="loss", help="where the KL enters (GRPO: loss; PPO: reward)")
    add("--overlong-buffer", type=int, default=0,
        help="tokens before --max-new-tokens over which the reward falls by up to 1; 0: off (DAPO: 4096 of 20480)")
    add("--gae-lambda", type=float, default=0.95, help="of the critic's advantages; 1: the plain return (usual: 0.95)")
    add("--critic-lr-factor", type=float, default=10.0, help="learning rate of the critic, in multiples of --lr")
    add("--solution-field", metavar="NAME", default="solution", help="column of the worked solution, for --algo sft")

    add_shared_flags(parser)
    add_more_flags(parser)
    # fmt: on
    return parser


def add_more_flags(parser: argparse.ArgumentParser) -> None:
    """How weights are trained, where a run is stored, how it continues, and what it checks."""
    # fmt: off
    add = parser.add_argument_group("optimizer").add_argument
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help="sgd: without momentum (paper: adamw)")
    add("--lr", type=float, default=1e-6, help="learning rate (paper: 1e-6)")
    add("--schedule", choices=("constant", "cosine"), default="constant", help="of the learning rate (paper: constant)")
    add("--warmup", type=int, default=0, help="steps of linear warm-up (paper: not given)")
    add("--lr-floor", type=float, default=0.0, help="where the cosine ends, a share of --lr (code for 1.5B: 0.1)")
    add("--weight-decay", type=float, default=0.1, help="of matrices (paper: 0.1)")
    add("--grad-clip", type=float, default=1.0, help="greatest gradient norm; 0: off (paper: not given; code: 1)")
    add("--lora-rank", type=int, default=0, metavar="R",
        help="train adapters of this rank in place of weights; 0: none. Needs peft, and ten times the --lr (paper: 0)")
    add("--tokens-per-micro-batch", type=int, default=16384,
        help="padded tokens of a forward: memory, not results; gradient accumulation follows from it")
    add("--freeze-vision", action="store_true", help="do not train the vision tower (paper: trained)")
    add("--gradient-checkpointing", action="store_true", help="recompute activations in the backward: less memory")
    add("--parallel", choices=("ddp", "fsdp", "auto"), default="ddp",
        help="a full copy of the model on each rank, or shards; auto: shards if it does not fit (paper: ZeRO-2)")

    add = parser.add_argument_group("run").add_argument
    add("--out", default="out", metavar="DIR", help="folder of the run")
    add("--eval-every", type=int, default=50, help="steps between evaluations; 0: only before and after")
    add("--save-every", type=int, default=50, help="steps between checkpoints; 0: only the final one")
    add("--noise-every", type=int, default=0, help="steps between measurements of the gradient's noise; 0: none")
    add("--check-every", type=int, default=50, help="steps between checks that all ranks hold the same bits; 0: none")
    add("--rank-timeout", type=float, default=1800, metavar="SECONDS", help="how long a rank waits for the others")
    add("--reward-timeout", type=float, default=600, metavar="SECONDS", help="most for a call of a reward; 0: no limit")
    add("--record", type=int, default=0, metavar="N", help="write every Nth step's samples, for --replay; 0: none")
    add("--replay", metavar="FILE", help="repeat a recorded step's update, print its result, and write nothing")
    add("--keep", type=int, default=2, help="how many checkpoints to retain, besides the final one; 0: all")
    add("--keep-best", action="store_true", help="also retain the checkpoint of the best held-out accuracy")
    add("--resume", action="store_true", help="continue from --out's newest checkpoint; flags not given are the run's")
    add("--auto-resume", action="store_true", help="--resume if --out holds a run, else start one: for cluster jobs")
    add("--allow-changes", action="store_true", help="resume with other prompts, frozen weights or reward files")
    add("--plan", action="store_true", help="print how much memory each rank will take, in GiB, and stop")
    add("--doctor", action="store_true", help="try a small batch, print what is wrong and how to mend it, and stop")
    add("--overwrite", action="store_true", help="delete the run in --out and start a new one")
    add("--tensorboard", action="store_true", help="log to OUT/tensorboard too (needs tensorboard)")
    add("--wandb", metavar="PROJECT", help="log to Weights & Biases too (needs wandb)")
    # fmt: on


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows every default that is a value."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, True, False) else super()._get_help_string(action)


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """How rows become prompts and prompts completions, in training and in evaluation."""
    # fmt: off
    add = parser.add_argument_group("prompts").add_argument
    add("--trust-remote-code", action="store_true", help="run the code that comes with --model, if it needs any")
    add("--problem-field", metavar="NAME", help="column of the problem in --data, if it isn't found by itself")
    add("--answer-field", metavar="NAME", help="column of the answer in --data, if it isn't found by itself")
    add("--box-scale", choices=GOLD_SIZES, help="the units of golds that are boxes (default: the model's own)")
    add("--skip-bad-rows", action="store_true", help="count broken rows instead of stopping at the first")
    add("--system-prompt", default="none", metavar="NAME",
        help=f"{', '.join(SYSTEM_PROMPTS)}, or a text of your own (paper's 7B: qwen-7b)")
    add("--template", metavar="FILE", help="text with {problem} in it, in place of a chat template; or sat, by name")
    add("--template-args", type=template_args, metavar="NAME=VALUE,...",
        help="what the chat template is called with, such as enable_thinking=false (paper: not given)")
    add("--min-pixels", type=int, metavar="N", help="enlarge smaller pictures to this many pixels (paper: 3136)")
    add("--max-pixels", type=int, metavar="N", help="shrink larger ones to this many: less memory (paper: 401408)")

    add = parser.add_argument_group("sampling").add_argument
    add("--max-prompt-tokens", type=int, default=1024, help="longer ones are skipped and counted (paper: not given)")
    add("--max-new-tokens", type=int, default=2048,
        help="tokens of a completion (paper: not given; code: 2048, to evaluate 1.5B 32768)")
    add("--temperature", type=float, default=1.0,
        help="of sampling, in training also of log-probabilities (paper: not given; code: 1, to evaluate 1.5B 0.6)")
    add("--top-p", type=float, default=1.0,
        help="draw among the fewest tokens of this probability; 1: off (code: 1, to evaluate 1.5B 0.95)")
    add("--top-k", type=int, default=0, help="draw among so many likeliest tokens; 0: off (code: 50, a hidden default)")
    add("--stop", nargs="+", metavar="TEXT", help="texts that end a completion, as its last part (paper: none)")
    add("--seed", type=int, default=0, help="of sampling, of the data's order, and of the built-in model")
    add("--cache-tokens", type=int, help="tokens decoded at once: memory, not results; 0 in training: all that fit "
        "(default: 262144; to train on a GPU 0)")
    add("--dtype", choices=("float32", "bfloat16", "float64", "float16"), metavar="TYPE",
        help="of matrix products: float32, float64 or bfloat16, in training with float32 weights (paper: not given; "
             "code: bfloat16) (default: bfloat16 on a GPU that has it, else float32)")
    # fmt: on


def template_args(text: str) -> dict[str, object]:
    """NAME=VALUE,... -> the values: true, false, numbers, or else text. argparse says what is wrong with another."""
    pairs = [part.split("=", 1) for part in text.split(",")]
    return {name: json.loads(value) if re.fullmatch(r"true|false|\d+", value) else value for name, value in pairs}


def clip_range(text: str) -> tuple[float, float] | None:
    """LOW or LOW,HIGH -> both; "off" -> None. argparse says what is wrong with another."""
    if text == "off":
        return None
    low, high = [float(part) for part in text.split(",")] * (1 if "," in text else 2)
    return low, high


def expanded(words: Sequence[str], folder: Path = Path(), within: tuple[Path, ...] = ()) -> Iterator[str]:
    """The words of a command line, with the flags of a recipe in place of @FILE: quoted as in a shell, # starts a
    comment. FILE is in the folder of the recipe that names it, in the current one, or in the repository."""
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        file = next(filter(os.path.isfile, (place / word[1:] for place in (folder, Path(), ROOT))), None)
        if file is None or file in within:
            fail(f"{word}: {'includes itself' if file else f'no such recipe; {ROOT}/config has some'}")
        for line in user_input(file.read_text, encoding="utf-8").splitlines():
            try:
                parts = shlex.split(line, comments=True)
            except ValueError as error:
                fail(f"recipe {file}, line {line!r}: {error}")
            yield from expanded(parts, file.parent, (*within, file))


def end_quietly_on_ctrl_c() -> None:
    """From here on KeyboardInterrupt ends the process without a traceback, also while libraries load."""
    sys.excepthook = lambda kind, *error: kind is KeyboardInterrupt or sys.__excepthook__(kind, *error)


def complain(parser: argparse.ArgumentParser, message: str) -> None:
    """argparse's complaint; for a flag that it does not know, with the one that was probably meant."""
    complaint, _, rest = message.partition("unrecognized arguments: ")
    if not complaint:
        word = (rest.split() or ["''"])[0].partition("=")[0]
        name, known = word.rpartition(".")[2].strip("-").replace("_", "-").lower(), parser._option_string_actions
        ours, close = OURS.get(name, "-"), difflib.get_close_matches(f"--{name}", known, 1)
        meant = [f"@{word}"] * os.path.isfile(word) + [ours] * (ours in known or ours[0] != "-") + close
        message = f"{word}: no such flag; {f'did you mean {meant[0]}?' if meant else '--help lists all'}"
    fail(message)


def checked(args: argparse.Namespace, wrongs: Iterable[tuple[str, object]]) -> argparse.Namespace:
    """The flags, completed for this machine; ends at the first wrong one, before anything slow. wrongs: what else could
    be wrong, and whether it is."""
    for what, (low, high, names) in RANGES.items():
        for name in names.split():
            if (value := getattr(args, name, None)) is not None and not low <= value <= high:
                fail(f"--{name.replace('_', '-')} {value}: must be {what}")
    wrongs = itertools.chain(shared_mistakes(args), wrongs)
    for message, wrong in iter(partial(user_input, next, wrongs, None), None):
        if wrong:
            fail(message)
    user_input(system_prompt, args.system_prompt)
    user_input(load_template, args.template)
    from run import ranks  # imports torch

    return ranks.for_device(args)


def shared_mistakes(args: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """What could be wrong in training and in evaluation, and whether it is."""
    name = "." if args.model is None or args.resume else args.model  # a resumed run has its own
    missing = not name.strip() or (name[0] in "./~" or name.count("/") > 1) and not Path(name).exists()
    yield f"--model {name}: no such folder, nor a name of the hub, owner/name", missing
    reason = "--dtype float16: small gradients would be 0, or steps skipped to find a scale for the loss"
    yield f"{reason}; give bfloat16, or float32 where a GPU has none", args.dtype == "float16"
    words = args.system_prompt, args.out or "", *(args.stop or ())
    yield "--system-prompt, --out, --stop: are not UTF-8", re.search("[\ud800-\udfff]", "".join(words))
    yield "--stop: an empty text ends every completion at its first token", "" in (args.stop or ())
    yield "--resume continues what is in --out, --overwrite deletes it: give one", args.resume and args.overwrite


def mistakes(args: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """What could be wrong with the flags, and whether it is."""
    out, built_in = Path(args.out), args.model in DEFAULTS
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    grouped = args.baseline in ("group", "others") and args.algo != "sft"  # the baseline of a sample is its group
    penalised = args.kl_coef and args.kl_in == "reward"  # then no two rewards of a group are equal
    compared = args.kl_coef or args.baseline == "critic"
    new, data = not args.replay, args.data or args.eval_data or args.box_scale  # a replay reads none, writes nothing
    # fmt: off
    yield f"--model {args.model}: give --data, a file or a hub data set", new and not built_in and not args.data
    yield "--data, --box-scale: the built-in model reads only its own; give --model", built_in and data
    yield f"--group-size {args.group_size}: one has no baseline; use 2 or more", args.group_size < 2 and grouped
    yield (f"--clip {args.clip}: LOW between 0 and 1, HIGH above 0",
           args.clip and not (0 < args.clip[0] < 1 and args.clip[1] > 0))
    yield ("alpha, --beta-th and --norm valid_token are for groups without gradient, and with --baseline "
           f"{args.baseline} and --kl-in {args.kl_in} all have one: give --no-age --beta-th 0 and another --norm",
           (not grouped or penalised) and (args.age or args.beta_th or args.norm == "valid_token"))
    yield "--algo sft: there is no reward to take a KL from; give --kl-in loss", args.algo == "sft" and penalised
    yield f"--f-norm group: not with --baseline {args.baseline}; batch or none", not grouped and args.f_norm == "group"
    yield (f"--parallel {args.parallel}: a reference and a critic need a full copy on each rank; give --parallel ddp",
           compared and args.parallel != "ddp")
    yield "--overlong-buffer: must be at most --max-new-tokens", args.overlong_buffer > args.max_new_tokens
    yield ("--keep-best: needs --eval-data, and --eval-every above 0",
           args.keep_best and not (args.eval_every and (args.eval_data or built_in)))
    yield "--rank-timeout, --reward-timeout: at most 1e9 seconds", max(args.rank_timeout, args.reward_timeout) > 1e9
    yield f"--seed {args.seed}: must be below 2^32", args.seed >= 2**32
    yield "--replay writes nothing: leave out --resume and --overwrite", not new and (args.resume or args.overwrite)
    yield f"--replay {args.replay}: the checkpoint before its step is not there; give it with --model", not args.model
    yield ("--record, --replay: not with --lora-rank, whose checkpoints hold the merged model",
           args.lora_rank and (args.record or args.replay))
    yield "--lora-rank: pip install peft", args.lora_rank and not importlib.util.find_spec("peft")
    yield "--wandb: pip install wandb", args.wandb and not importlib.util.find_spec("wandb")
    yield "--tensorboard: pip install tensorboard", args.tensorboard and not importlib.util.find_spec("tensorboard")
    yield "--doctor: checks samples, and --algo sft draws none; leave it out", args.doctor and args.algo == "sft"
    yield "--out: is empty; give a folder", not args.out.strip()
    yield f"--out {out}: is a file; give a folder", out.exists() and not out.is_dir()
    yield f"--out {out}: can't write to {folder}; give another folder", new and not os.access(folder, os.W_OK)
    inside = out.resolve() in Path(args.model or "").resolve().parents and Path(args.model).exists()
    clears = args.overwrite and not (args.plan or args.doctor)
    yield f"--model {args.model}: is in {out}, which --overwrite deletes; give another --out", clears and inside
    yield (f"--out {out}: holds a run; --resume continues it, --overwrite deletes it",
           new and checkpoint.exists(out) and not (args.resume or args.overwrite or args.doctor or args.plan))
    # fmt: on


def fail(message: str, *, any_rank: bool = False) -> None:
    """A user's mistake: one line, exit code 2. All ranks find it, so rank 0 prints it; any_rank: only this one may."""
    if any_rank or int(os.environ.get("RANK", 0)) == 0:
        below = "\n" * any_rank  # below the progress bar
        print(f"{below}{Path(sys.argv[0]).name}: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


def columns() -> int | None:
    """Of the terminal; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def printable(text: str) -> str:
    """The text with characters that could command a terminal spelled as in Python: a model may write any."""
    wild = "[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(wild, lambda found: found[0].encode("unicode_escape").decode(), text)


def user_input(function, *arguments, **options):
    """Calls a function on what the user gave; its complaint, if any, becomes the one line."""
    try:
        return function(*arguments, **options)
    except (ValueError, OSError, FloatingPointError) as error:
        fail(str(error).partition("\n")[0])
