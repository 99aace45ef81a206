"""Evaluates a model on benchmarks (pass@1, avg@n, maj@n, pass@k), compares two results, grades a result again.

    python eval.py --model out/final --bench addition                          the built-in task, after `train.py`
    torchrun --nproc_per_node 8 eval.py --model M --bench math500 --resume     continues an interrupted run
    python eval.py --compare before.jsonl after.jsonl                          paired by problem

docs/evaluation.md has more, and what is in a result: settings in the first line, then a line per problem, written once
it is graded. Each process is a rank, a single one a world of size 1. Letters: P problems, n samples of each.
"""

import argparse
import hashlib
import itertools
import json
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from run.eval_flags import parse_args, parse_ks
from run.flags import end_quietly_on_ctrl_c, fail, user_input

if __name__ == "__main__":
    end_quietly_on_ctrl_c()
    parse_args()  # what is wrong with a flag is said before torch is loaded, which takes seconds

import torch
import torch.distributed as dist
import transformers

import rewards
from engine.policy import autocast
from grader.boxes import find_box
from grader.equality import MAX_EXPRESSION, is_equiv
from rollout import completion_texts, rollout
from run import checkpoint, faults, scores
from run.journal import say, show, start_bar
from run.models import first_model, read_model
from run.problems import (
    check_known,
    encode_row,
    features_and_pictures,
    prompt_options,
    readers,
    room_for_pictures,
    tokenizer_of,
)
from run.ranks import decoder, init_distributed
from run.setup import of_rank_0
from tasks import benchmarks, data, pictures, prompts

# flags that a result depends on, besides the problems and the template
SETTINGS = ("model", "system_prompt", "template_args", "samples", "temperature", "top_p", "top_k", "stop", "seed")
SETTINGS += ("min_pixels", "max_pixels", "max_prompt_tokens", "max_new_tokens", "dtype")
ROOT = Path(__file__).parent
# the code that a verdict depends on
GRADER = ("rewards.py", *sorted(f"grader/{path.name}" for path in (ROOT / "grader").glob("[!_]*.py")))


def main(argv: list[str] | None = None) -> None:
    faults.keep_streams()
    args = parse_args(argv)
    if args.compare:
        compare(*args.compare)
    elif args.regrade:
        regrade(args.regrade, args.out, args.pass_k)
    else:
        evaluate(args)


def evaluate(args: argparse.Namespace) -> None:
    transformers.utils.logging.disable_progress_bar()
    sets = user_input(load_sets, args)
    folder = user_input(first_model, args)  # made, if it is a built-in one
    if args.resume:  # a chat template that asks for the date gets the first day's
        saved = user_input(scores.read_result, args.out)[0].get("template_args") or {}
        day = {name: x for name, x in saved.items() if name == "strftime_now"}
        args.template_args = day | (args.template_args or {}) or None
    tokenizer, processor, problems = load_problems(args, sets, folder)
    settings = make_settings(args, sets, problems)
    device = init_distributed(30 * 86400, backend="gloo")  # ranks only wait here, for as long as the slowest needs
    rank, world_size = dist.get_rank(), dist.get_world_size()
    stack = ExitStack()
    try:
        of_rank_0(lambda: stack.enter_context(held(args)))
        finished = of_rank_0(lambda: finished_rows(args.out, settings)) if args.resume else []
        say(describe(args, tokenizer, sets, problems, world_size))
        todo = unfinished(problems, finished, args.max_prompt_tokens)[rank::world_size]
        model = read_model(args, folder, device, half=args.dtype == "bfloat16") if todo else None
        decode = decoder(device, say)
        dist.barrier()  # every rank has read what is in --out, and has its model
        if rank == 0:
            scores.write_result(args.out, settings, finished)
        dist.barrier()
        with start_bar(len(todo), desc="eval", unit="problem") as bar:
            for batch in batches(todo, args):
                rows = complete(model, tokenizer, processor, batch, args, decode)
                for row in rows:
                    checkpoint.append(scores.rank_file(args.out, rank), row)
                bar.update(len(rows))
        dist.barrier()
        if rank == 0:
            rows = merge(args.out, settings, problems)
            say(report(settings, rows, parse_ks(args.pass_k, args.samples)) + write_boxes(args.out, rows))
    except KeyboardInterrupt:
        say(f"stopped: --resume continues {args.out}")
        raise
    except OSError as error:  # a full disk, say
        fail(f"{error}; --resume continues it", any_rank=True)
    finally:
        stack.close()
        dist.destroy_process_group()


@contextmanager
def held(args: argparse.Namespace) -> Iterator[None]:
    """--out is this evaluation's alone until the block ends. ValueError: another has it, or has written it since."""
    out = Path(args.out)
    with checkpoint.locked_file(out.with_name(f".{out.name}.lock"), out):
        if out.exists() and not (args.resume or args.overwrite):
            raise ValueError(f"--out {out}: exists; --resume continues it, --overwrite replaces it")
        yield


def load_sets(args: argparse.Namespace) -> dict[str, benchmarks.ProblemSet]:
    """The problem sets by name, checked. ValueError: one can't be used."""
    if args.bench:
        return benchmarks.load_sets(args.bench, args.data_dir, skip_bad_rows=args.skip_bad_rows)
    fields = {"problem_field": args.problem_field, "answer_field": args.answer_field}
    rows, bad = data.load(args.data, split="test", skip_bad_rows=args.skip_bad_rows, **fields)
    boxes = all("images" in row and find_box(row["answer"])[1] for row in rows)
    own = benchmarks.ProblemSet(rows, args.data, bad, benchmarks.Benchmark(grade="iou" if boxes else "accuracy"))
    return {"data": benchmarks.check_golds("data", own, args.skip_bad_rows)}


def load_problems(args, sets: dict[str, benchmarks.ProblemSet], folder) -> tuple[object, object, list[dict]]:
    """The tokenizer; the processor of pictures, or None; and the problems of all sets in order: rows of the result
    without completions, and "prompt_ids". Exits if prompts don't fit the model, before its weights are read."""
    every = [row for problem_set in sets.values() for row in problem_set.rows]
    tokenizer, processor = readers(args, folder, tokenizer_of(args, folder), every)
    problems = []
    for name, problem_set in sets.items():
        options = prompt_options(*prompt_names(args, problem_set.benchmark), args.template_args)
        rows, grade = problem_set.rows, problem_set.benchmark.grade
        scale = args.box_scale or ("pixels" if args.bench and grade == "iou" else None)  # of files
        rows = user_input(pictures.in_model_units, rows, scale, processor) if scale else rows
        for place, row in enumerate(rows):
            ids = user_input(encode_row, row, place, tokenizer, processor, options)
            text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            problem = {"set": name, "place": place, "problem": row["problem"], "answer": row["answer"], "grade": grade}
            problem |= {"prompt": text, "prompt_tokens": len(ids), "greedy": [], "samples": [], "majority": None}
            problem |= {"turns": row["turns"]} if "turns" in row else {}
            if "images" in row:
                problem["prompt"] = re.sub(r"(<[^<>]+>)\1+", r"\1", text)  # a picture's token once
                problem["picture"] = user_input(pictures.digest, row["images"])[:12]
                problem |= {key: row[key] for key in ("images", "box_size", "task") if key in row}
            problems.append(problem | {"seconds": {}, "prompt_ids": ids})
    check_known(args, folder, problems)
    shortest = min(problem["prompt_tokens"] for problem in problems)
    if shortest > args.max_prompt_tokens:
        hint = room_for_pictures(problems, [p["prompt_ids"] for p in problems], processor, args.max_prompt_tokens)
        fail(f"--max-prompt-tokens {args.max_prompt_tokens}: all prompts are longer, from {shortest} up{hint}")
    return tokenizer, processor, problems


def make_settings(args: argparse.Namespace, sets: dict[str, benchmarks.ProblemSet], problems: list[dict]) -> dict:
    """What the result depends on, for its first line; problems and grader by a hash."""
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings |= {"template": prompts.load_template(args.template), "template_args": args.template_args or None}
    settings["sets"] = {}
    for name, problem_set in sets.items():
        own = [problem for problem in problems if problem["set"] == name]
        text = json.dumps([[p[key] for key in ("problem", "answer", "picture") if key in p] for p in own])
        settings["sets"][name] = {key: getattr(problem_set, key) for key in ("source", "bad", "unequal", "whole")}
        settings["sets"][name] |= {"problems": len(own), "sha256": digest(text.encode())}
    settings["prompts"] = digest(json.dumps([problem["prompt"] for problem in problems]).encode())
    settings |= {"weights": weights_version(Path(args.model)), "grader": grader_version()}
    return settings | {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


def weights_version(folder: Path) -> str | None:
    """A hash of a checkpoint's manifest, or of size and date of a folder's weights; None on the hub."""
    manifest, files = folder / checkpoint.MANIFEST, sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    state = repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]).encode()
    return digest(manifest.read_bytes() if manifest.is_file() else state) if files else None


def grader_version() -> str:
    """A hash of the grader's code; verdicts of two versions must not be mixed."""
    return digest(b"".join((ROOT / name).read_bytes() for name in GRADER))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def describe(args, tokenizer, sets: dict[str, benchmarks.ProblemSet], problems: list[dict], world_size: int) -> str:
    """What is evaluated and how, for comparison with other evaluations."""
    fitting = [problem for problem in problems if problem["prompt_tokens"] <= args.max_prompt_tokens]
    usual = "the tokenizer's chat template" if tokenizer.chat_template else "plain text, for want of a chat template"
    lines = []
    for name, problem_set in sets.items():
        count, bad, unequal = len(problem_set.rows), problem_set.bad, problem_set.unequal
        lines.append(f"{name}: {count} problems of {problem_set.source}")
        if problem_set.expected not in (None, count):
            lines.append(f"warning: {name} has {count} problems instead of {problem_set.expected}")
        if bad or unequal:
            lines.append(f"left out of {name}: {bad} bad rows, {unequal} whose answer does not equal itself")
        if text := problem_set.unparsed:
            compared = f"{len(text)} answers that the grader compares as text only"
            lines.append(f"{name}: {compared}; the first: {text[0]!r:.60}")
        system, template = prompt_names(args, problem_set.benchmark)
        template = usual if template == "none" else f"--template {template}"
        first = next((problem["prompt"] for problem in fitting if problem["set"] == name), None)
        lines.append(f"{name}: system prompt {system!r}, {template}; the first prompt: {first!r}")
    lines += [
        f"left out: {len(problems) - len(fitting)} prompts longer than {args.max_prompt_tokens} tokens",
        f"model: {args.model}, {args.dtype}, {world_size} rank(s)",
        f"completions: at most {args.max_new_tokens} tokens; one greedy and {args.samples} samples per problem",
    ]
    if args.samples:
        sampling = f"temperature {args.temperature}, top-p {args.top_p}, top-k {args.top_k}, seed {args.seed}"
        lines.append(f"samples: {sampling}")
    return "\n".join(lines)


def prompt_names(args: argparse.Namespace, benchmark: benchmarks.Benchmark) -> tuple[str, str]:
    """System prompt and template: the flags', or else the benchmark's."""
    system = args.system_prompt if args.system_prompt != "none" else benchmark.system_prompt
    return system, args.template or benchmark.template


def unfinished(problems: list[dict], finished: list[dict], max_prompt_tokens: int) -> list[dict]:
    """The problems still to do, of each set the longest first: so batches and ranks have about as much to do."""
    done = {(row["set"], row["place"]) for row in finished}
    todo = [p for p in problems if (p["set"], p["place"]) not in done and p["prompt_tokens"] <= max_prompt_tokens]
    groups = itertools.groupby(todo, key=lambda problem: problem["set"])
    return [problem for _, group in groups for problem in sorted(group, key=lambda problem: -problem["prompt_tokens"])]


def batches(problems: list[dict], args: argparse.Namespace):
    """The problems in batches of one set, which fit --cache-tokens."""
    longest = max((problem["prompt_tokens"] for problem in problems), default=0) + args.max_new_tokens
    size = max(1, args.cache_tokens // (longest * max(1, args.samples)))
    for _, group in itertools.groupby(problems, key=lambda problem: problem["set"]):
        group = list(group)
        yield from (group[start : start + size] for start in range(0, len(group), size))


def complete(model, tokenizer, processor, problems: list[dict], args: argparse.Namespace, decode) -> list[dict]:
    """Problems of one set -> their graded rows. A sample depends on seed, set, place and number, not on its batch."""
    rows = [without_ids(problem) | {"seconds": {}} for problem in problems]
    prompt_ids = [problem["prompt_ids"] for problem in problems]
    options = {"key": (args.seed, zlib.crc32(problems[0]["set"].encode())), "cache_tokens": args.cache_tokens}
    options |= {"indices": [problem["place"] for problem in problems], "decode": decode, "stop": args.stop}
    options["images"], _ = user_input(features_and_pictures, processor, problems)
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k}
    for name, n, decoding in (("greedy", 1, {"temperature": 0.0}), ("samples", args.samples, sampling)):
        if n == 0:
            continue
        began = time.perf_counter()
        options["progress"] = partial(show, name)
        with autocast(args.dtype, model.device):
            sampled = user_input(rollout, model, tokenizer, prompt_ids, n, args.max_new_tokens, **options, **decoding)
        seconds = time.perf_counter() - began
        texts = completion_texts(tokenizer, sampled)
        tokens = sampled.completion_mask.sum(dim=2).flatten().tolist()
        truncated = sampled.truncated.flatten().tolist()
        parts = zip(texts, tokens, truncated, strict=True)
        completions = [{"text": text, "tokens": count, "truncated": cut} for text, count, cut in parts]
        for i, row in enumerate(rows):
            own = slice(i * n, (i + 1) * n)
            row[name] = completions[own]
            row["seconds"][name] = seconds * sum(tokens[own]) / sum(tokens)  # the batch's, split by tokens
    return [graded(row) for row in rows]


def without_ids(problem: dict) -> dict:
    """The problem as a row of the result: a picture that is no file becomes null."""
    row = {key: value for key, value in problem.items() if key != "prompt_ids"}
    return row | {"images": [i if isinstance(i, str) else None for i in row["images"]]} if "images" in row else row


def graded(row: dict) -> dict:
    """The row with verdicts and vote of the current grader."""
    grade = row.get("grade", "accuracy")

    def judge(completion: dict) -> dict:
        value = getattr(rewards, grade)(completion["text"], row["answer"])
        verdict = value if grade in scores.GRADUAL else bool(value)
        found = {"verdict": verdict, "submitted": submitted(completion["text"], grade)}
        return found | completion | found  # in this order, whether or not they were there

    judged = {name: [judge(completion) for completion in row[name]] for name in ("greedy", "samples")}
    vote = scores.majority([completion["submitted"] for completion in judged["samples"]], is_equiv)
    return row | judged | {"majority": vote}


def submitted(text: str, grade: str) -> str | None:
    """The answer in a completion that a function of rewards.py grades: its box, or what it marks or, of names and
    options, all that it says; None without any."""
    box = find_box(text)[1] if grade.startswith("iou") else None
    whole = rewards.own_text(text)[0].strip()[:MAX_EXPRESSION] if grade.endswith("name") else ""
    return str(box) if box else None if grade == "iou" else rewards.extract_answer(text) or whole or None


def finished_rows(out: str, settings: dict) -> list[dict]:
    """The rows of an interrupted run. ValueError: its settings are not these."""
    saved, rows = scores.read_result(out)
    for name in settings:
        if name != "versions" and settings[name] != saved.get(name, settings[name]):  # older results lack some
            there, here = (json.dumps(each[name])[:120] for each in (saved, settings))
            remedy = "--regrade it first" if name == "grader" else "give the same flags, or another --out"
            raise ValueError(f"--resume {out}: {name} is {there} there, and {here} here; {remedy}")
    return rows


def merge(out: str, settings: dict, problems: list[dict]) -> list[dict]:
    """Merges the rows of all ranks in the order of the problems, including those with too long a prompt."""
    finished = {(row["set"], row["place"]): row for row in scores.read_result(out)[1]}
    rows = [finished.get((problem["set"], problem["place"])) or without_ids(problem) for problem in problems]
    scores.write_result(out, settings, rows)
    return rows


def report(settings: dict, rows: list[dict], ks: list[int]) -> str:
    """The tables of a result."""
    names = list(settings["sets"])
    tables = [scores.score_table(rows, names, ks), scores.completion_table(rows, names)]
    if set(names) & set(scores.PAPER_SETS):
        complete_sets = [name for name in names if settings["sets"][name]["whole"]]
        tables.append(scores.paper_table(settings["model"], rows, complete_sets))
    return "\n\n".join(tables)


def write_boxes(out: str, rows: list[dict]) -> str:
    """Writes the greedy boxes of each set beside the result, as scripts that make masks of them by SAM read them: a
    list of {"image_pth", "pred_bbox": shares of width and height}, of completions with one box -> a line on each."""
    files = {row["set"]: [] for row in rows if "box_size" in row}
    for row in rows:
        said = row["greedy"][0]["text"] if row["set"] in files and row["greedy"] else ""
        if said and (shares := pictures.box_shares(said, row["box_size"])):
            files[row["set"]].append({"image_pth": row["images"][0], "pred_bbox": shares})
    lines = ""
    for name, boxes in files.items():
        file = Path(re.sub(r"\.jsonl?$", "", out) + f".{name}.boxes.json")
        file.write_text(json.dumps(boxes, indent=1) + "\n", encoding="utf-8")
        lines += f"\n\n{name}: {len(boxes)} boxes are in {file}"
    return lines


def regrade(result: str, out: str | None, pass_k: str | None) -> None:
    """Prints which verdicts the current grader changes, and the new tables; writes the new result to out, if given."""
    settings, rows = user_input(scores.read_result, result)
    ks = user_input(parse_ks, pass_k, settings["samples"])
    regraded = [graded(row) for row in rows]
    changes, total = [], 0
    for old, new in zip(rows, regraded, strict=True):
        pairs = zip(old["greedy"] + old["samples"], new["greedy"] + new["samples"], strict=True)
        for i, (before, after) in enumerate(pairs):
            total += 1
            if before["verdict"] != after["verdict"]:
                which = f"sample {i - 1}" if i else "greedy"
                verdict = {True: "right", False: "wrong"}.get(after["verdict"], after["verdict"])
                answers = f"{after['submitted']!r} for {new['answer']!r}"
                changes.append(f"  {new['set']} {new['place']}, {which}: now {verdict}: {answers}")
    say("\n".join([f"{len(changes)} of {total} verdicts changed", *changes]) + "\n")
    settings["grader"] = grader_version()
    if out:
        scores.write_result(out, settings, regraded)
    say(report(settings, regraded, ks) + (write_boxes(out, regraded) if out else ""))


def compare(before: str, after: str) -> None:
    """Prints the settings in which two results differ, and their paired differences."""
    (old, old_rows), (new, new_rows) = (user_input(scores.read_result, path) for path in (before, after))
    say(f"before: {old['model']}, {before}\nafter: {new['model']}, {after}")
    for name in new:
        if name not in ("model", "weights", "prompts", "versions") and old.get(name) != new[name]:
            say(f"they differ in {name}: {json.dumps(old.get(name))[:200]} and {json.dumps(new[name])[:200]}")
    say("\n" + user_input(scores.compare, old_rows, new_rows))


if __name__ == "__main__":
    main()
