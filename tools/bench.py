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
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
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
from engine.balance import Share, share_out
from engine.methods import Method
from engine.optimizer import Gradient, make_optimizer
from engine.policy import Policy, autocast
from gpg import token_weights
from rewards import accuracy
from rollout import Rollout, completion_texts, rollout
from run import flags, memory, ranks
from run.checkpoint import State
from run.models import Trained, load_model, make_policy
from run.problems import load_problems
from tasks import addition
from tools.plot import markdown

OUT = Path(tempfile.gettempdir(), "gpg-bench-is-not-written")  # train.py's flags need a folder; it is never made


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.model == flags.BUILT_IN:
        addition.ensure(args.seed)  # once, before anything is measured
    if args.peer:
        steps = [in_a_process(trl_steps, args), *(in_a_process(our_steps, args, valid) for valid in args.valid)]
        (_, seconds, above), rows = steps[0], [["a step", "CPU s", "MB beyond", "time / TRL", "memory / TRL"]]
        rows += [[name, own, peak / 1e6, own / seconds, peak / above] for name, own, peak in steps]
        print(markdown(rows))
    else:
        print(in_a_process(parts_and_levers, args))


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
    return args


def in_a_process(function: Callable, *arguments):
    """The function's result, from a new process: memory used before does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def load(args):
    """Tokenizer, model, and P problems with "prompt_ids" and "place", 0 to P - 1."""
    torch.set_num_threads(1)
    device = ranks.init_distributed(args.rank_timeout)
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


def measure(works: dict[str, Callable], device: torch.device, repeats: int = 1) -> dict[str, dict[str, float]]:
    """{name: function} -> {name: median seconds, and increase in peak bytes}, run in turn after a warm-up."""
    taken = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            settle(device)
            before, began = held(device), clock(device)
            work()
            taken[name].append((clock(device) - began, held(device, peak=True) - before))
    pairs = {name: map(statistics.median, zip(*each[1:], strict=True)) for name, each in taken.items()}
    return {name: dict(zip(("seconds", "peak"), pair, strict=True)) for name, pair in pairs.items()}


def clock(device: torch.device) -> float:
    """This process's CPU seconds; on a GPU seconds, after all that was started there has ended."""
    if not ranks.is_gpu(device):
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def held(device: torch.device, peak: bool = False) -> float:
    """Bytes in use, now or at their peak since settle; nan on a CPU without /proc."""
    if ranks.is_gpu(device):
        return (torch.accelerator.max_memory_allocated if peak else torch.accelerator.memory_allocated)(device)
    return memory.resident("VmHWM" if peak else "VmRSS") if Path("/proc/self/status").exists() else math.nan


def settle(device: torch.device) -> None:
    """Returns free memory to the system, and resets the peak."""
    gc.collect()
    if ranks.is_gpu(device):
        return torch.accelerator.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def flops_limit(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of a large matrix product; on a CPU, of one thread."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / measure({"product": lambda: a @ a}, device, 5)["product"]["seconds"]


def policy_of(model, dtype: str, temperature: float = 1.0) -> Policy:
    """As a run would make it, without the wrapper that spreads it."""
    policy = ranks.suit(Policy(model, temperature, dtype))
    policy.no_sync = nullcontext
    return policy


def share_of(r: Rollout, valid: int, everyone: bool = False) -> Share:
    """Samples of the first `valid` groups, half of them right, as one rank's share; everyone: of all groups."""
    device, (P, G) = r.truncated.device, r.truncated.shape
    right = torch.arange(G, device=device) % 2 == 0  # (G,)
    rewards = (right & (torch.arange(P, device=device) < valid)[:, None]).double()  # (P, G)
    samples = torch.arange((P if everyone else valid) * G, device=device)
    weights = token_weights(rewards, r.completion_mask)  # (P, G, T)
    return Share(r, weights, {}, samples, len(samples), int(r.completion_mask.sum()), 1.0, 1.0)


def update(policy: Policy, share: Share, budget: int, *, owner: object = None, **changes) -> Gradient:
    """The gradient, as train.py makes it; changes: attributes that the policy, or another owner, has meanwhile."""
    policy.zero_grad(set_to_none=False)
    with patch.multiple(owner or policy, **changes) if changes else nullcontext():
        return train.backward(policy, share, budget, grad_clip=0.0)


def parts_and_levers(args) -> str:
    """Tables of the parts of a step, and of each lever on and off; the update's share of the machine's limit."""
    tokenizer, model, rows = load(args)
    P, G, T, valid = args.prompts_per_step, args.group_size, args.max_new_tokens, args.valid[0]
    draw = partial(sample, args, tokenizer, model, rows)
    r, policy = draw(), policy_of(model, args.dtype, args.temperature)
    places, answers = ([row[name] for row in rows for _ in range(G)] for name in ("place", "answer"))
    works = {
        "prefill": partial(draw, tokens=1),
        "rollout": draw,
        "grading": lambda: fixed_rewards(places, completion_texts(tokenizer, r), answers, valid),
        "update": partial(update, policy, share_of(r, valid), args.tokens_per_micro_batch),
    }
    taken = measure(works, model.device, args.repeats)
    taken["decode"] = taken["rollout"] | {"seconds": taken["rollout"]["seconds"] - taken["prefill"]["seconds"]}
    tokens = {"prefill": sum(len(row["prompt_ids"]) for row in rows), "decode": P * G * (T - 1)}
    tokens |= {"grading": P * G * T, "update": valid * G * T}
    parts = [["part", "CPU s", "tokens/s", "peak MB"]]
    for name, number in tokens.items():
        seconds, peak = taken[name].values()
        parts.append([name, seconds, number / seconds, peak / 1e6])

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others are not counted on a CPU
        works["update"]()
    flops = flops_limit(model.device, torch.bfloat16 if args.dtype == "bfloat16" else torch.float32, 2048)
    share = counter.get_total_flops() / flops / taken["update"]["seconds"]
    note = f"update: {share:.0%} of {flops / 1e9:.0f} GFLOP/s, the limit in {args.dtype} matrix products on one thread"

    pairs = [["lever", "part", "on, s", "off, s", "off / on", "on, MB", "off, MB", "off / on"]]
    for name, (part, on, off) in levers(args, model, policy, draw).items():
        taken = measure({"on": on, "off": off}, model.device, args.repeats)
        (on, before), (off, after) = (pair.values() for pair in taken.values())
        pairs.append([name, part, on, off, off / on, before / 1e6, after / 1e6, after / max(before, 1)])
    dist.destroy_process_group()
    return f"{markdown(parts)}\n\n{note}\n\n{markdown(pairs)}"


def levers(args, model, policy: Policy, draw: Callable) -> dict[str, tuple[str, Callable, Callable]]:
    """Name of a lever -> the part of a step that it is for, and that part with and without it."""
    r, valid, ending = draw(), args.valid[0], partial(uneven, model, args.max_new_tokens)
    sliced, step = policy_module.sliced_logprobs, partial(update, policy, budget=args.tokens_per_micro_batch)
    even, ragged = (partial(step, share_of(x, valid)) for x in (r, ending()(draw)()))

    def rolled(**changes):
        with patch.multiple(rollout_module, **changes):
            return draw()

    stay = partial(rolled, _compact=lambda rows: torch.arange(len(rows)))
    concatenated = partial(rolled, _rows_of_cache=lambda cache, rows, **_: cache.reorder_cache(rows) or cache)
    twice = {"owner": policy_module, "sliced_logprobs": lambda *x, **options: sliced(*x, **options | {"grad": None})}
    return {
        "one prefill per prompt": ("rollout", draw, partial(draw, per_sample=True)),
        "keys and values in a buffer": ("rollout", draw, concatenated),
        "rows leave when they end": ("rollout, uneven", ending()(draw), ending()(stay)),
        "valid groups only": ("update", even, partial(step, share_of(r, valid, everyone=True))),
        "the prompt once per group": ("update", even, partial(even, shared=False)),
        "logits in slices": ("update", even, partial(even, sliced=False)),
        "logits computed once": ("update", even, partial(even, **twice)),
        "completions cut by length": ("update, uneven", ragged, partial(ragged, forward_tokens=10**9)),
        "bfloat16": ("update", partial(even, dtype="bfloat16"), partial(even, dtype="float32")),
    }


def sample(args, tokenizer, model, rows, *, per_sample=False, tokens=None) -> Rollout:
    """A rollout as in train.collect; per_sample: each prompt G times, as if they were different."""
    G = args.group_size
    prompts = [row["prompt_ids"] for row in rows for _ in range(G if per_sample else 1)]
    shape = (1 if per_sample else G, tokens or args.max_new_tokens)
    with autocast(args.dtype, model.device):
        return rollout(model, tokenizer, prompts, *shape, cache_tokens=args.cache_tokens)


@contextmanager
def uneven(model, tokens: int) -> Iterator[None]:
    """Samples end at random, after tokens / 2 on average, each by its own random stream."""
    draw, end = rollout_module.draw, 0  # an id that the model knows: it is fed to rows that stay after their end

    def ending(logits, uniforms, **options):
        drawn, logprobs = draw(logits, uniforms, **options)
        return drawn.where(uniforms * 2**20 % 1 >= 2 / tokens, end), logprobs

    with patch.object(rollout_module, "draw", ending), patch.object(model.generation_config, "eos_token_id", end):
        yield


def fixed_rewards(places: list[int], texts: list[str], answers: list[str], valid: int) -> list[float]:
    """Grades as a run would, then fixes the number of valid groups: the first are half right, the others all wrong."""
    for text, answer in zip(texts, answers, strict=True):
        accuracy(text, answer)
    return [float(place < valid and i % 2 == 0) for i, place in enumerate(places)]


def our_steps(args, valid: int) -> tuple[str, float, float]:
    """Steps as in train.py."""
    empty = held(ranks.this_device())
    tokenizer, model, rows = load(args)
    optimizer = make_optimizer(model, kind="adamw", lr=args.lr, weight_decay=args.weight_decay)
    trained, state = Trained(model, make_policy(model, "ddp", args), tokenizer, optimizer, Method()), State()

    def scorer(prompts, texts, ids, columns):
        del prompts, ids
        rewards = fixed_rewards(columns["place"], texts, columns["answer"], valid)
        return {"total": rewards, "by_name": {"benchmark": rewards}, "errors": 0, "counts": {}}

    steps = []
    for number in range(args.repeats + 1):
        settle(model.device)
        began = clock(model.device)
        batch = train.collect(trained, rows, scorer, args, replace(state, step=number))
        share = share_out(batch.rollout, train.weigh(batch, args))
        gradient = train.gradient_of(trained, share, args, halves=False)
        train.take_step(optimizer, args.lr, learn=gradient.is_finite())
        steps.append((clock(model.device) - began, held(model.device, peak=True)))
        assert batch.rollout.completion_mask.all(), "a completion ended before its T tokens"
        assert batch.num_valid == valid and gradient.is_finite()
    return summary(f"GPG, {valid} of {args.prompts_per_step} groups valid", steps, empty, model)


def trl_steps(args) -> tuple[str, float, float]:
    """The same steps by GRPOTrainer, whose time does not depend on the valid share: it forwards every sample."""
    import datasets
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    empty = held(ranks.this_device())
    tokenizer, model, rows = load(args)
    dist.destroy_process_group()
    ids = [row["prompt_ids"] for row in rows]
    texts = [tokenizer.decode(each) for each in ids]
    if tokenizer(text=texts)["input_ids"] != ids:
        flags.fail("--peer trl: a prompt's text does not encode to its ids; use other --data")
    columns = {"prompt": texts, "place": list(range(len(rows))), "answer": [row["answer"] for row in rows]}
    steps = []

    def benchmark(completions, completion_ids, place, answer, **_):
        assert all(len(ids) == args.max_new_tokens for ids in completion_ids), "a completion ended before its T tokens"
        return fixed_rewards(place, completions, answer, args.valid[0])

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            settle(model.device)
            self.began = clock(model.device)

        def on_step_end(self, *_, **__):
            steps.append((clock(model.device) - self.began, held(model.device, peak=True)))

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
    GRPOTrainer(model=model, **options).train()
    return summary(f"TRL, {batch} samples a forward", steps, empty, model)


def summary(name: str, steps: list[tuple[float, float]], empty: float, model) -> tuple[str, float, float]:
    """Of (seconds, peak memory in bytes) of steps, without the first: median seconds, and the highest peak above the
    empty process, weights, gradients and AdamW's state: 16 bytes per parameter."""
    seconds, peaks = zip(*steps[1:], strict=True)
    return name, statistics.median(seconds), max(peaks) - empty - 16 * model.num_parameters()


if __name__ == "__main__":
    main()
