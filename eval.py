"""Benchmarks: pass@1, avg@n, maj@n and pass@k of a model, two results compared, a result graded again.

    python eval.py --model out/final --bench aime24,math500,amc23,minerva,olympiadbench --samples 16
    python eval.py --model out/final --data problems.jsonl                     problems of your own, greedy only
    torchrun --nproc_per_node 8 eval.py --model M --bench math500 --resume     on, where a run was cut off
    python eval.py --compare before.jsonl after.jsonl                          the same problems, paired
    python eval.py --regrade result.jsonl --out again.jsonl                    without generating

The result, --out, begins with a line of settings. Then a line a problem, as soon as it is finished: set, place in it,
problem, answer, prompt (the text that the model saw), prompt_tokens, greedy (a list of one completion), samples (n),
majority (the sample that won the vote of maj@n) and seconds of decoding. A completion is verdict, submitted (the answer
read in it), text, tokens (the EOS is one) and whether --max-new-tokens cut it. A problem whose prompt is too long has
no completions and is left out of all means, as is said. When all is done, the lines are in the order of the sets.

A process is a rank, and one process a world of size 1, not a path of its own. Letters: P problems, n samples of each.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import re
import sys
import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import rewards
from grader import equality
from rollout import completion_texts, rollout
from run import scores
from run.flags import fail, pretrained, user_input
from tasks import data


@dataclass(frozen=True)
class Benchmark:
    file: str  # its name in --data-dir
    hub: str  # its public data set
    split: str  # of that
    problems: int  # how many it has to have


BENCHMARKS = {
    "aime24": Benchmark("aime24.jsonl", "HuggingFaceH4/aime_2024", "train", 30),
    "math500": Benchmark("math500.jsonl", "HuggingFaceH4/MATH-500", "test", 500),
    "amc23": Benchmark("amc23.jsonl", "math-ai/amc23", "test", 40),
    "minerva": Benchmark("minerva_math.jsonl", "math-ai/minervamath", "test", 272),
    "olympiadbench": Benchmark("olympiadbench.jsonl", "zwhe99/simplerl-OlympiadBench", "test", 675),
    "gsm8k": Benchmark("gsm8k_test.jsonl", "openai/gsm8k", "test", 1319),
}
# what a result depends on, beside the problems
SETTINGS = ("model", "system_prompt", "samples", "temperature", "top_p", "top_k", "seed")
SETTINGS += ("max_prompt_tokens", "max_new_tokens", "dtype")
# the rooms that a verdict depends on
GRADER = (
    "grader/spelling.py",
    "grader/reading.py",
    "grader/values.py",
    "grader/equality.py",
    "grader/extraction.py",
    "grader/workers.py",
    "rewards.py",
)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.compare:
        compare(*args.compare)
    elif args.regrade:
        regrade(args)
    else:
        evaluate(args)


def evaluate(args: argparse.Namespace) -> None:
    transformers.utils.logging.disable_progress_bar()
    sets = load_sets(args)
    tokenizer, problems = load_problems(args, sets)
    settings = settings_of(args, sets)
    kept = user_input(left_rows, args.out, settings) if args.resume else []
    device = init_distributed()
    try:
        todo = share(args, problems, kept)
        say(describe(args, tokenizer, problems, sets))
        model = load_model(args, device) if todo else None
        open_result(args.out, settings, kept)
        with tqdm(total=len(todo), desc="eval", unit="problem", dynamic_ncols=True, disable=dist.get_rank() > 0) as bar:
            finish(model, tokenizer, todo, args, bar)
        dist.barrier()
        if dist.get_rank() == 0:
            print(report(settings, gather(args, settings, tokenizer, problems), args), flush=True)
    except KeyboardInterrupt:
        say(f"stopped: --resume goes on with {args.out}")
        raise
    finally:
        dist.destroy_process_group()


# --------------------------------------------------------------------------------------------------------------- flags


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The flags, checked; exits with 2 on the first that can't be."""
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.error = fail
    # fmt: off
    add = parser.add_argument_group("model and problems").add_argument
    add("--model", metavar="NAME", help="folder or hub name of a causal LM, such as OUT/final of a run")
    add("--bench", metavar="NAME,...",
        help=f"{', '.join(BENCHMARKS)}; NAME[:N] takes the first N (paper: all but gsm8k, in full)")
    add("--data-dir", metavar="DIR", help="read the benchmarks from its files, such as aime24.jsonl, not from the hub")
    add("--data", metavar="SOURCE",
        help="problems of your own: .jsonl, .json, .parquet or hub data set (its test split); a,b joins")
    add("--problem-field", metavar="NAME", help="column of --data's problem, where it isn't found by itself")
    add("--answer-field", metavar="NAME", help="column of --data's answer, where it isn't found by itself")
    add("--skip-bad-rows", action="store_true", help="count broken rows instead of stopping at the first")
    add("--system-prompt", default="none", metavar="NAME",
        help=f"{', '.join(data.SYSTEM_PROMPTS)}, or a text of your own; the one of training (paper's 7B: qwen-7b)")
    add("--template", metavar="FILE", help="prompt with {problem} in it, in place of the tokenizer's chat template")

    add = parser.add_argument_group("decoding").add_argument
    add("--samples", type=int, default=0, metavar="N", help="to draw of each problem, beside the greedy one (paper: 0)")
    add("--pass-k", metavar="K,...", help="the k of unbiased pass@k, at most N each (default: N)")
    add("--temperature", type=float, default=0.6, help="of the samples (paper's 1.5B code: 0.6)")
    add("--top-p", type=float, default=0.95, help="sample the fewest tokens of this mass; 1: off (1.5B code: 0.95)")
    add("--top-k", type=int, default=0, help="sample among so many likeliest tokens; 0: off (paper: not given)")
    add("--seed", type=int, default=0, help="of the samples")
    add("--max-prompt-tokens", type=int, default=1024, help="longer ones are left out and counted (paper: not given)")
    add("--max-new-tokens", type=int, default=2048, help="tokens of a completion (1.5B code: 32768)")
    add("--cache-tokens", type=int, default=2**18,
        help="prompt and completion tokens of the rows decoded at once: memory of the key-value cache, not results")
    add("--dtype", choices=("float32", "bfloat16", "float64"), default="float32",
        help="of matrix products; bfloat16 keeps float32 weights, as in training (paper: not given)")

    add = parser.add_argument_group("result").add_argument
    add("--out", metavar="FILE", help="where settings, completions and verdicts go (default: eval.jsonl)")
    add("--overwrite", action="store_true", help="replace --out")
    add("--resume", action="store_true", help="go on with --out, which a run of the same settings left unfinished")
    add("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="two results: what changed on the problems of both")
    add("--regrade", metavar="FILE", help="a result: its completions graded by the rewards.py of today")
    # fmt: on
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Stops at the first flag that can't be, before anything slow."""
    tasks = {"--model": args.model, "--compare": args.compare, "--regrade": args.regrade}
    if sum(map(bool, tasks.values())) != 1:
        fail("give one of --model (with --bench or --data), --compare BEFORE AFTER, --regrade FILE")
    least = {"samples": 0, "top_k": 0, "seed": 0, "max_prompt_tokens": 1, "max_new_tokens": 1, "cache_tokens": 1}
    for name, bound in least.items():
        if getattr(args, name) < bound:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {bound} or more")
    fields = args.problem_field or args.answer_field
    for wrong, message in (
        (args.model and bool(args.bench) == bool(args.data), "give --bench or --data, one of the two"),
        (args.data_dir and not args.bench, "--data-dir is of --bench; with --data, name the files"),
        (fields and not args.data, "--problem-field and --answer-field are of --data"),
        (not 0 < args.temperature < math.inf, f"--temperature {args.temperature}: must be above 0; greedy needs none"),
        (not 0 < args.top_p <= 1, f"--top-p {args.top_p}: must be above 0, and at most 1 (off)"),
        (args.resume and not args.model, "--resume is of --model"),
        (args.resume and args.overwrite, "--resume goes on with --out, --overwrite replaces it: give one"),
    ):
        if wrong:
            fail(message)
    user_input(data.system_prompt, args.system_prompt)
    if args.template:
        user_input(data.load_template, args.template)
    if args.bench:
        user_input(parse_benches, args.bench)
    if args.model:
        args.out = args.out or "eval.jsonl"
        user_input(parse_ks, args.pass_k, args.samples)
    if args.out:
        check_out(args)


def check_out(args: argparse.Namespace) -> None:
    out = Path(args.out)
    for wrong, message in (
        (out.is_dir(), "is a folder; give a file"),
        (out.exists() and not args.overwrite and not args.resume, "exists; --resume goes on, --overwrite replaces it"),
        (args.resume and not out.exists(), "is not there to --resume; leave that out to begin"),
    ):
        if wrong:
            fail(f"--out {out}: {message}")
    user_input(out.parent.mkdir, parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        fail(f"--out {out}: can't write to the folder {out.parent}; give a file in another")


def parse_benches(text: str) -> dict[str, str]:
    """`aime24,math500[:40]` -> name -> its limit, "[:40]", or ""."""
    chosen = {}
    for part in text.split(","):
        name, limit = re.fullmatch(r"\s*(.*?)(\[:[1-9]\d*\])?\s*", part, re.DOTALL).groups(default="")
        if name not in BENCHMARKS or name in chosen:
            wrong = "is given twice" if name in chosen else "is no benchmark"
            raise ValueError(f"--bench: {part.strip()!r} {wrong}; there are {', '.join(BENCHMARKS)}, [:N] for N of one")
        chosen[name] = limit
    return chosen


def parse_ks(text: str | None, n: int) -> list[int]:
    """The k of pass@k; n alone if none are given. More than n samples can't be drawn from n."""
    if text is None:
        return [n] if n else []
    words = [word.strip() for word in text.split(",")]
    ks = [int(word) for word in words if re.fullmatch(r"[1-9]\d{0,5}", word)]
    if len(ks) < len(words) or max(ks) > n:
        raise ValueError(f"--pass-k {text}: wants numbers from 1 to --samples, which is {n}")
    return ks


# ------------------------------------------------------------------------------------------------------------ problems


def load_sets(args) -> dict[str, dict]:
    """Set -> its "rows" and "source", how many rows it should have ("expected", None: any), how many were "bad"."""
    if args.data:
        fields = {"problem_field": args.problem_field, "answer_field": args.answer_field}
        load = partial(data.load, split="test", skip_bad_rows=args.skip_bad_rows, **fields)
        rows, bad = user_input(load, args.data)
        return {"data": checked("data", rows, args) | {"source": args.data, "bad": bad, "expected": None}}
    sets = {}
    for name, limit in parse_benches(args.bench).items():
        benchmark = BENCHMARKS[name]
        source = benchmark.hub
        if args.data_dir:
            source = str(Path(args.data_dir, benchmark.file))
            if not Path(source).is_file():
                fail(f"--data-dir {args.data_dir}: {name} is read from its file {benchmark.file}, which is not there")
        load = partial(data.load, split=benchmark.split, skip_bad_rows=args.skip_bad_rows)
        rows, bad = user_input(load, source + limit)
        expected = min(benchmark.problems, int(limit[2:-1])) if limit else benchmark.problems
        sets[name] = checked(name, rows, args) | {"source": source + limit, "bad": bad, "expected": expected}
        sets[name]["whole"] = len(sets[name]["rows"]) == benchmark.problems
    return sets


def checked(name: str, rows: list[dict], args) -> dict:
    """The rows whose gold answer equals itself, as it must for any completion to be right; another one is an error, or
    is left out with --skip-bad-rows. "unread": the golds that the grader can only compare as text."""
    golds = [
        rewards.extract_answer(row["answer"]) or row["answer"] for row in rows
    ]  # a worked solution submits its gold
    unequal = [i for i, gold in enumerate(golds) if not equality.is_equiv(gold, gold)]
    if unequal and not args.skip_bad_rows:
        first = f"the first is of problem {unequal[0]}, {golds[unequal[0]]!r:.80}"
        fail(f"{name}: {len(unequal)} answers that do not equal themselves, so that nothing is right; {first}")
    is_parsed = equality.is_parsed
    unread = [gold for gold in golds if not is_parsed(gold)]
    kept = [row for i, row in enumerate(rows) if i not in set(unequal)]
    return {"rows": kept, "unequal": len(unequal), "unread": unread, "whole": False}


def load_problems(args, sets: dict[str, dict]) -> tuple[object, list[dict]]:
    """Finds what is wrong with prompts or model before the weights are read -> the tokenizer, and the problems of all
    sets, in order, each with its "set", its "place" in that and its "prompt_ids"."""
    tokenizer = pretrained(AutoTokenizer, args.model)
    config = pretrained(AutoConfig, args.model).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    if args.max_prompt_tokens + args.max_new_tokens > positions:
        fail(f"--max-prompt-tokens + --max-new-tokens is above the {positions} positions of {args.model}")

    template = data.load_template(args.template) if args.template else None
    system, suffix = data.system_prompt(args.system_prompt)
    encode = partial(data.encode_prompt, tokenizer, system=system, suffix=suffix, template=template)
    problems = [
        {"set": name, "place": place, "problem": row["problem"], "answer": row["answer"]}
        for name, about in sets.items()
        for place, row in enumerate(about["rows"])
    ]
    ids = user_input(lambda: [encode(row["problem"]) for row in problems])
    if min(map(len, ids)) > args.max_prompt_tokens:
        fail(f"--max-prompt-tokens {args.max_prompt_tokens}: all prompts are longer, from {min(map(len, ids))} up")
    return tokenizer, [row | {"prompt_ids": i} for row, i in zip(problems, ids, strict=True)]


def settings_of(args, sets: dict[str, dict]) -> dict:
    """What the result depends on, as its first line says it; problems and grader by the hash of their text."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    settings = {name: getattr(args, name) for name in SETTINGS}
    settings["template"] = data.load_template(args.template) if args.template else None
    settings["sets"] = {
        name: {key: about[key] for key in ("source", "bad", "unequal", "whole")}
        | {"problems": len(about["rows"])}
        | {"sha256": digest(json.dumps([(row["problem"], row["answer"]) for row in about["rows"]]))}
        for name, about in sets.items()
    }
    settings["grader"] = grader()
    return settings | {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


def grader() -> str:
    """The grader's version, a hash of its code: verdicts of two versions are not to be mixed."""
    return hashlib.sha256(b"".join((Path(__file__).parent / room).read_bytes() for room in GRADER)).hexdigest()[:12]


def describe(args, tokenizer, problems: list[dict], sets: dict[str, dict]) -> str:
    """What is evaluated, and how it is asked, for the person who compares it with another evaluation."""
    lines = [f"model: {args.model}, {args.dtype}, {dist.get_world_size()} rank(s)"]
    for name, about in sets.items():
        count, expected = len(about["rows"]), about["expected"]
        lines.append(f"{name}: {count} problems of {about['source']}")
        if expected not in (None, count):
            lines.append(f"warning: {name} has {count} problems, not the {expected} that it should have")
        if about["bad"] or about["unequal"]:
            lines.append(
                f"left out of {name}: {about['bad']} bad rows, {about['unequal']} whose answer no grader takes"
            )
        if about["unread"]:
            first = f"the first: {about['unread'][0]!r:.60}"
            lines.append(f"{name}: {len(about['unread'])} answers that the grader compares as text only; {first}")
    long = sum(len(row["prompt_ids"]) > args.max_prompt_tokens for row in problems)
    lines.append(f"left out: {long} prompts longer than {args.max_prompt_tokens} tokens")
    template = "plain text, as the tokenizer has no chat template"
    if args.template or tokenizer.chat_template:
        template = f"--template {args.template}" if args.template else "the tokenizer's chat template"
    prompt = text_of(tokenizer, next(row for row in problems if len(row["prompt_ids"]) <= args.max_prompt_tokens))
    lines.append(f"prompts: system prompt {args.system_prompt!r}, {template}; the first: {prompt!r}")
    lines.append(f"completions: at most {args.max_new_tokens} tokens; one greedy and {args.samples} samples a problem")
    if args.samples:
        sampling = f"temperature {args.temperature}, top-p {args.top_p}, top-k {args.top_k}, seed {args.seed}"
        lines.append(f"samples: {sampling}")
    return "\n".join(lines)


def text_of(tokenizer, row: dict) -> str:
    """The prompt as text, special tokens and all."""
    return tokenizer.decode(row["prompt_ids"], skip_special_tokens=False, clean_up_tokenization_spaces=False)


# ----------------------------------------------------------------------------------------------------------- generating


def init_distributed() -> torch.device:
    """Joins torchrun's process group, or makes one of a single process. The one place that names a device.

    Ranks only wait for each other here, which gloo can do beside any device, and for as long as the slowest needs."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    single = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("gloo", timeout=timedelta(days=30), **single)
    return device


def say(text: str) -> None:
    """A line for the person who watches, from rank 0."""
    if dist.get_rank() == 0:
        print(text, flush=True)


def load_model(args, device: torch.device):
    """The model in float32 (float64 with --dtype float64)."""
    dtype = torch.float64 if args.dtype == "float64" else torch.float32
    model = pretrained(AutoModelForCausalLM, args.model, dtype=dtype, output_loading_info=True)
    return model.to(device).eval()


def share(args, problems: list[dict], kept: list[dict]) -> list[dict]:
    """This rank's problems of those not kept: of each set every world-size-th by length, so that all ranks have about
    as much to do, and a batch is about as long as its longest."""
    done = {(row["set"], row["place"]) for row in kept}
    left = [row for row in problems if (row["set"], row["place"]) not in done]
    left = [row for row in left if len(row["prompt_ids"]) <= args.max_prompt_tokens]
    order = {name: i for i, name in enumerate(dict.fromkeys(row["set"] for row in problems))}
    left.sort(key=lambda row: (order[row["set"]], -len(row["prompt_ids"])))
    return left[dist.get_rank() :: dist.get_world_size()]


def finish(model, tokenizer, problems: list[dict], args, bar) -> None:
    """Completes and grades problems in batches of one set; what is finished is written at once."""
    longest = max((len(row["prompt_ids"]) for row in problems), default=0) + args.max_new_tokens
    at_once = max(1, args.cache_tokens // (longest * max(1, args.samples)))
    for _, group in itertools.groupby(problems, key=lambda row: row["set"]):
        mine = list(group)
        for start in range(0, len(mine), at_once):
            batch = mine[start : start + at_once]
            rows = complete(model, tokenizer, batch, args)
            with open(scores.part(args.out, dist.get_rank()), "a", encoding="utf-8") as file:
                file.write("".join(map(scores.as_line, rows)))
            bar.update(len(rows))


def complete(model, tokenizer, problems: list[dict], args) -> list[dict]:
    """Problems of one set -> their rows of the result, graded.

    A sample depends on the seed, its set, its problem's place in that and its own number, not on the batch or the rank.
    """
    rows = [result_row(tokenizer, problem) for problem in problems]
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k}
    for name, size, options in (("greedy", 1, {"temperature": 0.0}), ("samples", args.samples, sampling)):
        if size == 0:
            continue
        began = time.perf_counter()
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            sampled = user_input(
                rollout,
                model,
                tokenizer,
                [problem["prompt_ids"] for problem in problems],
                size,
                args.max_new_tokens,
                key=(args.seed, zlib.crc32(problems[0]["set"].encode())),
                indices=[problem["place"] for problem in problems],
                cache_tokens=args.cache_tokens,
                **options,
            )
        seconds = time.perf_counter() - began
        texts = completion_texts(tokenizer, sampled)
        tokens = sampled.completion_mask.sum(dim=2).flatten().tolist()
        truncated = sampled.truncated.flatten().tolist()
        for i, row in enumerate(rows):
            mine = range(i * size, (i + 1) * size)
            row[name] = [{"text": texts[j], "tokens": tokens[j], "truncated": truncated[j]} for j in mine]
            row["seconds"][name] = seconds * sum(tokens[j] for j in mine) / sum(tokens)  # of the batch, by tokens
    return [graded(row) for row in rows]


def result_row(tokenizer, problem: dict) -> dict:
    """A problem's row of the result, without completions yet."""
    shown = {key: problem[key] for key in ("set", "place", "problem", "answer")}
    shown |= {"prompt": text_of(tokenizer, problem), "prompt_tokens": len(problem["prompt_ids"])}
    return shown | {"greedy": [], "samples": [], "majority": None, "seconds": {}}


def graded(row: dict) -> dict:
    """The row with verdicts and vote by the grader of today."""

    def judge(completion: dict) -> dict:
        submitted = rewards.extract_answer(completion["text"])
        return {"verdict": bool(rewards.accuracy(completion["text"], row["answer"])), "submitted": submitted} | {
            key: completion[key] for key in ("text", "tokens", "truncated")
        }

    judged = {part: [judge(completion) for completion in row[part]] for part in ("greedy", "samples")}
    vote = scores.majority([completion["submitted"] for completion in judged["samples"]], equality.is_equiv)
    return row | judged | {"majority": vote}


# ----------------------------------------------------------------------------------------------------------- the result


def left_rows(out: str, settings: dict) -> list[dict]:
    """The rows that a run has left in --out and beside it. ValueError: --resume would mix two settings."""
    saved, rows = scores.read_result(out)
    for name in settings:
        if name != "versions" and settings[name] != saved.get(name):
            said = f"{name} is {json.dumps(saved.get(name))[:120]} there, and {json.dumps(settings[name])[:120]} here"
            mend = "--regrade it first" if name == "grader" else "give the same flags, or another --out"
            raise ValueError(f"--resume {out}: {said}; {mend}")
    return rows


def open_result(out: str, settings: dict, kept: list[dict]) -> None:
    """Makes --out ready to be added to: new, or with what a run left, a cut line gone."""
    dist.barrier()  # every rank has read what is there, and has its model
    if dist.get_rank() == 0:
        scores.write_result(out, settings, kept)
    dist.barrier()


def gather(args, settings: dict, tokenizer, problems: list[dict]) -> list[dict]:
    """Puts the rows of all ranks together, in the order of the problems; prompts too long have no completions."""
    rows = {(row["set"], row["place"]): row for row in scores.read_result(args.out)[1]}
    found = [rows.get((problem["set"], problem["place"])) or result_row(tokenizer, problem) for problem in problems]
    scores.write_result(args.out, settings, found)
    return found


def report(settings: dict, rows: list[dict], args) -> str:
    """The tables of a result."""
    ks = parse_ks(args.pass_k, settings["samples"])
    names, whole = list(settings["sets"]), [name for name, about in settings["sets"].items() if about["whole"]]
    tables = [scores.score_table(rows, names, ks), scores.completion_table(rows, names)]
    if set(names) & set(scores.PAPER_SETS):
        tables.append(scores.paper_table(settings["model"], rows, whole))
    return "\n\n".join(tables)


def regrade(args) -> None:
    """Grades a result's completions again and says which verdicts change; the new result goes to --out, if given."""
    settings, rows = user_input(scores.read_result, args.regrade)
    user_input(parse_ks, args.pass_k, settings["samples"])
    again = [graded(row) for row in rows]
    changed, total = [], 0
    for old, new in zip(rows, again, strict=True):
        before, after = (row["greedy"] + row["samples"] for row in (old, new))
        total += len(before)
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            if a["verdict"] != b["verdict"]:
                which = "greedy" if i == 0 else f"sample {i - 1}"
                verdict = "right" if b["verdict"] else "wrong"
                changed.append(
                    f"  {new['set']} {new['place']}, {which}: now {verdict}: {b['submitted']!r} for {new['answer']!r}"
                )
    settings = settings | {"grader": grader()}
    print("\n".join([f"{len(changed)} of {total} verdicts changed", *changed]) + "\n")
    print(report(settings, again, args), flush=True)
    if args.out:
        scores.write_result(args.out, settings, again)


def compare(before: str, after: str) -> None:
    """Prints the paired differences of two results, and the settings besides the model in which they differ."""
    (old, old_rows), (new, new_rows) = (user_input(scores.read_result, path) for path in (before, after))
    print(f"before: {old['model']}, {before}\nafter: {new['model']}, {after}")
    for name in new:
        if name not in ("model", "versions") and old.get(name) != new[name]:
            print(f"they differ in {name}: {json.dumps(old.get(name))[:200]} and {json.dumps(new[name])[:200]}")
    print("\n" + user_input(scores.compare, old_rows, new_rows), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
