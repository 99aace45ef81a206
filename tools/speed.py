"""What tools.bench measures, as {table: {row: {column: value}}}. Letters: P prompts, G samples of each, T tokens."""

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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import transformers

import rollout as rollout_module
import train
from engine import policy as policy_module
from engine.balance import Share, share_out
from engine.fixed_shapes import FixedShapes
from engine.methods import Method
from engine.optimizer import Gradient, take_step
from engine.output_layer import SLICE_LOGITS
from engine.parallel import gathered, unwrapped
from gpg import token_weights
from rewards import accuracy
from rollout import Rollout, completion_texts, decode_packed, eval_mode, pad_left, pick
from run import flags, memory, ranks
from run.checkpoint import State
from run.journal import say
from run.models import Trained, load_model, load_trained
from run.problems import load_problems
from tasks import addition

Tables = dict[str, dict[str, dict[str, object]]]


def machine(**more: float) -> Tables:
    found = {"device": ranks.device_name(ranks.this_device())}
    found |= {"torch": torch.__version__, "transformers": transformers.__version__} | more
    return {"machine": {name: {"": value} for name, value in found.items()}}


def make_random(folder: str, data: str, count: int, size: tuple[int, int, int, int]) -> None:
    """A Qwen2.5 of this size with random weights and the built-in tokenizer; and `count` prompts of 62 to 64 tokens."""
    rows = ({"problem": f"{i:0>{62 - i % 3}}", "answer": "1"} for i in range(count))
    Path(data).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if Path(folder, "tokenizer_config.json").exists():  # written last, so all is there
        return
    tokenizer, names = addition.make_tokenizer(), ("hidden_size", "intermediate_size", "num_hidden_layers")
    sizes = dict(zip((*names, "num_attention_heads"), size, strict=True)) | {"vocab_size": 151_936}
    sizes |= {"num_key_value_heads": 4 if size[0] > 2000 else 2, "tie_word_embeddings": size[0] < 2000}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    with ranks.this_device():
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, **ids)).bfloat16()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(args, device: torch.device | None = None, plain: bool = False) -> tuple[Trained, list[dict]]:
    """What a run trains, or its model and tokenizer alone; and P problems with "prompt_ids" and "place", 0 to P - 1."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        ranks.init_distributed(args.rank_timeout)
    device = device or ranks.this_device()
    with redirect_stdout(sys.stderr):  # stdout is for tables
        kind = memory.choose_parallel(args, None, device)
        folder, tokenizer, processor, problems, _ = load_problems(args, None)
        if plain:
            trained = Trained(load_model(args, folder, device), None, tokenizer, None, Method())
        else:
            trained = load_trained(args, folder, tokenizer, processor, problems, kind, None, device)
    if len(problems) < args.prompts_per_step:
        few = f"{len(problems)} problems are too few for --prompts-per-step {args.prompts_per_step}"
        flags.fail(f"--data {args.data}: {few}")
    never_end(trained.model, tokenizer)
    return trained, [row | {"place": place} for place, row in enumerate(problems[: args.prompts_per_step])]


def never_end(model, tokenizer) -> None:
    """Makes EOS a token without a logit, so that every completion has T tokens, ours and TRL's."""
    missing = max(0, model.config.get_text_config().vocab_size - len(tokenizer))
    tokenizer.add_tokens([f"<|unused {i}|>" for i in range(missing)])
    pad = tokenizer.pad_token_id
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    tokenizer.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def measure(works: dict[str, Callable], device: torch.device, repeats: int = 5) -> dict:
    """{name: function} -> {name: median seconds, and increase in peak MB}, run in turn after a warm-up."""
    taken = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            settle(device)
            before, began = held(device), clock(device)
            try:
                work()
                taken[name].append((clock(device) - began, (held(device, peak=True) - before) / 1e6))
            except torch.OutOfMemoryError:
                taken[name].append((math.nan, math.nan))
    pairs = {name: map(statistics.median, zip(*each[1:], strict=True)) for name, each in taken.items()}
    return {name: dict(zip(("s", "MB"), pair, strict=True)) for name, pair in pairs.items()}


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
        torch.accelerator.empty_cache()
        return torch.accelerator.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def sample(args, trained: Trained, rows: list[dict], *, decode: Callable | None = None, **changes) -> Rollout:
    """A rollout as in a run, by another loop over tokens or with other flags."""
    trained = trained._replace(decode=decode or trained.decode)
    return train.sample(trained, rows, ([], ()), (0,), argparse.Namespace(**vars(args) | changes))[0]


def share_of(r: Rollout, valid: int, everyone: bool = False) -> Share:
    """Samples of the first `valid` groups, half of them right, as one rank's share; everyone: of all groups."""
    device, (P, G) = r.truncated.device, r.truncated.shape
    right = torch.arange(G, device=device) % 2 == 0  # (G,)
    rewards = (right & (torch.arange(P, device=device) < valid)[:, None]).double()  # (P, G)
    samples = torch.arange((P if everyone else valid) * G, device=device)
    weights = token_weights(rewards, r.completion_mask)  # (P, G, T)
    return Share(r, weights, {}, samples, len(samples), int(r.completion_mask.sum()), 1.0, 1.0)


def update(policy, share: Share, budget: int) -> Gradient:
    """The gradient, as train.py makes it."""
    policy.zero_grad(set_to_none=False)
    return train.backward(policy, share, budget, grad_clip=0.0)


def fixed_rewards(places: list[int], texts: list[str], answers: list[str], valid: int) -> list[float]:
    """Grades as a run would, then fixes the number of valid groups: the first are half right, the others all wrong."""
    for text, answer in zip(texts, answers, strict=True):
        accuracy(text, answer)
    return [float(place < valid and i % 2 == 0) for i, place in enumerate(places)]


def parts_and_levers(args) -> Iterator[Tables]:
    """The parts of a step, beside what the machine's limits allow, and then each lever on and off."""
    trained, rows = load(args)
    device, G, T, valid = trained.model.device, args.group_size, args.max_new_tokens, args.valid[0]
    prompts, samples = [len(row["prompt_ids"]) for row in rows], len(rows) * G
    draw = partial(sample, args, trained, rows)
    r = draw()
    places, answers = ([row[name] for row in rows for _ in range(G)] for name in ("place", "answer"))
    works = {
        "prefill": partial(draw, max_new_tokens=1),
        "decode": draw,
        "grading": lambda: fixed_rewards(places, completion_texts(trained.tokenizer, r), answers, valid),
        "update": partial(update, trained.policy, share_of(r, valid), args.tokens_per_micro_batch),
    }
    parts = measure(works, device, args.repeats)
    parts["decode"]["s"] -= parts["prefill"]["s"]
    parts |= measure({"optimizer": partial(take_step, trained.optimizer, 0.0, learn=True)}, device, args.repeats)
    tokens = {"prefill": sum(prompts), "decode": samples * (T - 1), "grading": samples * T, "update": valid * G * T}
    for name, number in tokens.items():
        parts[name]["tokens/s"] = number / parts[name]["s"]
    flops, speed = limits_of(device, args.dtype)
    for name, seconds in least_seconds(args, trained, prompts, flops, speed).items():
        parts[name]["of the limit, %"] = 100 * seconds / parts[name]["s"]
    limits = {f"{args.dtype} products, GFLOP/s": flops / 1e9, "copies, GB/s": speed / 1e9}
    found = machine(**limits) | {"part": parts, "lever": {}}
    yield found
    for name, part, on, off in levers(args, trained, rows):
        taken = measure({"on": on, "off": off}, device, args.repeats)
        row = {f"{side}, {unit}": taken[side][unit] for unit in ("s", "MB") for side in ("on", "off")}
        ratios = {f"{unit}, off / on": taken["off"][unit] / max(taken["on"][unit], 1e-6) for unit in ("s", "MB")}
        found["lever"][name] = {"part": part} | row | ratios
        yield found
    dist.destroy_process_group()


def limits_of(device: torch.device, dtype: str) -> tuple[float, float]:
    """What a large matrix product and a large copy reach, on a CPU in one thread: FLOP/s, bytes/s read and written."""
    n = 8192 if ranks.is_gpu(device) else 2048
    a = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    x, y = (torch.ones(2**27, device=device) for _ in range(2))  # 512 MiB
    taken = measure({"product": lambda: a @ a, "copy": lambda: y.copy_(x)}, device)
    return 2 * n**3 / taken["product"]["s"], 2 * x.nbytes / taken["copy"]["s"]


def least_seconds(args, trained: Trained, prompts: list[int], flops: float, speed: float) -> dict[str, float]:
    """What the machine's limits allow: 2 operations for a parameter and token forward, and 4 backward. To decode a
    token is to read the cache, and to read all weights or to multiply by them, whichever takes longer. AdamW reads four
    numbers of a parameter, and writes three."""
    N, shape = trained.model.num_parameters(), memory.shape_of(trained.model.config)
    G, T, valid, size = args.group_size, args.max_new_tokens, args.valid[0], memory.COMPUTED[args.dtype]
    cache = 2 * shape.layers * shape.key * size * G * sum(length + T / 2 for length in prompts)  # bytes
    return {
        "prefill": 2 * N * sum(prompts) / flops,
        "decode": (T - 1) * (cache / speed + max(size * N / speed, 2 * N * len(prompts) * G / flops)),
        "update": 6 * N * (sum(prompts[:valid]) + valid * G * T) / flops,
        "optimizer": 7 * 4 * N / speed,
    }


def levers(args, trained: Trained, rows: list[dict]) -> Iterator[tuple[str, str, Callable, Callable]]:
    """A lever's name, the part of a step that it is for, and that part with and without it. One at a time, as on a GPU
    each loop over tokens keeps its cache."""
    draw = partial(sample, args, trained, rows)
    r, device, valid, decode = draw(), trained.model.device, args.valid[0], trained.decode or decode_packed
    P, G, T = r.completion_ids.shape
    ends = torch.empty(P * G).geometric_(min(0.9, 2 / T), generator=torch.Generator().manual_seed(0))
    lengths = ends.clamp(max=T).to(device)

    def ending(decode: Callable) -> Callable:
        """A loop over tokens whose rows end at random, at each with probability 2 / T."""
        return partial(draw, decode=partial(decode, stopped=lambda _, rows, end, *__: lengths[rows % (P * G)] <= end))

    without = partial(patch.multiple, unwrapped(trained.policy))
    single = {"group_size": 1, "prompts_per_step": P * G}
    each = partial(sample, args, trained, [row for row in rows for _ in range(G)], **single)
    yield "one prefill per prompt", "rollout", draw, each
    third = G * (max(len(row["prompt_ids"]) for row in rows) + args.max_new_tokens) * math.ceil(P / 3)
    yield "all rows in one loop", "rollout", draw, partial(draw, cache_tokens=third)
    if ranks.is_gpu(device):
        yield "graphs", "rollout", draw, partial(draw, decode=FixedShapes())
        yield "fixed shapes", "rollout", draw, partial(draw, decode=decode_packed)
        uneven = "rollout, uneven", ending(decode)
        yield "rows leave when they end", *uneven, ending(FixedShapes(decode.record, say, look=10**9))
        if args.dtype == "bfloat16":
            cast = without(copies=[trained.model])
            yield "a bfloat16 copy", "rollout", draw, cast(partial(draw, decode=ranks.decoder(device, say)))
    else:
        concatenated = {"_rows_of_cache": lambda cache, rows, **_: cache.reorder_cache(rows) or cache}
        yield "keys and values in a buffer", "rollout", draw, patch.multiple(rollout_module, **concatenated)(draw)
        stay = patch.multiple(rollout_module, _compact=lambda rows: torch.arange(len(rows)))
        yield "rows leave when they end", "rollout, uneven", ending(decode), stay(ending(decode))
    yield "a loop of our own", "rollout", draw, partial(by_generate, args, trained, rows)

    step = partial(update, trained.policy, budget=args.tokens_per_micro_batch)
    mask = r.completion_mask * (torch.arange(T, device=device) < lengths.view(P, G, 1))
    even, ragged = (partial(step, share_of(x, valid)) for x in (r, replace(r, completion_mask=mask)))
    sliced = policy_module.sliced_logprobs
    twice = {"sliced_logprobs": lambda *x, **options: sliced(*x, **options | {"grad": None})}
    yield "valid groups only", "update", even, partial(step, share_of(r, valid, everyone=True))
    yield "the prompt once per group", "update", even, without(shared=False)(even)
    yield "logits in slices", "update", even, without(sliced=False)(even)
    yield "logits computed once", "update", even, patch.multiple(policy_module, **twice)(even)
    yield "completions cut by length", "update, uneven", ragged, without(forward_tokens=10**9)(ragged)
    yield "bfloat16", "update", without(dtype="bfloat16")(even), without(dtype="float32")(even)
    if ranks.is_gpu(device):
        yield "larger slices than a CPU's", "update", even, without(slice_logits=SLICE_LOGITS)(even)
        few = without(forward_tokens=policy_module.FORWARD_TOKENS)(ragged)
        yield "fewer forwards than a CPU's", "update, uneven", ragged, few


def by_generate(args, trained: Trained, rows: list[dict]) -> torch.Tensor:
    """As many tokens by `generate` alone -> (P * G, L + T)."""
    pad = trained.tokenizer.pad_token_id
    prompts = [row["prompt_ids"] for row in rows for _ in range(args.group_size)]
    ids, mask = pad_left(prompts, pad, trained.model.device)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": args.max_new_tokens, "pad_token_id": pad}
    with gathered(trained.policy) as model, eval_mode(model):
        return model.generate(ids, attention_mask=mask, **options)


def check(args) -> Iterator[Tables]:
    """One step on the CPU and on this machine's device; there also without graphs. Both update on the CPU's samples, as
    rounding may change a draw."""
    runs, grads, gaps = [], [], []
    for place in (torch.device("cpu"), ranks.this_device()):
        trained, rows = load(args, place)
        runs.append(sample(args, trained, rows))
        share = share_of(pick(runs[0], torch.arange(len(rows)), place), len(rows))
        gaps.append(update(trained.policy, share, args.tokens_per_micro_batch).gap)
        found = (p.grad for p in trained.model.parameters() if p.grad is not None)
        grads.append(torch.cat([grad.flatten().double().cpu() for grad in found]))
    apart = {"gradients apart": float((grads[0] - grads[1]).norm() / grads[0].norm()), "logprob_gap": max(gaps)}
    graphs = compared(runs[1], sample(args, trained, rows, decode=FixedShapes()))
    dist.destroy_process_group()
    yield machine() | {"compared": {"CPU and device": compared(*runs) | apart, "with and without graphs": graphs}}


def compared(a: Rollout, b: Rollout) -> dict[str, float]:
    """Of two rollouts of the same T: samples, those that are equal, and how far apart their log-probabilities are."""
    same = (a.completion_ids.cpu() == b.completion_ids.cpu()).all(dim=2)  # (P, G)
    gaps = (a.logprobs.cpu() - b.logprobs.cpu()).abs()[same]
    return {"samples": same.numel(), "equal": int(same.sum()), "log π apart": float(gaps.max()) if len(gaps) else None}


def peers(args) -> Iterator[Tables]:
    """A step by TRL, by TRL with vLLM if that and a GPU are there, and by train.py, each in a process of its own, as
    memory used before must not count."""
    rows = {}
    if args.model == flags.BUILT_IN:
        addition.ensure(args.seed)  # once, before anything is measured
    vllm = ranks.is_gpu(ranks.this_device()) and importlib.util.find_spec("vllm")
    theirs = [(partial(trl_steps, vllm=each), args.valid[0]) for each in (False, True)[: 2 if vllm else 1]]
    for work, valid in (*theirs, *((our_steps, valid) for valid in args.valid)):
        name, steps, least = in_a_process(work, args, valid)
        seconds, peaks = zip(*steps[1:], strict=True)  # the first warms up
        row = {"s": statistics.median(seconds), "MB beyond": (max(peaks) - least) / 1e6}
        trl = next(iter(rows.values()), row)
        rows[name] = row | {f"{column}, / TRL's": row[column] / trl[column] for column in row}
        yield machine() | {"a step": rows}


def in_a_process(function: Callable, *arguments):
    """The function's result, from a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def our_steps(args, valid: int) -> tuple[str, list[tuple[float, float]], float]:
    """Steps as in train.py -> a name, seconds and peak bytes of each, and the bytes of the empty process, weights,
    gradients and AdamW's state."""
    empty = held(ranks.this_device())
    trained, rows = load(args)
    device, steps = trained.model.device, []

    def scorer(prompts, texts, ids, columns):
        del prompts, ids
        rewards = fixed_rewards(columns["place"], texts, columns["answer"], valid)
        return {"total": rewards, "by_name": {"benchmark": rewards}, "errors": 0, "counts": {}}

    for number in range(args.repeats + 1):
        settle(device)
        began = clock(device)
        batch = train.collect(trained, rows, scorer, args, State(step=number))
        share = share_out(batch.rollout, train.weigh(batch, args))
        gradient = train.gradient_of(trained, share, args, halves=False)
        take_step(trained.optimizer, args.lr, learn=gradient.is_finite())
        steps.append((clock(device) - began, held(device, peak=True)))
        assert batch.rollout.completion_mask.all(), "a completion ended before its T tokens"
        assert batch.num_valid == valid and gradient.is_finite()
    return f"GPG, {valid} of {args.prompts_per_step} groups valid", steps, empty + 16 * trained.model.num_parameters()


def trl_steps(args, valid: int, vllm: bool = False) -> tuple[str, list[tuple[float, float]], float]:
    """The same steps by GRPOTrainer, whose time does not depend on the valid share: it forwards every sample."""
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    empty = held(ranks.this_device())
    trained, rows = load(args, plain=True)
    model, tokenizer, device = trained.model, trained.tokenizer, trained.model.device
    dist.destroy_process_group()
    ids = [row["prompt_ids"] for row in rows]
    texts = [tokenizer.decode(each) for each in ids]
    if tokenizer(text=texts)["input_ids"] != ids:
        flags.fail("--peer trl: a prompt's text does not encode to its ids; use other --data")
    columns = {"prompt": texts, "place": list(range(len(rows))), "answer": [row["answer"] for row in rows]}
    steps = []

    def benchmark(completions, completion_ids, place, answer, **_):
        assert all(len(ids) == args.max_new_tokens for ids in completion_ids), "a completion ended before its T tokens"
        return fixed_rewards(place, completions, answer, valid)

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            settle(device)
            self.began = clock(device)

        def on_step_end(self, *_, **__):
            steps.append((clock(device) - self.began, held(device, peak=True)))

    G = args.group_size
    samples = args.prompts_per_step * G
    batch = math.gcd(8, samples)  # TRL's default is 8, and it must divide the samples
    same = {"num_generations": G, "max_completion_length": args.max_new_tokens, "learning_rate": args.lr}
    same |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": samples // batch}
    same |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "beta": 0.0, "loss_type": "dapo", "scale_rewards": "none"}
    same |= {"bf16": args.dtype == "bfloat16", "max_grad_norm": args.grad_clip, "gradient_checkpointing": False}
    same |= {"use_vllm": True, "vllm_mode": "colocate"} if vllm else {}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    quiet |= {"output_dir": f"{tempfile.gettempdir()}/gpg-trl", "max_steps": args.repeats + 1}
    quiet |= {"use_cpu": not ranks.is_gpu(device), "shuffle_dataset": False}
    columns = {name: values * (args.repeats + 1) for name, values in columns.items()}
    options = {"args": GRPOConfig(**same, **quiet), "train_dataset": datasets.Dataset.from_dict(columns)}
    options |= {"processing_class": tokenizer, "callbacks": [Clock()], "reward_funcs": benchmark}
    GRPOTrainer(model=model, **options).train()
    return f"TRL{' and vLLM' * vllm}, {batch} samples a forward", steps, empty + 16 * model.num_parameters()
