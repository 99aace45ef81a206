"""Times a training step, its parts, and each optimization ("lever") on and off; compares with the machine and with TRL.

    python -m tools.bench                                           the built-in model with its default batch
    python -m tools.bench --model DIR --data FILE                   any other, 4 prompts x 8 x 128 tokens
    python -m tools.bench --peer trl --valid-share 0.5 0.25         a step against TRL's GRPOTrainer (pip install trl)

Seconds are the process's CPU seconds, medians after a warm-up; both sides of a ratio are measured in turn in one
process, so that a busy machine slows both. Memory is the increase in peak resident memory (Linux only).
Letters: P prompts, G samples of each, L prompt tokens, T completion tokens, V vocabulary, D hidden width.
"""

import argparse
import ctypes
import gc
import importlib.util
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from transformers import AutoTokenizer

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
from run.models import Trained, load_model, make_policy, pretrained
from run.problems import with_prompts
from run.ranks import init_distributed
from tasks import addition, data
from tools.plot import markdown

GIGA = 1e9
OUT = Path(tempfile.gettempdir(), "gpg-bench-is-not-written")  # train.py's flags need a folder; it is never made


def main(argv: list[str] | None = None) -> None:
    work = parse_args(argv)
    if work["model"] == flags.BUILT_IN:
        addition.ensure(0)  # once, before anything is measured
    result = {"work": work}
    if work["peer"]:
        result |= {"ours": [in_a_process(our_steps, work, share) for share in work["valid_share"]]}
        result |= {"trl": in_a_process(trl_steps, work)}
        print(peer_table(result))
    else:
        result |= in_a_process(parts_and_levers, work)
        print(parts_table(result), levers_table(result), sep="\n\n")
    if work["json"]:
        Path(work["json"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse_args(argv: list[str] | None) -> dict:
    """What to measure, as a dictionary for other processes and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__.partition("\n")[0])
    parser.error = flags.fail
    # fmt: off
    add = parser.add_argument
    add("--model", default=flags.BUILT_IN, metavar="DIR", help="folder or hub name (default: the built-in model)")
    add("--data", metavar="FILE", help="problems, as train.py's --data")
    add("--system-prompt", default="none", metavar="NAME", help="as train.py's")
    add("--prompts", type=int, metavar="P", help="prompts per step (default: 4; built-in model: 16)")
    add("--group-size", type=int, default=8, metavar="G", help="completions per prompt (default: 8)")
    add("--new-tokens", type=int, metavar="T", help="tokens per completion (default: 128; built-in model: 40)")
    add("--valid-share", type=float, nargs="+", default=[0.5], metavar="S", help="valid groups (default: 0.5)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="as train.py's")
    add("--tokens-per-micro-batch", type=int, metavar="N", help="as train.py's")
    add("--repeats", type=int, default=3, help="timed, after one for warm-up (default: 3)")
    add("--peer", choices=("trl",), help="compare a step with TRL's GRPOTrainer instead")
    add("--peer-batch", type=int, default=8, metavar="N", help="TRL's per_device_train_batch_size (default: 8, TRL's)")
    add("--json", metavar="FILE", help="also write all figures here")
    # fmt: on
    work = vars(parser.parse_args(argv))
    built_in = work["model"] == flags.BUILT_IN
    for name, usual, small in (("prompts", 4, "prompts_per_step"), ("new_tokens", 128, "max_new_tokens")):
        work[name] = work[name] if work[name] is not None else addition.DEFAULTS[small] if built_in else usual
    if work["peer"] and not importlib.util.find_spec("trl"):
        flags.fail("--peer trl: pip install trl")
    if work["peer"] and work["prompts"] * work["group_size"] % work["peer_batch"]:
        flags.fail(f"--peer-batch {work['peer_batch']}: must divide the {work['prompts'] * work['group_size']} samples")
    if work["repeats"] < 1:
        flags.fail("--repeats: must be 1 or more")
    if not all(0 < share <= 1 for share in work["valid_share"]):
        flags.fail(f"--valid-share {work['valid_share']}: must be above 0, and at most 1")
    if work["json"] and not Path(work["json"]).absolute().parent.is_dir():
        flags.fail(f"--json {work['json']}: no such folder")
    train_args(work)  # fails on a wrong flag, before anything slow
    return work


def train_args(work: dict) -> argparse.Namespace:
    """The flags of train.py for this work, with one round per step."""
    names = {"prompts": "prompts-per-step", "new_tokens": "max-new-tokens"}
    names |= {name: name.replace("_", "-") for name in ("group_size", "dtype", "tokens_per_micro_batch")}
    given = {flag: work[name] for name, flag in names.items()} | {"model": work["model"], "data": work["data"]}
    given |= {"system-prompt": work["system_prompt"], "beta-th": 0, "eval-every": 0, "out": OUT}
    words = [word for flag, value in given.items() if value is not None for word in (f"--{flag}", str(value))]
    return flags.parse_args(words)


def in_a_process(function, *arguments) -> dict:
    """The function's result, from a new process: memory used before does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def load(work: dict):
    """train.py's flags, tokenizer, model, and P problems with "prompt_ids" and "place", 0 to P - 1."""
    torch.set_num_threads(1)
    args = train_args(work)
    device = init_distributed(args.rank_timeout)
    built_in = work["model"] == flags.BUILT_IN
    folder = addition.ensure(0) if built_in else work["model"]
    tokenizer = pretrained(AutoTokenizer, folder)
    model = load_model(args, folder, device)
    found = addition.problems("train") if built_in else flags.user_input(data.load, work["data"], split="train")[0]
    P = work["prompts"]
    if len(found) < P:
        flags.fail(f"--data {work['data']}: {len(found)} problems are too few for --prompts {P}")
    rows = with_prompts(found[: 2 * P], tokenizer, args)[:P]
    for place, row in enumerate(rows):
        row["place"] = place
    never_end(model, tokenizer)
    return args, tokenizer, model, rows


def never_end(model, tokenizer) -> None:
    """Makes EOS a token without a logit, so that every completion has T tokens, ours and TRL's."""
    missing = max(0, model.config.get_text_config().vocab_size - len(tokenizer))
    tokenizer.add_tokens([f"<|unused {i}|>" for i in range(missing)])
    pad = tokenizer.pad_token_id
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    tokenizer.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def fixed_rewards(places: list[int], texts: list[str], answers: list[str], work: dict, share: float) -> list[float]:
    """Grades as a run would, then fixes the share of valid groups: the first are half right, the others all wrong."""
    for text, answer in zip(texts, answers, strict=True):
        accuracy(text, answer)
    valid = num_valid(work, share)
    return [float(place < valid and i % 2 == 0) for i, place in enumerate(places)]


def num_valid(work: dict, share: float) -> int:
    return max(1, round(share * work["prompts"]))


def our_steps(work: dict, share: float) -> dict:
    """Steps as in train.py."""
    result = steps_of_ours(work, share)  # model and DDP must be gone before the process group is
    dist.destroy_process_group()
    return result


def steps_of_ours(work: dict, valid_share: float) -> dict:
    empty = resident()
    args, tokenizer, model, rows = load(work)
    optimizer = make_optimizer(model, kind="adamw", lr=args.lr, weight_decay=args.weight_decay)
    trained, state = Trained(model, make_policy(model, "ddp", args), tokenizer, optimizer, Method()), State()

    def scorer(prompts, texts, ids, columns):
        del prompts, ids
        rewards = fixed_rewards(columns["place"], texts, columns["answer"], work, valid_share)
        return {"total": rewards, "by_name": {"benchmark": rewards}, "errors": 0, "counts": {}}

    steps = []
    for number in range(work["repeats"] + 1):
        settle()
        began = time.process_time()
        batch = train.collect(trained, rows, scorer, args, replace(state, step=number))
        rolled = time.process_time()
        share = share_out(batch.rollout, train.weigh(batch, args))
        gradient = train.gradient_of(trained, share, args, halves=False)
        train.take_step(optimizer, args.lr, learn=gradient.is_finite())
        ended = time.process_time()
        steps.append({"seconds": ended - began, "rollout": rolled - began, "update": ended - rolled, "peak": peak()})
        assert batch.rollout.completion_mask.all(), "a completion ended before its T tokens"
        assert batch.num_valid == num_valid(work, valid_share) and gradient.is_finite()
    return {"valid_share": valid_share, "logprob_gap": gradient.gap} | medians(steps[1:], empty, model)


def trl_steps(work: dict) -> dict:
    """The same steps by GRPOTrainer, whose time does not depend on the valid share: it forwards every sample."""
    import datasets
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    empty = resident()
    args, tokenizer, model, rows = load(work)
    dist.destroy_process_group()
    texts = [plain_text(tokenizer, row["prompt_ids"]) for row in rows]
    columns = {"prompt": texts, "place": list(range(len(rows))), "answer": [row["answer"] for row in rows]}
    rolled, steps = [], []

    def benchmark(completions, place, answer, **_):
        return fixed_rewards(place, completions, answer, work, work["valid_share"][0])

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            settle()
            self.began = time.process_time()

        def on_step_end(self, *_, **__):
            seconds = time.process_time() - self.began
            steps.append({"seconds": seconds, "rollout": rolled[-1], "update": seconds - rolled[-1], "peak": peak()})

    class Trainer(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *arguments, **options):
            expected = [row["prompt_ids"] for row in rows for _ in range(work["group_size"])]
            assert [list(ids) for ids in prompt_ids] == expected, "TRL was given other prompts"
            began = time.process_time()
            result = super()._generate_single_turn(prompt_ids, *arguments, **options)
            rolled.append(time.process_time() - began)
            assert all(len(ids) == work["new_tokens"] for ids in result[0]), "a completion ended before its T tokens"
            return result

    batch, (P, G) = work["peer_batch"], (work["prompts"], work["group_size"])
    same = {"num_generations": G, "max_completion_length": work["new_tokens"], "learning_rate": args.lr}
    same |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": P * G // batch}
    same |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "beta": 0.0, "loss_type": "dapo", "scale_rewards": "none"}
    same |= {"bf16": work["dtype"] == "bfloat16", "max_grad_norm": args.grad_clip, "gradient_checkpointing": False}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    quiet |= {"output_dir": str(OUT), "max_steps": work["repeats"] + 1, "use_cpu": True, "shuffle_dataset": False}
    columns = {name: values * (work["repeats"] + 1) for name, values in columns.items()}
    options = {"args": GRPOConfig(**same, **quiet), "train_dataset": datasets.Dataset.from_dict(columns)}
    options |= {"processing_class": tokenizer, "callbacks": [Clock()], "reward_funcs": benchmark}
    Trainer(model=model, **options).train()
    return {"batch": batch} | medians(steps[1:], empty, model)


def plain_text(tokenizer, ids: list[int]) -> str:
    """A text that the tokenizer, as TRL calls it, turns into these ids."""
    text = tokenizer.decode(ids)
    for candidate in (text, text.removeprefix(tokenizer.bos_token or "")):
        if tokenizer(text=candidate)["input_ids"] == ids:
            return candidate
    raise ValueError("--peer trl: a prompt's text does not encode to its ids; use other --data")


def medians(steps: list[dict], empty: int | None, model) -> dict:
    """Median seconds; peak memory in bytes, also above the empty process and 16 bytes per parameter."""
    result = {name: statistics.median(step[name] for step in steps) for name in ("seconds", "rollout", "update")}
    if empty is None:
        return result | {"peak": None, "above": None}
    highest = max(step["peak"] for step in steps)
    return result | {"peak": highest, "above": highest - empty - 16 * sum(p.numel() for p in model.parameters())}


def resident(field: str = "VmRSS") -> int | None:
    """Bytes of this process in memory, now (VmRSS) or at its peak since settle (VmHWM); None without /proc."""
    return memory.resident(field) if Path("/proc/self/status").exists() else None


def peak() -> int | None:
    return resident("VmHWM")


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
            seconds = time.process_time() - began
            taken[name].append((seconds, None if before is None else peak() - before))
    result = {}
    for name, pairs in taken.items():
        seconds, peaks = zip(*pairs[1:], strict=True)
        result[name] = {"seconds": statistics.median(seconds)}
        result[name]["peak"] = None if None in peaks else statistics.median(peaks)
    return result


def machine(dtype: torch.dtype) -> dict:
    """The best of several large matrix products, in FLOP/s, and copies, in bytes/s read and written; one thread."""
    n, room = 2048, 2**26
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    x, y = torch.ones(room), torch.zeros(room)

    def best(function):
        seconds = []
        for _ in range(6):
            began = time.process_time()
            function()
            seconds.append(time.process_time() - began)
        return min(seconds[1:])

    return {"flops": 2 * n**3 / best(lambda: a @ b), "bandwidth": 2 * x.nbytes / best(lambda: y.copy_(x))}


def dimensions(model) -> dict[str, int]:
    """Sizes for `counts`: parameters of all matrices but the embedding, layers, widths of attention."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    inner = [module for module in model.base_model.modules() if not isinstance(module, torch.nn.Embedding)]
    return {
        "matrices": sum(p.numel() for module in inner for p in module.parameters(recurse=False) if p.dim() == 2),
        "output": model.get_output_embeddings().weight.numel(),
        "layers": config.num_hidden_layers,
        "queries": heads * width,
        "keys": (getattr(config, "num_key_value_heads", None) or heads) * width,
    }


def forward_flops(size: dict[str, int], new: int, past: int = 0) -> float:
    """FLOPs of `new` tokens after `past`, without the output layer: 2 per parameter, and in attention 4 per channel
    (score and sum of values) and pair of tokens. Sliding windows are ignored."""
    pairs = new * past + new * (new + 1) / 2
    return 2 * size["matrices"] * new + 4 * size["layers"] * size["queries"] * pairs


def counts(size: dict[str, int], lengths: list[int], valid: int, G: int, T: int, width: int) -> dict[str, dict]:
    """FLOPs and bytes that the method needs, without padding; lengths of the prompts, the first `valid` in the update.

    A backward is twice a forward. Bytes are those of the weights, once per forward, and the cache, `width` per number.
    """
    weights = (size["matrices"] + size["output"]) * width
    token = 2 * size["layers"] * size["keys"] * width  # keys and values
    prefill = sum(forward_flops(size, n) + 2 * size["output"] for n in lengths)
    decode = sum(G * (forward_flops(size, T - 1, n) + 2 * size["output"] * (T - 1)) for n in lengths)
    shared = [forward_flops(size, n) + G * (forward_flops(size, T - 1, n) + 2 * size["output"] * T) for n in lengths]
    past = sum(G * (n + t) for n in lengths for t in range(1, T))
    return {
        "prefill": {"flops": prefill, "bytes": weights + token * sum(lengths)},
        "decode": {"flops": decode, "bytes": (T - 1) * weights + token * past},
        "update": {"flops": 3 * sum(shared[:valid]), "bytes": 3 * weights},
    }


def update(policy: Policy, r: Rollout, weights: torch.Tensor, args, *, everyone=False, known=True) -> None:
    """Forward and backward as in train.backward. everyone: invalid groups too. known: the gradient is passed ahead."""
    weights = weights.flatten(0, 1)  # (P * G, T)
    chosen = torch.arange(len(weights)) if everyone else weights.any(dim=1).nonzero().squeeze(1)
    for piece in micro_batches(r, chosen, args.tokens_per_micro_batch, shared=policy.shared):
        samples = sample_rows(r, piece)
        mask = samples[3].bool()  # (N, T)
        w = weights[piece, : mask.shape[1]][mask]  # (M,)
        (-(w * policy(*samples, grad=-w if known else None)).sum()).backward()


def plain_update(model, r: Rollout, weights: torch.Tensor, args, *, whole: bool = True) -> None:
    """Every sample with its own prompt, padded to the longest, and torch's log_softmax over all logits.

    whole: logits of prompt tokens too.
    """
    G, T = weights.shape[1:]
    ids = torch.cat([r.prompt_ids.repeat_interleave(G, 0), r.completion_ids.flatten(0, 1)], dim=1)  # (P * G, L + T)
    mask = torch.cat([r.prompt_mask.repeat_interleave(G, 0), r.completion_mask.flatten(0, 1)], dim=1)
    positions, weights = (mask.cumsum(dim=1) - 1).clamp(min=0), weights.flatten(0, 1)
    for piece in torch.arange(len(ids)).split(max(1, args.tokens_per_micro_batch // ids.shape[1])):
        inputs = {"input_ids": ids[piece], "attention_mask": mask[piece], "position_ids": positions[piece]}
        with autocast(args.dtype, ids.device):
            logits = model(**inputs, use_cache=False, logits_to_keep=0 if whole else T + 1).logits  # (N, L + T, V)
        logprobs = logits.float().log_softmax(dim=-1)[:, -T - 1 : -1].gather(2, ids[piece, -T:, None]).squeeze(2)
        (-(weights[piece] * logprobs).sum()).backward()


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


def uneven(model, tokens: int) -> ExitStack:
    """While it is open, samples end at random, after tokens / 2 on average, each by its own random stream."""
    draw, config = rollout_module.draw, model.generation_config
    end = 0  # an id that the model knows: it is fed to rows that stay after their end

    def ending(logits, uniforms, **options):
        drawn, logprobs = draw(logits, uniforms, **options)
        return drawn.where(uniforms * 2**20 % 1 >= 2 / tokens, end), logprobs

    stack = ExitStack()
    stack.enter_context(patch.object(rollout_module, "draw", ending))
    stack.enter_context(patch.object(config, "eos_token_id", end))
    return stack


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
    "bfloat16, rollout": ("rollout, bfloat16", "rollout, float32"),
    "bfloat16, update": ("update, bfloat16", "update, float32"),
}
PLAIN = {"plain, completions": "whole logits of completions", "plain": "whole logits of all tokens"}
DECODES = (("rollout", "prefill"), ("bare", "bare prefill"))
DTYPES = ("float32", "bfloat16")


def parts_and_levers(work: dict) -> dict:
    """Seconds and peaks of the parts of a step, of each lever on and off, and the machine's limits."""
    args, tokenizer, model, rows = load(work)
    policy, share = Policy(model, args.temperature, args.dtype), work["valid_share"][0]
    G, T = work["group_size"], work["new_tokens"]
    dtype = torch.bfloat16 if work["dtype"] == "bfloat16" else torch.float32
    limits = machine(dtype)
    taken = compare(rollout_works(args, tokenizer, model, rows, work, share), work["repeats"])
    even = sample(args, tokenizer, model, rows, work)
    ragged = sample(args, tokenizer, model, rows, work, uneven(model, T))
    assert even.completion_mask.all() and not ragged.completion_mask.all()
    taken |= compare(update_works(args, policy, even, ragged, work, share), work["repeats"])
    dist.destroy_process_group()

    decode, bare = (taken[name]["seconds"] - taken[first]["seconds"] for name, first in DECODES)
    taken["decode"] = taken["rollout"] | {"seconds": decode}
    lengths, valid = [len(row["prompt_ids"]) for row in rows], num_valid(work, share)
    done = counts(dimensions(model), lengths, valid, G, T, dtype.itemsize)
    tokens = {"prefill": sum(lengths), "decode": len(rows) * G * (T - 1), "update": valid * G * T}
    tokens["grading"] = len(rows) * G * T
    parts = {name: taken[name] | {"tokens": tokens[name]} | done.get(name, {}) for name in tokens}
    for part in [parts[name] for name in done]:
        part["limit"] = max(part["flops"] / limits["flops"], part["bytes"] / limits["bandwidth"])
        part["share"] = part["limit"] / part["seconds"]
    return {
        "machine": limits,
        "parts": parts,
        "levers": {name: ratio(taken[on], taken[off]) | {"part": on} for name, (on, off) in LEVERS.items()},
        "decode_over_bare_loop": decode / bare,
        "update_over_plain": {name: 1 / ratio(taken["update"], taken[name])["time"] for name in PLAIN},
        "peak_of_twice_the_samples": ratio(taken["once"], taken["twice"])["peak"],
        "taken": taken,
    }


def ratio(on: dict, off: dict) -> dict:
    """Off over on, for time and memory."""
    peaks = None if on["peak"] is None else off["peak"] / max(on["peak"], 1)
    return {"on": on, "off": off, "time": off["seconds"] / on["seconds"], "peak": peaks}


def sample(args, tokenizer, model, rows, work, lengths=None, *, per_sample=False, tokens=None) -> Rollout:
    """A rollout as in train.collect; per_sample: each prompt G times, as if they were different."""
    G = work["group_size"]
    prompts = [row["prompt_ids"] for row in rows for _ in range(G if per_sample else 1)]
    shape = (1 if per_sample else G, tokens or work["new_tokens"])
    with lengths or nullcontext(), autocast(args.dtype, model.device):
        return rollout(model, tokenizer, prompts, *shape, cache_tokens=args.cache_tokens)


def changed(args: argparse.Namespace, **values) -> argparse.Namespace:
    return argparse.Namespace(**vars(args) | values)


def rollout_works(args, tokenizer, model, rows, work, share) -> dict:
    """Name -> what to time: the rollout as it is, with each lever off, and the bare loop."""
    draw, T = partial(sample, tokenizer=tokenizer, model=model, rows=rows, work=work), work["new_tokens"]
    places, answers = ([row[name] for row in rows for _ in range(work["group_size"])] for name in ("place", "answer"))
    even = draw(args)

    def without(name, replacement, lengths=nullcontext):
        with patch.object(rollout_module, name, replacement):
            draw(args, lengths=lengths())

    return {
        "rollout": partial(draw, args),
        "prefill": partial(draw, args, tokens=1),
        "grading": lambda: fixed_rewards(places, completion_texts(tokenizer, even), answers, work, share),
        "bare": partial(bare_decode, model, even, T, args),
        "bare prefill": partial(bare_decode, model, even, 1, args),
        "prefill per sample": partial(draw, args, per_sample=True),
        "cache concatenated": partial(without, "_rows_of_cache", concatenated),
        "rollout, uneven": lambda: draw(args, lengths=uneven(model, T)),
        "rows stay": partial(without, "_compact", lambda rows: torch.arange(len(rows)), partial(uneven, model, T)),
    } | {f"rollout, {dtype}": partial(draw, changed(args, dtype=dtype)) for dtype in DTYPES}


def update_works(args, policy, even, ragged, work, share) -> dict:
    """Name -> what to time: the update as it is, with each lever off, the plain way, and with twice the samples."""
    P, G = even.truncated.shape
    places = [place for place in range(P) for _ in range(G)]
    rewards = torch.tensor(fixed_rewards(places, [], [], work, share), dtype=torch.float64).view(P, G)
    w, w_ragged = (token_weights(rewards, r.completion_mask) for r in (even, ragged))
    group = even.prompt_ids.shape[1] + G * even.completion_ids.shape[2]  # tokens
    small = changed(args, tokens_per_micro_batch=min(group, args.tokens_per_micro_batch))

    def without(owner, name, value, r=even, weights=w):
        with patch.object(owner, name, value):
            update(policy, r, weights, args)

    return {
        "update": partial(update, policy, even, w, args),
        "prompt per sample": partial(without, policy, "shared", False),
        "all groups": partial(update, policy, even, w, args, everyone=True),
        "logits whole": partial(without, policy, "sliced", False),
        "logits twice": partial(update, policy, even, w, args, known=False),
        "update, uneven": partial(update, policy, ragged, w_ragged, args),
        "not cut": partial(without, policy_module, "FORWARD_TOKENS", 10**9, ragged, w_ragged),
        "plain, completions": partial(plain_update, policy.model, even, w, args, whole=False),
        "plain": partial(plain_update, policy.model, even, w, args),
        "once": partial(update, policy, even, w, small),
        "twice": partial(update, policy, join([even, even]), torch.cat([w, w]), small),
    } | {f"update, {dtype}": partial(without, policy, "dtype", dtype) for dtype in DTYPES}


def table(columns: list[str], rows: list[list]) -> str:
    """Markdown with three digits per number, None as a dash."""

    def shown(cell) -> str:
        if isinstance(cell, float):
            return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
        return "–" if cell is None else str(cell)

    return markdown([columns, *(list(map(shown, row)) for row in rows)])


def mega(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def parts_table(result: dict) -> str:
    """Seconds, tokens/s and peak of each part, and its share of the machine's limit."""
    limits, rows = result["machine"], []
    for name, part in result["parts"].items():
        row = [name, part["seconds"], part["tokens"] / part["seconds"], mega(part["peak"])]
        rows.append(row + [part[key] / GIGA if key in part else None for key in ("flops", "bytes")])
        rows[-1] += [part.get("limit"), f"{part['share']:.0%}" if "share" in part else None]
    columns = ["part", "CPU s", "tokens/s", "peak MB", "GFLOP", "GB", "limit s", "reached"]
    most = f"{limits['flops'] / GIGA:.0f} GFLOP/s in matrix products, {limits['bandwidth'] / GIGA:.1f} GB/s in copies"
    lines = [table(columns, rows), "", f"limit: {most}, one thread, {result['work']['dtype']}"]
    lines.append(f"decode / bare loop of model calls: {result['decode_over_bare_loop']:.2f}")
    for name, share in result["update_over_plain"].items():
        lines.append(f"update / plain update ({PLAIN[name]}): {share:.3f}")
    if result["peak_of_twice_the_samples"]:
        lines.append(f"peak with twice the samples / peak: {result['peak_of_twice_the_samples']:.3f}")
    return "\n".join(lines)


def levers_table(result: dict) -> str:
    """Seconds and memory with each lever on and off."""
    rows = []
    for name, lever in result["levers"].items():
        on, off = lever["on"], lever["off"]
        rows.append([name, lever["part"], on["seconds"], off["seconds"], lever["time"]])
        rows[-1] += [mega(on["peak"]), mega(off["peak"]), lever["peak"]]
    return table(["lever", "part", "on, s", "off, s", "off / on", "on, MB", "off, MB", "off / on"], rows)


def peer_table(result: dict) -> str:
    """CPU seconds per step and peak memory beyond weights, gradients and AdamW, ours and TRL's, and their ratios."""
    trl, rows = result["trl"], []
    for name, step in [(f"TRL, {trl['batch']} samples a forward", trl)] + [
        (f"GPG, {ours['valid_share']:g} of the groups valid", ours) for ours in result["ours"]
    ]:
        above = None if step["above"] is None else step["above"] / trl["above"]
        row = [name, step["seconds"], step["rollout"], step["update"], mega(step["above"])]
        rows.append(row + [step["seconds"] / trl["seconds"], above])
    return table(["a step", "CPU s", "rollout", "update", "MB beyond", "time / TRL", "memory / TRL"], rows)


if __name__ == "__main__":
    main()
