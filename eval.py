"""Benchmarks: greedy pass@1 of a model on problems with known answers, and the mean accuracy of N samples of each.

    python eval.py --model out/final --data aime.jsonl                            greedy
    python eval.py --model Qwen/Qwen2.5-Math-7B --data openai/gsm8k --n 16        greedy, then 16 samples a problem

Every problem becomes a line of --out, in the order of --data: problem, answer, prompt (the text that the model saw),
prompt_tokens, and completions, the greedy one first. A completion is its verdict, the text, its number of tokens (the
EOS is one of them) and whether --max-new-tokens cut it. A problem whose prompt is too long has no completions and is
left out of the means, as the table says. Letters: P problems, G completions of each.
"""

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import data
from flags import fail, pretrained, user_input
from rewards import accuracy, num_as_text
from rollout import completion_texts, rollout


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    transformers.utils.logging.disable_progress_bar()
    tokenizer, problems, num_bad = load_problems(args)
    fitting = [row for row in problems if len(row["prompt_ids"]) <= args.max_prompt_tokens]
    describe(args, tokenizer, fitting, len(problems) - len(fitting), num_bad)
    if num := num_as_text([row["answer"] for row in fitting]):
        print(f"{num} of {len(fitting)} answers can't be parsed: they are compared as text only", flush=True)
    model = load_model(args)

    with tqdm(total=len(fitting) * (1 + args.n), desc="eval", unit="completion", dynamic_ncols=True) as bar:
        complete_them = partial(complete, model, tokenizer, fitting, args, bar)
        results = {"greedy pass@1": complete_them(1, temperature=0.0)}
        if args.n:
            sampling = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k}
            results[f"sampled avg@{args.n}"] = complete_them(args.n, **sampling)

    write(args, tokenizer, problems, fitting, list(results.values()))
    print(table(results), flush=True)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The flags, checked; exits with 2 on the first that can't be."""
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.error = fail
    # fmt: off
    add = parser.add_argument_group("model and data").add_argument
    add("--model", required=True, metavar="NAME", help="folder or hub name of a causal LM, such as OUT/final of a run")
    add("--data", required=True, metavar="SOURCE",
        help="problems: .jsonl, .json, .parquet or hub data set (its test split); a,b joins, a[:N] takes the first N "
             "(paper: AIME24, MATH-500, AMC23, Minerva, OlympiadBench)")
    add("--problem-field", metavar="NAME", help="column of the problem, where it isn't found by itself")
    add("--answer-field", metavar="NAME", help="column of the answer, where it isn't found by itself")
    add("--skip-bad-rows", action="store_true", help="count broken rows instead of stopping at the first")
    add("--system-prompt", default="none", metavar="NAME",
        help=f"{', '.join(data.SYSTEM_PROMPTS)}, or a text of your own; the one of training (paper's 7B: qwen-7b)")
    add("--template", metavar="FILE", help="prompt with {problem} in it, in place of the tokenizer's chat template")

    add = parser.add_argument_group("decoding").add_argument
    add("--n", type=int, default=0, help="completions to sample of each problem, beside the greedy one; 0: none")
    add("--temperature", type=float, default=1.0, help="of the samples (paper's 1.5B: 0.6)")
    add("--top-p", type=float, default=1.0, help="sample among the fewest tokens of this mass; 1: off (1.5B: 0.95)")
    add("--top-k", type=int, default=0, help="sample among so many likeliest tokens; 0: off (paper: not given)")
    add("--seed", type=int, default=0, help="of the samples")
    add("--max-prompt-tokens", type=int, default=1024, help="longer ones are left out and counted (paper: not given)")
    add("--max-new-tokens", type=int, default=2048, help="tokens of a completion (paper: not given)")
    add("--samples-at-once", type=int, default=256, help="completions decoded at once; bounds the key-value cache")
    add("--dtype", choices=("float32", "bfloat16", "float64"), default="float32",
        help="of matrix products; bfloat16 keeps float32 weights, as in training (paper: not given)")

    add = parser.add_argument_group("result").add_argument
    add("--out", default="eval.jsonl", metavar="FILE", help="where problems, completions and verdicts go")
    add("--overwrite", action="store_true", help="replace --out")
    # fmt: on
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Stops at the first flag that can't be, before anything slow."""
    out = Path(args.out)
    least = {"n": 0, "top_k": 0, "seed": 0, "max_prompt_tokens": 1, "max_new_tokens": 1, "samples_at_once": 1}
    for name, bound in least.items():
        if getattr(args, name) < bound:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {bound} or more")
    sampling = (args.temperature, args.top_p, args.top_k) != (1.0, 1.0, 0)
    for wrong, message in (
        (not 0 < args.temperature < math.inf, f"--temperature {args.temperature}: must be above 0; greedy needs none"),
        (not 0 < args.top_p <= 1, f"--top-p {args.top_p}: must be above 0, and at most 1 (off)"),
        (sampling and not args.n, "--temperature, --top-p and --top-k are of samples: say how many of them with --n"),
        (out.is_dir(), f"--out {out}: is a folder; give a file"),
        (out.exists() and not args.overwrite, f"--out {out}: exists; --overwrite replaces it"),
    ):
        if wrong:
            fail(message)
    user_input(data.system_prompt, args.system_prompt)
    if args.template:
        user_input(data.load_template, args.template)
    user_input(out.parent.mkdir, parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        fail(f"--out {out}: can't write to the folder {out.parent}; give a file in another")


def load_problems(args):
    """Finds what is wrong with data, prompts or model before the weights are read -> the tokenizer, the problems, each
    with its "place" in --data and its "prompt_ids", and the number of bad rows that were skipped."""
    load = partial(user_input, data.load, problem_field=args.problem_field, answer_field=args.answer_field)
    rows, num_bad = load(args.data, split="test", skip_bad_rows=args.skip_bad_rows)
    tokenizer = pretrained(AutoTokenizer, args.model)
    config = pretrained(AutoConfig, args.model).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    if args.max_prompt_tokens + args.max_new_tokens > positions:
        fail(f"--max-prompt-tokens + --max-new-tokens is above the {positions} positions of {args.model}")

    template = data.load_template(args.template) if args.template else None
    system, suffix = data.system_prompt(args.system_prompt)
    encode = partial(data.encode_prompt, tokenizer, system=system, suffix=suffix, template=template)
    ids = user_input(lambda: [encode(row["problem"]) for row in rows])
    if min(map(len, ids)) > args.max_prompt_tokens:
        fail(f"--max-prompt-tokens {args.max_prompt_tokens}: all prompts are longer, from {min(map(len, ids))} up")
    problems = [row | {"place": place, "prompt_ids": ids[place]} for place, row in enumerate(rows)]
    return tokenizer, problems, num_bad


def load_model(args):
    """The model in float32 (float64 with --dtype float64), on its device: the one place that names it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float64 if args.dtype == "float64" else torch.float32
    model = pretrained(AutoModelForCausalLM, args.model, dtype=dtype, output_loading_info=True)
    return model.to(device).eval()


def complete(model, tokenizer, problems: list[dict], args, bar, group_size: int, **sampling) -> list[list[dict]]:
    """P problems -> P lists of G graded completions, as they are written.

    A sample depends on the seed, its problem's place in --data and its own number, not on --samples-at-once.
    """
    results, at_once = [], max(1, args.samples_at_once // group_size)
    for start in range(0, len(problems), at_once):
        rows = problems[start : start + at_once]
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            sampled = user_input(
                rollout,
                model,
                tokenizer,
                [row["prompt_ids"] for row in rows],
                group_size,
                args.max_new_tokens,
                key=(args.seed,),
                indices=[row["place"] for row in rows],
                max_samples=args.samples_at_once,
                **sampling,
            )
        texts = completion_texts(tokenizer, sampled)
        tokens = sampled.completion_mask.sum(dim=2).flatten().tolist()
        truncated = sampled.truncated.flatten().tolist()
        graded = []
        for i, text in enumerate(texts):
            verdict = bool(accuracy(text, rows[i // group_size]["answer"]))
            graded.append({"verdict": verdict, "text": text, "tokens": tokens[i], "truncated": truncated[i]})
        results += [graded[i : i + group_size] for i in range(0, len(graded), group_size)]
        bar.update(len(graded))
    return results


def mean_and_error(groups: list[list[dict]]) -> tuple[float, float]:
    """Mean verdict of P groups of G completions, and its standard error clustered by problem: samples of a problem are
    not independent, problems are. sqrt(sum of (group's mean - mean)^2) / P; with G = 1 it is train.py's sqrt(p(1-p)/P).
    """
    means = [sum(completion["verdict"] for completion in group) / len(group) for group in groups]
    mean = sum(means) / len(means)
    return mean, math.sqrt(sum((m - mean) ** 2 for m in means)) / len(means)


def describe(args, tokenizer, fitting: list[dict], num_long: int, num_bad: int) -> None:
    """What is evaluated, and how it is asked, for the person who compares it with another evaluation."""
    template = "plain text, as the tokenizer has no chat template"
    if args.template or tokenizer.chat_template:
        template = f"--template {args.template}" if args.template else "the tokenizer's chat template"
    print(f"{args.model} on {args.data}: {len(fitting)} problems")
    print(f"left out: {num_long} prompts longer than {args.max_prompt_tokens} tokens, {num_bad} bad rows")
    print(f"prompts: system prompt {args.system_prompt!r}, {template}; the first: {text_of(tokenizer, fitting[0])!r}")
    print(f"completions: at most {args.max_new_tokens} tokens, {args.dtype}")
    if args.n:
        print(f"samples: temperature {args.temperature}, top-p {args.top_p}, top-k {args.top_k}, seed {args.seed}")
    sys.stdout.flush()


def table(results: dict[str, list[list[dict]]]) -> str:
    """Markdown, a row a way of decoding; tokens are of a completion, the EOS included."""
    lines = ["| | problems | accuracy | truncated | mean tokens |", "|:--|--:|--:|--:|--:|"]
    for name, groups in results.items():
        mean, error = mean_and_error(groups)
        completions = [completion for group in groups for completion in group]
        truncated = sum(completion["truncated"] for completion in completions) / len(completions)
        tokens = sum(completion["tokens"] for completion in completions) / len(completions)
        score = f"{100 * mean:.1f} ± {100 * error:.1f} %"
        lines.append(f"| {name} | {len(groups)} | {score} | {100 * truncated:.1f} % | {tokens:.1f} |")
    return "\n".join(lines)


def text_of(tokenizer, row: dict) -> str:
    """The prompt as text, special tokens and all."""
    return tokenizer.decode(row["prompt_ids"], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def write(args, tokenizer, problems: list[dict], fitting: list[dict], results: list[list[list[dict]]]) -> None:
    """One JSON object a problem to --out, which appears whole or not at all."""
    completions = {row["place"]: [] for row in problems}
    for groups in results:
        for row, group in zip(fitting, groups, strict=True):
            completions[row["place"]] += group
    out = Path(args.out)
    temporary = out.with_name(f".{out.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as lines:
        for row in problems:
            shown = {"problem": row["problem"], "answer": row["answer"], "prompt": text_of(tokenizer, row)}
            shown |= {"prompt_tokens": len(row["prompt_ids"]), "completions": completions[row["place"]]}
            lines.write(json.dumps(shown, ensure_ascii=False) + "\n")
    temporary.replace(out)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
