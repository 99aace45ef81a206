"""What a run trains on and how it is scored: problems with their prompts, and the function that grades completions."""

import hashlib
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from rewards import check_columns, compares_answers, num_as_text, score
from rollout import Pictures, num_patches
from run import faults
from run.flags import fail, user_input
from run.journal import say
from run.models import BUILT_INS, config_of, first_model, pretrained
from tasks import data
from tasks.pictures import Processor, encoded, in_model_units, load_processor
from tasks.prompts import MARKER, encode_prompt, load_template, system_prompt, template_arguments

READER = ThreadPoolExecutor(1)  # of pictures


def read_problems(args, resumed: Path | None) -> tuple[object, list[dict], list[dict]]:
    """The model's tokenizer, and the rows for training and evaluation. Finds mistakes in data and lengths at once."""
    say_first = (lambda _: None) if resumed else say  # who resumes a run has seen what it says
    task, name = BUILT_INS.get(args.model), args.solution_field
    if task:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # its matrices are so small that a second thread costs more than it brings
        say_first(f"built-in model, shown {task.FLAW}: the reward repairs that")
        rows, held_out = task.problems("train"), task.problems("test")
    else:
        rows, held_out = read_rows(args, say_first)
    if args.algo == "sft":
        rows = [row | {name: task.solution(row)} for row in rows] if task else rows
        if missing := sum(not isinstance(row.get(name), str) for row in rows):
            fail(f"--solution-field {name}: not a text in {missing} of {len(rows)} rows; give the column of solutions")
    return tokenizer_of(args, resumed), rows, held_out


def load_problems(args, resumed: Path | None, found: tuple | None = None, rewards: list = ()):
    """What read_problems found, or finds now, as the model takes it -> the model's folder, its tokenizer and its
    processor of pictures or None, and the problems for training and evaluation, each with its "prompt_ids"."""
    tokenizer, rows, held_out = found or read_problems(args, resumed)
    tokenizer, processor = readers(args, resumed, tokenizer, (*rows, *held_out))
    if processor and args.baseline == "critic":
        fail(f"--baseline critic: {args.model} reads pictures, and a critic only text; use another method")
    if args.box_scale:
        convert = partial(user_input, in_model_units, scale=args.box_scale, processor=processor)
        rows, held_out = convert(rows), held_out and convert(held_out)
    problems, held_out = (with_prompts(part, tokenizer, args, processor) for part in (rows, held_out))
    check_known(args, resumed, [*problems, *held_out])
    if not resumed:
        if day := args.template_args.get("strftime_now"):
            say(f"the chat template asks for the date: {day} in all of this run, also once it is resumed")
        show_prompt(tokenizer, problems[0]["prompt_ids"])
    if args.algo == "sft":
        ids = [tokenizer(row[args.solution_field], add_special_tokens=False).input_ids for row in problems]
        problems = with_ids(problems, "solution_ids", ids, "--max-new-tokens", args.max_new_tokens, eos=1)
    user_input(check_columns, rewards, {name for row in problems for name in row})
    folder = resumed or args.model
    if folder in BUILT_INS:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            user_input(first_model, args)  # the first rank of a machine makes it, and the others find it
        dist.barrier()
        folder = first_model(args)
        tokenizer = pretrained(AutoTokenizer, folder)  # which AutoTokenizer makes another class of, in checkpoints too
    return folder, tokenizer, processor, problems, held_out


def read_rows(args, say_first: Callable) -> tuple[list[dict], list[dict]]:
    """The rows of --data and --eval-data."""
    names = "problem_field", "answer_field", "skip_bad_rows"
    load = partial(user_input, data.load, **{name: getattr(args, name) for name in names})
    rows, bad = load(args.data, split="train")
    held_out, bad_held_out = load(args.eval_data, split="test") if args.eval_data else ([], 0)
    say_first(f"{len(rows)} problems to train on, {len(held_out)} held out; bad rows skipped: {bad} and {bad_held_out}")
    asked = [{(row["problem"], str(row.get("turns")), *row.get("images", ())) for row in x} for x in (rows, held_out)]
    if shared := set.intersection(*asked):
        say_first(f"warning: {len(shared)} problems of --eval-data are in --data too; accuracy on them is not held out")
    return rows, held_out


def tokenizer_of(args, resumed: Path | None):
    """The model's tokenizer, once its positions are known to be enough."""
    folder, config = resumed or args.model, config_of(args, resumed).get_text_config()
    task = BUILT_INS.get(folder)
    tokenizer = task.make_tokenizer() if task else pretrained(AutoTokenizer, folder, args.trust_remote_code)
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):  # of all layers, or of each kind of layer
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
            # beyond these it turns every position by other angles, also those of keys that are in the cache
            positions = min(positions, rope["original_max_position_embeddings"])
    if args.max_prompt_tokens + args.max_new_tokens > positions:
        fail(f"--max-prompt-tokens + --max-new-tokens is above the {positions} positions of {args.model}")
    return tokenizer


def check_known(args, resumed: Path | None, problems: list[dict]) -> None:
    """Ends where a prompt has a token that the model does not embed."""
    known = config_of(args, resumed).get_text_config().vocab_size
    if beyond := sum(max(row["prompt_ids"]) >= known for row in problems):
        fail(f"--model {args.model}: {beyond} prompts have a token above its {known} embeddings; give another")


def fingerprint(rows: list[dict]) -> str:
    """Of all that is asked: prompts as the model sees them, pictures and every column, in this order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(repr({name: x for name, x in row.items() if name != "images"}).encode())
        for picture in row.get("images", ()):
            found.update(picture.encode() if isinstance(picture, str) else picture)
    return found.hexdigest()


def readers(args, resumed: Path | None, tokenizer, rows: Sequence[dict]) -> tuple[object, Processor | None]:
    """What makes prompts of the rows: the tokenizer, and the processor of pictures; None for a model of text. Completes
    args.template_args, which config.json keeps."""
    processor = processor_of(args, resumed, tokenizer, needed=any("images" in row for row in rows))
    tokenizer = processor.tokenizer if processor else tokenizer
    args.template_args = user_input(template_arguments, tokenizer, load_template(args.template), args.template_args)
    return tokenizer, processor


def processor_of(args, resumed: Path | None, tokenizer, needed: bool) -> Processor | None:
    """The model's processor of pictures; None for a model of text. needed: there are pictures."""
    folder = resumed or args.model
    if task := BUILT_INS.get(folder):
        return task.make_processor(tokenizer) if hasattr(task, "make_processor") else None
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    return user_input(load_processor, folder, **limits, needed=needed, trust=args.trust_remote_code)


def with_prompts(rows: list[dict], tokenizer, args, processor: Processor | None = None) -> list[dict]:
    """The rows with "prompt_ids". Prompts above --max-prompt-tokens are dropped and counted, never cut."""
    options = prompt_options(args.system_prompt, args.template, args.template_args)
    one = {}  # object for each number, shared by all prompts: a third of their memory
    ids = (user_input(encode_row, row, i, tokenizer, processor, options) for i, row in enumerate(rows, 1))
    ids = [[one.setdefault(i, i) for i in prompt] for prompt in ids]
    hint = room_for_pictures(rows, ids, processor, args.max_prompt_tokens)
    return with_ids(rows, "prompt_ids", ids, "--max-prompt-tokens", args.max_prompt_tokens, hint=hint)


def prompt_options(name: str, template: str | None, template_args: dict) -> dict:
    """What encode_row takes, from the names of a system prompt and of a template."""
    system, suffix = system_prompt(name)
    return {"system": system, "suffix": suffix, "template": load_template(template), "template_args": template_args}


def encode_row(row: dict, number: int, tokenizer, processor: Processor | None, options: dict) -> list[int]:
    """The prompt of a row. ValueError names the row."""
    turns = row.get("turns", [])
    own = [turn["content"] for turn in turns if turn["role"] == "system"]  # which --system-prompt replaces
    options = options | {"system": options["system"] or "\n\n".join(own)}
    options["turns"] = [turn for turn in turns if turn["role"] != "system"]
    try:
        if processor:
            return processor.prompt(row["problem"], row.get("images", []), **options)
        if ids := encode_prompt(tokenizer, row["problem"], **options):
            return ids
        raise ValueError("no tokens; has the model's folder a tokenizer?")
    except ValueError as error:
        raise ValueError(f"problem {number}, {row['problem'][:40]!r}: {error}") from None


def show_prompt(tokenizer, ids: list[int]) -> None:
    """Says in a line what a prompt is to the model, and whether it holds markers that are no tokens of this model."""
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    foreign = [mark for mark in MARKER.findall(text) if len(tokenizer.encode(mark, add_special_tokens=False)) > 1]
    if foreign:
        say(f"warning: {foreign[0]} in prompts is no token of this model; another model's chat format?")
    shown = repr(re.sub(r"(<[^<>]+>)\1+", r"\1", text))  # a picture's token once
    say(f"a prompt: {shown if len(shown) <= 69 else f'{shown[:32]} ... {shown[-32:]}'}")


def room_for_pictures(rows: list[dict], ids: list[list[int]], processor: Processor | None, most: int) -> str:
    """What to say of prompts that are too long because of their pictures; "" if none is."""
    for row, i in zip(rows, ids, strict=True):
        if processor and len(i) > most and (tokens := processor.picture_tokens(i)):
            remedy = f", --max-pixels {n} would fit" if (n := processor.fitting_pixels(i, row["images"], most)) else ""
            return f"; pictures take {tokens} tokens of one{remedy}"
    return ""


def with_ids(rows, name: str, ids: list[list[int]], flag: str, limit: int, eos: int = 0, hint: str = "") -> list[dict]:
    """The rows with their ids as the column `name`. Those that leave no room for `eos` more tokens under the limit of a
    flag are dropped and counted."""
    what, lengths = name.removesuffix("_ids") + "s", [len(i) + eos for i in ids]
    longer = sum(length > limit for length in lengths)
    if rows and longer == len(rows):
        fail(f"{flag} {limit}: all {what} are longer, from {min(lengths)} up{hint}")
    if longer:
        say(f"skipped {longer} of {len(rows)} {what}, longer than {flag}{hint}")
    return [row | {name: i} for row, i, length in zip(rows, ids, lengths, strict=True) if length <= limit]


def problems_of_round(problems: list[dict], position: int, args) -> list[dict]:
    """This rank's problems of the round of P that begins at this position of the run's order."""
    chosen = data.order(len(problems), args.seed, position, args.prompts_per_step)
    return [problems[i] for i in chosen[dist.get_rank() :: dist.get_world_size()]]


def features_and_pictures(processor, rows: list[dict]) -> tuple[list[dict], tuple[Pictures, ...]]:
    """What the model takes of each problem's pictures, and what they can be made again from; nothing for text."""
    if not any("images" in row for row in rows):
        return [], ()
    if processor.ahead:
        wait([processor.ahead])
    return _made(processor, rows)


def read_ahead(processor, rows: list[dict]) -> None:
    """Begins to make, in a thread, what features_and_pictures will be asked for, where a failure is said."""
    if any("images" in row for row in rows):
        processor.ahead = READER.submit(_made, processor, rows)


def _made(processor, rows: list[dict]) -> tuple[list[dict], tuple[Pictures, ...]]:
    shown = [tuple(map(encoded, row.get("images", ()))) for row in rows]
    features = list(map(processor.remembered, shown))
    return features, tuple(map(Pictures, shown, map(num_patches, features)))


def make_scorer(args, rewards: list, problems: list[dict], held_out: list[dict]) -> Callable:
    """The function that scores completions by all of --rewards, each bounded in time; says what one should know."""
    if args.top_p < 1 or args.top_k:
        say("--top-p, --top-k: drawn from part of the distribution but scored under all of it, as in the released code")
    for flag, rows in (("--data", problems if compares_answers(rewards) else []), ("--eval-data", held_out)):
        if num := num_as_text([row["answer"] for row in rows]):
            say(f"{num} of {len(rows)} answers of {flag} can't be parsed: they are compared as text only")
    limited = partial(faults.limited, seconds=args.reward_timeout)  # but the grader bounds itself
    bounded = [(name, r if compares_answers([(name, r, w)]) else limited(name, r), w) for name, r, w in rewards]
    score_all, tried = partial(score, bounded, shown=set()), args.doctor  # which reports errors in its own way

    names = dict.fromkeys(name for row in problems for name in row)  # some rows may lack some

    def scorer(prompts, completions, ids, columns) -> dict:
        nonlocal tried
        columns = {name: columns.get(name, [None] * len(completions)) for name in names | columns}
        result = score_all(prompts, completions, ids, columns)
        if not tried:  # a reward that fails for one prompt fails on every sample of a rank, but hardly of all ranks
            tried, ranks = True, [None] * dist.get_world_size()
            dist.all_gather_object(ranks, result["failed"] if completions else None)
            first, *others = [failed for failed in ranks if failed is not None]
            for name, error in first.items():
                if all(name in failed for failed in others):
                    fail(f"reward {name!r} raised on every sample of the first round: {error}")
        return result

    return scorer
