"""Times a training step, its parts, and each optimization ("lever") on and off; compares with the machine and with TRL.

    python -m tools.bench                                           the built-in model with its default batch
    python -m tools.bench --model DIR --data FILE                   any other, by default 4 prompts x 8 x 128 tokens
    python -m tools.bench --peer trl --valid-share 0.5 0.25         a step against TRL's GRPOTrainer (pip install trl)

All other flags are train.py's. Seconds are the process's CPU seconds, medians after a warm-up; both sides of a ratio
are measured in turn in one process, so that a busy machine slows both. Memory is the increase in peak resident memory.
Letters: P prompts, G samples of each, T completion tokens.
"""

import argparse
import ctypes
import gc
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import rollout as rollout_module
import train
from engine import policy as policy_module
from engine.balance import share_out
from engine.methods import Method
from engine.micro_batches import micro_batches, sample_rows
from engine.optimizer import make_optimizer
from engine.policy import Policy, autocast
from gpg import token_weights
from rewards import accuracy
from rollout import Rollout, completion_texts, eval_mode, join, rollout
from run import flags, memory
from run.checkpoint import State
from run.models import Trained, load_model, make_policy
from run.problems import load_problems
from run.ranks import init_distributed
from tasks import addition
from tools.plot import markdown

OUT = Path(tempfile.gettempdir(), "gpg-bench-is-not-written")  # train.py's flags need a folder; it is never made


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.model == flags.BUILT_IN:
        addition.ensure(args.seed)  # once, before anything is measured
    result = {"flags": vars(args)}
    if args.peer:
        result |= {"ours": [in_a_process(our_steps, args, valid) for valid in args.valid]}
        result |= {"trl": in_a_process(trl_steps, args)}
        print(peer_table(result))
    else:
        result |= in_a_process(parts_and_levers, args)
        print(parts_table(result), levers_table(result["taken"]), sep="\n\n")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Our flags and train.py's, for steps of one round."""
    about = __doc__.partition("\n")[0] + " All other flags are train.py's."
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=about, allow_abbrev=False)
    parser.error = flags.fail
    add = parser.add_argument
    add("--model", default=flags.BUILT_IN, metavar="DIR", help="folder or hub name (default: the built-in model)")
    add("--valid-share", type=float, nargs="+", default=[0.5], metavar="S", help="valid groups (default: 0.5)")
    add("--repeats", type=int, default=3, help="timed, after one for warm-up (default: 3)")
    add("--peer", choices=("trl",), help="compare a step with TRL's GRPOTrainer instead")
    add("--json", metavar="FILE", help="also write all figures here")
    ours, words = parser.parse_known_args(argv)
    usual = [] if ours.model == flags.BUILT_IN else ["--prompts-per-step", "4", "--max-new-tokens", "128"]
    words = ["--model", ours.model, *usual, *words, "--beta-th", "0", "--eval-every", "0", "--out", str(OUT)]
    args = argparse.Namespace(**vars(flags.parse_args(words)) | vars(ours))
    args.valid = [max(1, round(share * args.prompts_per_step)) for share in args.valid_share]  # groups
    if args.peer and not importlib.util.find_spec("trl"):
        flags.fail("--peer trl: pip install trl")
    if args.repeats < 1:
        flags.fail("--repeats: must be 1 or more")
    if not all(0 < share <= 1 for share in args.valid_share):
        flags.fail(f"--valid-share {args.valid_share}: must be above 0, and at most 1")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        flags.fail(f"--json {args.json}: no such folder")
    return args


def in_a_process(function, *arguments) -> dict:
    """The function's result, from a new process: memory used before does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def load(args):
    """Tokenizer, model, and P problems with "prompt_ids" and "place", 0 to P - 1."""
    torch.set_num_threads(1)
    device = init_distributed(args.rank_timeout)
    with redirect_stdout(sys.stderr):  # stdout is for tables
        folder, tokenizer, _, problems, _ = load_problems(args, None)
    model, P = load_model(args, folder, device), args.prompts_per_step
    if len(problems) < P:
        flags.fail(f"--data {args.data}: {len(problems)} problems are too few for --prompts-per-step {P}")
    never_end(model, tokenizer)
    return tokenizer, model, [row | {"place": place} for place, row in enumerate(problems[:P])]


def never_end(model, tokenizer) -> None:
    """Makes EOS a token without a logit, so that every completion has T tokens, ours and TRL's."""
    missing = max(0, model.config.get_text_config().vocab_size - len(tokenizer))
    tokenizer.add_tokens([f"<|unused {i}|>" for i in range(missing)])
    pad = tokenizer.pad_token_id
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    tokenizer.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def fixed_rewards(places: list[int], texts: list[str], answers: list[str], valid: int) -> list[float]:
    """Grades as a run would, then fixes the number of valid groups: the first are half right, the others all wrong."""
    for text, answer in zip(texts, answers, strict=True):
        accuracy(text, answer)
    return [float(place < valid and i % 2 == 0) for i, place in enumerate(places)]


def our_steps(args, valid: int) -> dict:
    """Steps as in train.py."""
    result = steps_of_ours(args, valid)  # model and DDP must be gone before the process group is
    dist.destroy_process_group()
    return result


def steps_of_ours(args, valid: int) -> dict:
    empty = resident()
    tokenizer, model, rows = load(args)
    optimizer = make_optimizer(model, kind="adamw", lr=args.lr, weight_decay=args.weight_decay)
    trained, state = Trained(model, make_policy(model, "ddp", args), tokenizer, optimizer, Method()), State()

    def scorer(prompts, texts, ids, columns):
        del prompts, ids
        rewards = fixed_rewards(columns["place"], texts, columns["answer"], valid)
        return {"total": rewards, "by_name": {"benchmark": rewards}, "errors": 0, "counts": {}}

    steps = []
    for number in range(args.repeats + 1):
        settle()
        began = time.process_time()
        batch = train.collect(trained, rows, scorer, args, replace(state, step=number))
        rolled = time.process_time()
        share = share_out(batch.rollout, train.weigh(batch, args))
        gradient = train.gradient_of(trained, share, args, halves=False)
        train.take_step(optimizer, args.lr, learn=gradient.is_finite())
        ended = time.process_time()
        steps.append((rolled - began, ended - rolled, resident("VmHWM")))
        assert batch.rollout.completion_mask.all(), "a completion ended before its T tokens"
        assert batch.num_valid == valid and gradient.is_finite()
    return {"valid": valid} | medians(steps, empty, model)


def trl_steps(args) -> dict:
    """The same steps by GRPOTrainer, whose time does not depend on the valid share: it forwards every sample."""
    import datasets
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    empty = resident()
    tokenizer, model, rows = load(args)
    dist.destroy_process_group()
    texts = [plain_text(tokenizer, row["prompt_ids"]) for row in rows]
    columns = {"prompt": texts, "place": list(range(len(rows))), "answer": [row["answer"] for row in rows]}
    rolled, steps = [], []

    def benchmark(completions, place, answer, **_):
        return fixed_rewards(place, completions, answer, args.valid[0])

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            settle()
            self.began = time.process_time()

        def on_step_end(self, *_, **__):
            seconds = time.process_time() - self.began
            steps.append((rolled[-1], seconds - rolled[-1], resident("VmHWM")))

    class Trainer(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *arguments, **options):
            expected = [row["prompt_ids"] for row in rows for _ in range(args.group_size)]
            assert [list(ids) for ids in prompt_ids] == expected, "TRL was given other prompts"
            began = time.process_time()
            result = super()._generate_single_turn(prompt_ids, *arguments, **options)
            rolled.append(time.process_time() - began)
            assert all(len(ids) == args.max_new_tokens for ids in result[0]), "a completion ended before its T tokens"
            return result

    G = args.group_size
    samples = args.prompts_per_step * G
    batch = math.gcd(8, samples)  # TRL's default is 8, and it must divide the samples
    same = {"num_generations": G, "max_completion_length": args.max_new_tokens, "learning_rate": args.lr}
    same |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": samples // batch}
    same |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "beta": 0.0, "loss_type": "dapo", "scale_rewards": "none"}
    same |= {"bf16": args.dtype == "bfloat16", "max_grad_norm": args.grad_clip, "gradient_checkpointing": False}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    quiet |= {"output_dir": str(OUT), "max_steps": args.repeats + 1, "use_cpu": True, "shuffle_dataset": False}
    columns = {name: values * (args.repeats + 1) for name, values in columns.items()}
    options = {"args": GRPOConfig(**same, **quiet), "train_dataset": datasets.Dataset.from_dict(columns)}
    options |= {"processing_class": tokenizer, "callbacks": [Clock()], "reward_funcs": benchmark}
    Trainer(model=model, **options).train()
    return {"batch": batch} | medians(steps, empty, model)


def plain_text(tokenizer, ids: list[int]) -> str:
    """A text that the tokenizer, as TRL calls it, turns into these ids."""
    text = tokenizer.decode(ids)
    for candidate in (text, text.removeprefix(tokenizer.bos_token or "")):
        if tokenizer(text=candidate)["input_ids"] == ids:
            return candidate
    raise ValueError("--peer trl: a prompt's text does not encode to its ids; use other --data")


def medians(steps: list[tuple], empty: float, model) -> dict:
    """Of (seconds of the rollout, of the update, peak memory in bytes): median seconds, and the highest peak above the
    empty process and 16 bytes per parameter. The first step is for warm-up."""
    rollouts, updates, peaks = zip(*steps[1:], strict=True)
    result = {"rollout": statistics.median(rollouts), "update": statistics.median(updates)}
    result["seconds"] = statistics.median(map(sum, zip(rollouts, updates, strict=True)))
    return result | {"above": max(peaks) - empty - 16 * sum(p.numel() for p in model.parameters())}


def resident(field: str = "VmRSS") -> float:
    """Bytes of this process in memory, now (VmRSS) or at its peak since settle (VmHWM); nan without /proc."""
    return memory.resident(field) if Path("/proc/self/status").exists() else math.nan


def settle() -> None:
    """Returns free memory to the system, and resets the peak."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def compare(works: dict, repeats: int) -> dict:
    """{name: function} -> {name: median CPU seconds and increase in peak bytes}, run in turn after a warm-up."""
    taken = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, function in works.items():
            settle()
            before, began = resident(), time.process_time()
            function()
            taken[name].append((time.process_time() - began, resident("VmHWM") - before))
    medians_of = {name: map(statistics.median, zip(*pairs[1:], strict=True)) for name, pairs in taken.items()}
    return {name: dict(zip(("seconds", "peak"), pair, strict=True)) for name, pair in medians_of.items()}


def machine(dtype: torch.dtype) -> float:
    """FLOP/s of the best of several large matrix products on one thread."""
    n, seconds = 2048, []
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    for _ in range(6):
        began = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - began)
    return 2 * n**3 / min(seconds)


def update(policy: Policy, r: Rollout, weights: torch.Tensor, budget: int, *, everyone=False, known=True) -> None:
    """Forward and backward as in train.backward. everyone: invalid groups too. known: the gradient is passed ahead."""
    weights = weights.flatten(0, 1)  # (P * G, T)
    chosen = torch.arange(len(weights)) if everyone else weights.any(dim=1).nonzero().squeeze(1)
    for piece in micro_batches(r, chosen, budget, shared=policy.shared):
        samples = sample_rows(r, piece)
        mask = samples[3].bool()  # (N, T)
        w = weights[piece, : mask.shape[1]][mask]  # (M,)
        (-(w * policy(*samples, grad=-w if known else None)).sum()).backward()


@torch.no_grad()
def bare_decode(model, r: Rollout, tokens: int, args) -> None:
    """Only the model calls that sampling needs: the tokens are given, DynamicCache concatenates."""
    ids, mask, G = r.completion_ids.flatten(0, 1), r.prompt_mask, r.completion_ids.shape[1]
    with eval_mode(model), autocast(args.dtype, ids.device):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        inputs = {"input_ids": r.prompt_ids, "position_ids": positions, "logits_to_keep": 1}
        cache = model(**inputs, attention_mask=mask, use_cache=True)["cache"]
        cache.batch_repeat_interleave(G)
        mask = mask.repeat_interleave(G, 0)
        for t in range(tokens - 1):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            inputs = {"input_ids": ids[:, t : t + 1], "position_ids": mask.sum(dim=1, keepdim=True) - 1}
            model(**inputs, attention_mask=mask, cache=cache, use_cache=True)


def concatenated(cache, rows: torch.Tensor, room: int):
    """Replaces rollout._rows_of_cache: DynamicCache as it is."""
    del room
    cache.reorder_cache(rows)
    return cache


@contextmanager
def uneven(model, tokens: int) -> Iterator[None]:
    """Samples end at random, after tokens / 2 on average, each by its own random stream."""
    draw, end = rollout_module.draw, 0  # an id that the model knows: it is fed to rows that stay after their end

    def ending(logits, uniforms, **options):
        drawn, logprobs = draw(logits, uniforms, **options)
        return drawn.where(uniforms * 2**20 % 1 >= 2 / tokens, end), logprobs

    with patch.object(rollout_module, "draw", ending), patch.object(model.generation_config, "eos_token_id", end):
        yield


# lever: (with it, without it), names in rollout_works and update_works
LEVERS = {
    "one prefill per prompt": ("rollout", "prefill per sample"),
    "keys and values in a buffer": ("rollout", "cache concatenated"),
    "rows leave when they end": ("rollout, uneven", "rows stay"),
    "valid groups only": ("update", "all groups"),
    "the prompt once per group": ("update", "prompt per sample"),
    "logits in slices": ("update", "logits whole"),
    "logits computed once": ("update", "logits twice"),
    "completions cut by length": ("update, uneven", "not cut"),
    "bfloat16": ("update, bfloat16", "update, float32"),
}


def parts_and_levers(args) -> dict:
    """Seconds and peaks of the parts of a step, and of each lever on and off."""
    tokenizer, model, rows = load(args)
    dist.destroy_process_group()
    policy, valid = Policy(model, args.temperature, args.dtype), args.valid[0]
    draw, T = partial(sample, args, tokenizer, model, rows), args.max_new_tokens
    even = draw()
    with uneven(model, T):
        ragged = draw()
    assert even.completion_mask.all() and not ragged.completion_mask.all()
    taken = compare(rollout_works(args, tokenizer, model, rows, draw, even, valid), args.repeats)
    works = update_works(policy, even, ragged, valid, args.tokens_per_micro_batch)
    taken |= compare(works, args.repeats)

    wholes = ("rollout", "prefill"), ("bare", "bare prefill")
    decode, bare = (taken[whole]["seconds"] - taken[first]["seconds"] for whole, first in wholes)
    taken["decode"] = taken["rollout"] | {"seconds": decode}
    lengths, completions = [len(row["prompt_ids"]) for row in rows], len(rows) * args.group_size
    tokens = {"prefill": sum(lengths), "decode": completions * (T - 1), "update": valid * args.group_size * T}
    tokens["grading"] = completions * T
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others are not counted on a CPU
        works["update"]()
    limit = machine(torch.bfloat16 if args.dtype == "bfloat16" else torch.float32)
    return {
        "parts": {name: taken[name] | {"tokens": number} for name, number in tokens.items()},
        "decode_over_bare_loop": decode / bare,
        "machine_flops": limit,
        "update_reaches": counter.get_total_flops() / limit / taken["update"]["seconds"],
        "peak_of_twice_the_samples": taken["twice"]["peak"] / taken["once"]["peak"],
        "taken": taken,
    }


def sample(args, tokenizer, model, rows, *, per_sample=False, tokens=None) -> Rollout:
    """A rollout as in train.collect; per_sample: each prompt G times, as if they were different."""
    G = args.group_size
    prompts = [row["prompt_ids"] for row in rows for _ in range(G if per_sample else 1)]
    shape = (1 if per_sample else G, tokens or args.max_new_tokens)
    with autocast(args.dtype, model.device):
        return rollout(model, tokenizer, prompts, *shape, cache_tokens=args.cache_tokens)


def rollout_works(args, tokenizer, model, rows, draw, even, valid) -> dict:
    """Name -> what to time: the rollout as it is, with each lever off, and the bare loop."""
    T, repeated = args.max_new_tokens, [row for row in rows for _ in range(args.group_size)]
    places, answers = ([row[name] for row in repeated] for name in ("place", "answer"))

    def without(name, replacement):
        with patch.object(rollout_module, name, replacement):
            draw()

    return {
        "rollout": draw,
        "prefill": partial(draw, tokens=1),
        "grading": lambda: fixed_rewards(places, completion_texts(tokenizer, even), answers, valid),
        "bare": partial(bare_decode, model, even, T, args),
        "bare prefill": partial(bare_decode, model, even, 1, args),
        "prefill per sample": partial(draw, per_sample=True),
        "cache concatenated": partial(without, "_rows_of_cache", concatenated),
        "rollout, uneven": uneven(model, T)(draw),
        "rows stay": uneven(model, T)(partial(without, "_compact", lambda rows: torch.arange(len(rows)))),
    }


def update_works(policy, even, ragged, valid: int, budget: int) -> dict:
    """Name -> what to time: the update as it is, with each lever off, and with twice the samples."""
    P, G = even.truncated.shape
    places = [place for place in range(P) for _ in range(G)]
    rewards = torch.tensor(fixed_rewards(places, [], [], valid), dtype=torch.float64).view(P, G)
    w, w_ragged = (token_weights(rewards, r.completion_mask) for r in (even, ragged))
    small = min(budget, even.prompt_ids.shape[1] + G * even.completion_ids.shape[2])  # tokens of a group

    def without(owner, name, value, r=even, weights=w):
        with patch.object(owner, name, value):
            update(policy, r, weights, budget)

    return {
        "update": partial(update, policy, even, w, budget),
        "prompt per sample": partial(without, policy, "shared", False),
        "all groups": partial(update, policy, even, w, budget, everyone=True),
        "logits whole": partial(without, policy, "sliced", False),
        "logits twice": partial(update, policy, even, w, budget, known=False),
        "update, uneven": partial(update, policy, ragged, w_ragged, budget),
        "not cut": partial(without, policy_module, "FORWARD_TOKENS", 10**9, ragged, w_ragged),
        "update, float32": partial(without, policy, "dtype", "float32"),
        "update, bfloat16": partial(without, policy, "dtype", "bfloat16"),
        "once": partial(update, policy, even, w, small),
        "twice": partial(update, policy, join([even, even]), torch.cat([w, w]), small),
    }


def table(columns: list[str], rows: list[list]) -> str:
    """Markdown with three digits per number; what was not measured, nan, as a dash."""

    def shown(cell) -> str:
        if isinstance(cell, str):
            return cell
        return "–" if math.isnan(cell) else f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"

    return markdown([columns, *(list(map(shown, row)) for row in rows)])


def parts_table(result: dict) -> str:
    """Seconds, tokens/s and peak of each part, and the update's share of the machine's limit."""
    parts = result["parts"].items()
    rows = [[name, part["seconds"], part["tokens"] / part["seconds"], part["peak"] / 1e6] for name, part in parts]
    reached = f"{result['update_reaches']:.0%} of {result['machine_flops'] / 1e9:.0f} GFLOP/s"
    return "\n".join(
        [
            table(["part", "CPU s", "tokens/s", "peak MB"], rows) + "\n",
            f"update: {reached}, the limit in {result['flags']['dtype']} matrix products on one thread",
            f"decode / bare loop of model calls: {result['decode_over_bare_loop']:.2f}",
            f"peak with twice the samples / peak: {result['peak_of_twice_the_samples']:.3f}",
        ]
    )


def levers_table(taken: dict) -> str:
    """Seconds and memory with each lever on and off."""
    rows = []
    for lever, names in LEVERS.items():
        seconds, peaks = ([taken[name][key] for name in names] for key in ("seconds", "peak"))
        memory_ratio = peaks[1] / max(peaks[0], 1)
        rows.append([lever, names[0], *seconds, seconds[1] / seconds[0], *(peak / 1e6 for peak in peaks), memory_ratio])
    return table(["lever", "part", "on, s", "off, s", "off / on", "on, MB", "off, MB", "off / on"], rows)


def peer_table(result: dict) -> str:
    """CPU seconds per step and peak memory beyond weights, gradients and AdamW, ours and TRL's, and their ratios."""
    trl, rows = result["trl"], []
    of = f"of {result['flags']['prompts_per_step']} groups valid"
    ours = {f"GPG, {step['valid']} {of}": step for step in result["ours"]}
    for name, step in ({f"TRL, {trl['batch']} samples a forward": trl} | ours).items():
        row = [name, step["seconds"], step["rollout"], step["update"], step["above"] / 1e6]
        rows.append(row + [step["seconds"] / trl["seconds"], step["above"] / trl["above"]])
    return table(["a step", "CPU s", "rollout", "update", "MB beyond", "time / TRL", "memory / TRL"], rows)


if __name__ == "__main__":
    main()
