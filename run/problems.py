"""What a run trains on and how it is scored: problems with their prompts, and the function that grades completions."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoTokenizer

from rewards import compares_answers, num_as_text, score
from rollout import Pictures, num_patches
from run import faults
from run.flags import BUILT_INS, fail, user_input
from run.journal import say
from run.models import first_model, pretrained
from tasks import data
from tasks.pictures import Processor, encoded, in_model_units, load_processor
from tasks.prompts import encode_prompt, load_template, system_prompt


def load_problems(args, resumed: Path | None):
    """Finds what is wrong with data, prompts or model before anything slow -> the model's folder, its tokenizer and its
    processor of pictures or None, and the problems for training and evaluation, each with its "prompt_ids"."""
    rows, held_out = built_in_rows(args.model) if args.model in BUILT_INS else read_rows(args)
    tokenizer = tokenizer_of(args, resumed)
    processor = processor_of(args, resumed, tokenizer, any("images" in row for row in (*rows, *held_out)))
    tokenizer = processor.tokenizer if processor else tokenizer
    if args.box_scale:
        convert = partial(user_input, in_model_units, scale=args.box_scale, processor=processor)
        rows, held_out = convert(rows), held_out and convert(held_out)
    problems, held_out = (with_prompts(part, tokenizer, args, processor) for part in (rows, held_out))
    if args.algo == "sft":
        problems = with_solutions(problems, tokenizer, args)
    folder = resumed or args.model
    if folder in BUILT_INS:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            first_model(args)  # the first rank of a machine makes it, and the others find it
        dist.barrier()
        folder = first_model(args)
        tokenizer = pretrained(AutoTokenizer, folder)
    return folder, tokenizer, processor, problems, held_out


def built_in_rows(name: str) -> tuple[list[dict], list[dict]]:
    """The problems of a built-in model, for training and held out."""
    task = BUILT_INS[name]
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # its matrices are so small that a second thread costs more than it brings
    say(f"flags that the built-in model sets: {json.dumps(task.DEFAULTS)}")
    say(f"it was shown {task.FLAW}; only the reward repairs that")
    return task.problems("train"), task.problems("test")


def read_rows(args) -> tuple[list[dict], list[dict]]:
    """The rows of --data and --eval-data."""
    load = partial(data.load, problem_field=args.problem_field, answer_field=args.answer_field)
    load = partial(user_input, load, skip_bad_rows=args.skip_bad_rows)
    rows, bad = load(args.data, split="train")
    held_out, bad_held_out = load(args.eval_data, split="test") if args.eval_data else ([], 0)
    say(f"{len(rows)} problems to train on, {len(held_out)} held out; bad rows skipped: {bad} and {bad_held_out}")
    shared = {digest(row) for row in rows} & {digest(row) for row in held_out}
    if shared:
        say(f"warning: {len(shared)} problems of --eval-data are in --data too; accuracy on them is not held out")
    return rows, held_out


def tokenizer_of(args, resumed: Path | None):
    """The model's tokenizer, once its positions are known to be enough. The built-in model need not exist for that."""
    task, folder = None if resumed else BUILT_INS.get(args.model), resumed or args.model
    tokenizer = task.make_tokenizer() if task else pretrained(AutoTokenizer, folder)
    config = (task.make_config(tokenizer) if task else pretrained(AutoConfig, folder)).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    if args.max_prompt_tokens + args.max_new_tokens > positions:
        fail(f"--max-prompt-tokens + --max-new-tokens is above the {positions} positions of {args.model}")
    return tokenizer


def digest(row: dict) -> bytes:
    """Tells problems apart, also those that ask the same of different pictures."""
    pictures = [picture.encode() if isinstance(picture, str) else picture for picture in row.get("images", ())]
    return hashlib.sha256(b"\0".join([row["problem"].encode(), *pictures])).digest()


def processor_of(args, resumed: Path | None, tokenizer, needed: bool) -> Processor | None:
    """The model's processor of pictures; None for a model of text. needed: there are pictures."""
    if task := None if resumed else BUILT_INS.get(args.model):
        processor = task.make_processor(tokenizer) if hasattr(task, "make_processor") else None
    else:
        limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
        processor = user_input(load_processor, resumed or args.model, **limits, needed=needed)
    if processor and args.baseline == "critic":
        fail(f"--baseline critic: {args.model} reads pictures, and a critic only text; use another method")
    return processor


def with_prompts(rows: list[dict], tokenizer, args, processor: Processor | None = None) -> list[dict]:
    """The rows with "prompt_ids". Prompts above --max-prompt-tokens are dropped and counted, never cut."""
    system, suffix = system_prompt(args.system_prompt)
    options = {"system": system, "suffix": suffix, "template": load_template(args.template)}
    ids = [user_input(encode_row, row, i, tokenizer, processor, options) for i, row in enumerate(rows, 1)]
    hint = room_for_pictures(rows, ids, processor, args.max_prompt_tokens)
    return with_ids(rows, "prompt_ids", ids, "--max-prompt-tokens", args.max_prompt_tokens, hint=hint)


def encode_row(row: dict, number: int, tokenizer, processor: Processor | None, options: dict) -> list[int]:
    """The prompt of a row. ValueError names the row."""
    try:
        if processor:
            return processor.prompt(row["problem"], row.get("images", []), **options)
        return encode_prompt(tokenizer, row["problem"], **options)
    except ValueError as error:
        raise ValueError(f"problem {number}, {row['problem'][:40]!r}: {error}") from None


def room_for_pictures(rows: list[dict], ids: list[list[int]], processor: Processor | None, most: int) -> str:
    """What to say of prompts that are too long because of their pictures; "" if none is."""
    for row, i in zip(rows, ids, strict=True):
        if processor and len(i) > most and (tokens := processor.picture_tokens(i)):
            fitting = processor.fitting_pixels(i, len(row["images"]), most)
            remedy = f", --max-pixels {fitting} would fit" if fitting else ""
            return f"; pictures take {tokens} tokens of one{remedy}"
    return ""


def with_solutions(rows: list[dict], tokenizer, args) -> list[dict]:
    """The rows with "solution_ids", for --algo sft. Solutions that leave no room for EOS are dropped and counted."""
    name = args.solution_field
    if args.model in BUILT_INS:
        rows = [row | {name: BUILT_INS[args.model].solution(row)} for row in rows]
    if missing := [row for row in rows if not isinstance(row.get(name), str)]:
        fail(f"--solution-field {name}: not a text in {len(missing)} of {len(rows)} rows; give the column of solutions")
    ids = [tokenizer(row[name], add_special_tokens=False).input_ids for row in rows]
    return with_ids(rows, "solution_ids", ids, "--max-new-tokens", args.max_new_tokens, eos=1)


def with_ids(rows, name: str, ids: list[list[int]], flag: str, limit: int, eos: int = 0, hint: str = "") -> list[dict]:
    """The rows that leave room for `eos` more tokens under the limit of a flag, with their ids as the column `name`."""
    what, lengths = name.removesuffix("_ids") + "s", [len(i) + eos for i in ids]
    longer = sum(length > limit for length in lengths)
    if rows and longer == len(rows):
        fail(f"{flag} {limit}: all {what} are longer, from {min(lengths)} up{hint}")
    if longer:
        say(f"skipped {longer} of {len(rows)} {what}, longer than {flag}{hint}")
    return [row | {name: i} for row, i, length in zip(rows, ids, lengths, strict=True) if length <= limit]


def features_and_pictures(processor, rows: list[dict]) -> tuple[list[dict], tuple[Pictures, ...]]:
    """What the model takes of each problem's pictures, and what they can be made again from; nothing for text."""
    if not any("images" in row for row in rows):
        return [], ()
    shown = [tuple(map(encoded, row.get("images", ()))) for row in rows]
    features = list(map(processor.remembered, shown))
    return features, tuple(map(Pictures, shown, map(num_patches, features)))


def make_scorer(args, rewards: list, problems: list[dict], held_out: list[dict]) -> Callable:
    """The function that scores completions by all of --rewards, each bounded in time; with a line on what one should
    know of scoring: sampling that is not what is scored, answers that can't be parsed."""
    if args.top_p < 1 or args.top_k:
        say("--top-p, --top-k: drawn from part of the distribution but scored under all of it, as in the released code")
    for flag, rows in (("--data", problems if compares_answers(rewards) else []), ("--eval-data", held_out)):
        if num := num_as_text([row["answer"] for row in rows]):
            say(f"{num} of {len(rows)} answers of {flag} can't be parsed: they are compared as text only")
    limited = partial(faults.limited, seconds=args.reward_timeout)  # but the grader bounds itself
    bounded = [(name, r if compares_answers([(name, r, w)]) else limited(name, r), w) for name, r, w in rewards]
    return partial(score, bounded, shown=set())
