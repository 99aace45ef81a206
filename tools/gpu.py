"""What only a GPU can show: that it computes what the CPU does, that runs survive on it, and how fast it is.

    python -m tools.gpu                      all parts, about eight minutes on one H100; results/gpu/NAME.json
    python -m tools.gpu --parts speed        one of step, runs, tests, speed
    python -m tools.gpu --tiny               the same with sizes for a CPU, to see that it works

step     the same float32 step of the built-in model on CPU and GPU: samples, log-probabilities, gradient
runs     train.py: the default job, --resume, --parallel fsdp, bfloat16, to the end of each
tests    the tests of what touches a device
speed    random Qwen2 models: decoding, update and optimizer, each also with one lever off, against `generate` and
         against the floor that bandwidth and matrix products set. No weights are downloaded

A part that fails is recorded with its error, and the others go on.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import train
from engine.balance import Share
from engine.faster import fuse_norms, half_copy, refresh
from engine.fixed_shapes import FixedShapes
from engine.optimizer import make_optimizer
from engine.policy import Policy, autocast
from rollout import Rollout, decode_packed, pick, rollout
from run import ranks
from run.ranks import init_distributed
from tasks import addition

ROOT = Path(__file__).parents[1]
GIB = 1 << 30
SIZES = {  # of Qwen2.5
    "0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14),
    "1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
}
VOCABULARY = 151_936
EOS = 1  # hardly ever drawn by a random model
TESTS = ["tests/run/test_record.py", "tests/run/test_checkpoint.py", "tests/test_train.py"]  # of whole runs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default="step,runs,speed,tests", help="in this order (default: %(default)s)")
    parser.add_argument("--out", default="results/gpu", metavar="DIR", help="for NAME.json (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=480, help="after which no part begins (default: 480)")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    args = parser.parse_args(argv)
    device, began = init_distributed(600), time.perf_counter()
    name = ranks.device_name(device)
    found = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    path = Path(args.out, f"{name.replace(' ', '-').lower()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"step": same_step, "runs": whole_runs, "tests": run_tests, "speed": speed}
    for part in args.parts.split(","):
        start = time.perf_counter()
        if start - began > args.seconds:
            found[part] = "no time was left"
            continue
        found[part] = guarded(parts[part], device, args.tiny)
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    dist.destroy_process_group()
    print(json.dumps(found, indent=1))


def guarded(part: Callable, *arguments):
    """The part's result, or its error as text."""
    try:
        return part(*arguments)
    except Exception:
        return {"error": traceback.format_exc()[-2000:]}


def same_step(device: torch.device, tiny: bool) -> dict:
    """One float32 step on both devices. The update has one batch, the CPU's, as rounding may change a draw."""
    folder = addition.ensure(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = addition.problems("train")[: 4 if tiny else 16]
    chats = [[{"role": "user", "content": row["problem"]}] for row in rows]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    rolled, grads, gaps = [], [], []
    for place, decode in ((torch.device("cpu"), None), (device, ranks.decoder(device, print))):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(place).train()
        rolled.append(rollout(model, tokenizer, prompts, 8, 40, key=(0, 0, 0), decode=decode))
        policy = policy_of(model, place, "float32")
        gradient = train.backward(policy, share_of(pick(rolled[0], torch.arange(len(rows)), place)), 4096, 0.0)
        grads.append(torch.cat([p.grad.flatten().double().cpu() for p in model.parameters()]))
        gaps.append(gradient.gap)
    ours, theirs = rolled
    width = min(r.completion_ids.shape[2] for r in rolled)
    same = (ours.completion_ids[..., :width] == theirs.completion_ids[..., :width].cpu()).all(dim=2)  # (P, G)
    return {
        "samples": same.numel(),
        "same_samples": int(same.sum()),
        "gradient_difference": float((grads[0] - grads[1]).norm() / grads[0].norm()),
        "logprob_gap": gaps,  # on the CPU; of the CPU's sampling and the GPU's update
    }


def share_of(r: Rollout) -> Share:
    """All samples, half of each group with weight +, half with -, as if they were one rank's."""
    device, (P, G) = r.truncated.device, r.truncated.shape
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64, device=device).repeat(G // 2)
    mask = r.completion_mask  # (P, G, T)
    weights = sign[None, :, None] * mask / mask.sum()
    return Share(r, weights, {}, torch.arange(P * G, device=device), P * G, int(mask.sum()), 1.0, 1.0)


def policy_of(model, device: torch.device, dtype: str) -> Policy:
    """As a run would make it, without the wrapper that spreads it."""
    policy = Policy(model, 1.0, dtype)
    policy.no_sync = nullcontext
    policy.slice_logits = ranks.slice_logits(device)
    policy.forward_tokens = ranks.forward_tokens(device, model.num_parameters())
    return policy


def whole_runs(_: torch.device, tiny: bool) -> dict:
    """Exit codes, seconds, and what the runs' last rows say."""
    short = ["--steps", "2", "--prompts-per-step", "4", "--eval-every", "0"] if tiny else []
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, *flags: str) -> dict:
            command = [sys.executable, "train.py", "--out", f"{folder}/{name}", *short, *flags]
            result = command_result(command)
            rows = Path(folder, name, "metrics.jsonl")
            last = json.loads(rows.read_text().splitlines()[-1]) if rows.exists() else {}
            keep = ("step", "reward", "accuracy", "valid_share", "grad_norm", "logprob_gap", "seconds")
            return result | {name: last.get(name) for name in keep}

        more = ["--steps", "3" if tiny else "55", "--resume"]
        brief = [] if tiny else ["--steps", "10", "--eval-every", "0"]
        return {
            "default": run("default"),
            "resumed": run("default", *more),
            "bfloat16": run("bfloat16", "--dtype", "bfloat16"),
            "fsdp": run("fsdp", "--parallel", "fsdp", *brief),
            "fsdp, bfloat16": run("fsdp16", "--parallel", "fsdp", "--dtype", "bfloat16", *brief),
            "critic": run("critic", "--algo", "ppo", *brief),
            "reference": run("reference", "--algo", "grpo", "--kl-coef", "0.04", *brief),
        }


def run_tests(_: torch.device, tiny: bool) -> dict:
    chosen = ["tests/test_gpg.py"] if tiny else [*TESTS, "-m", "not slow"]
    return command_result([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen], 150)


def command_result(command: list[str], seconds: float = 60) -> dict:
    """Exit code, seconds, and the end of what it said if it failed."""
    began, env = time.perf_counter(), os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds)
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code, said = 124, str(error.stdout)
    result = {"exit": code, "took": round(time.perf_counter() - began, 1)}
    return result | ({"said": said[-1500:]} if code else {})


def speed(device: torch.device, tiny: bool) -> dict:
    limits = ceilings(device, 256 if tiny else 8192)
    found = {"ceilings": limits}
    for name in ["tiny"] if tiny else ["1.5B", "0.5B"]:
        torch.manual_seed(0)
        ids = {"eos_token_id": EOS, "pad_token_id": 0, "bos_token_id": None, "tie_word_embeddings": True}
        V = 512 if tiny else VOCABULARY
        config = Qwen2Config(**SIZES[name], **ids, vocab_size=V, num_key_value_heads=2, max_position_embeddings=4096)
        with device:
            model = Qwen2ForCausalLM(config).float().train()
        if ranks.is_gpu(device):
            fuse_norms(model)
        found[name] = guarded(speed_of, model, device, limits, tiny, name)
        del model
        gc.collect()
        if ranks.is_gpu(device):
            torch.accelerator.empty_cache()
    return found


def ceilings(device: torch.device, size: int) -> dict[str, float]:
    """What this device reaches in one large product, and in one large copy."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    x, y = (torch.empty(size * size * 16, device=device, dtype=torch.uint8) for _ in range(2))
    flops = 2 * size**3 / timed(lambda: a @ a, device, 5)
    return {"flops": flops, "bytes": 2 * x.numel() / timed(lambda: y.copy_(x), device, 5)}


def timed(work: Callable, device: torch.device, repeats: int = 1) -> float:
    """Seconds, the median; the first time, when libraries get ready, is left out for more than one repeat."""
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[repeats > 1 :])


def wait(device: torch.device) -> None:
    if ranks.is_gpu(device):
        torch.accelerator.synchronize(device)


def peak(device: torch.device) -> float | None:
    """GiB since the last call."""
    if not ranks.is_gpu(device):
        return None
    most = torch.accelerator.max_memory_allocated(device) / GIB
    torch.accelerator.reset_peak_memory_stats(device)
    return round(most, 2)


def speed_of(model, device: torch.device, limits: dict, tiny: bool, name: str) -> dict:
    found, decode = {"parameters": model.num_parameters()}, ranks.decoder(device, print)
    half = half_copy(model)
    shapes = [(2, 2, 12)] if tiny else [(32, 8, 256), (64, 8, 256)] + [(64, 8, 1024)] * (name == "1.5B")
    for P, G, T in shapes:
        row = f"{P * G} rows of {T}"
        found[row], sampled = decoding(half, device, limits, (P, G, T), decode)
        if (P, G) == shapes[0][:2]:
            found[row]["levers off"] = decoding_levers(model, half, device, (P, G, T), decode)
        if T == shapes[0][2]:
            found[row]["update"] = update_speed(model, device, limits, sampled, levers=(P, G) == shapes[0][:2])
        print(f"{name}, {row}: {json.dumps(found[row])}", flush=True)
    found["refresh of the bfloat16 copy"] = timed(lambda: refresh(half, model), device, 3)
    return found


def prompts_of(P: int) -> list[list[int]]:
    """P random prompts of 62 to 64 tokens."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 400, (64 - p % 3,), generator=generator).tolist() for p in range(P)]


def decoding(half, device, limits: dict, shape: tuple[int, int, int], decode) -> tuple[dict, Rollout]:
    """Tokens a second of rollout with bfloat16 weights, the floor, and what `generate` needs for the same."""
    (P, G, T), prompts = shape, prompts_of(shape[0])
    run = partial(rolled, half, prompts, G, T, decode, device)
    first = timed(run, device)  # records graphs
    peak(device)
    sampled = run((1,))
    seconds, tokens = timed(run, device), int(sampled.completion_mask.sum())
    config, n = half.config, P * G
    weights = half.num_parameters()
    keys = (
        2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    )
    cache = keys * n * (64 + T / 2) / limits["bytes"]
    floor = T * (cache + max(2 * weights / limits["bytes"], 2 * weights * n / limits["flops"]))
    found = {"seconds": seconds, "first_seconds": first, "tokens_s": tokens / seconds, "ms_a_token": 1e3 * seconds / T}
    found |= {"floor_seconds": floor, "of_floor": floor / seconds, "peak_GiB": peak(device)}
    if T <= 256:
        ids, mask = sampled.prompt_ids.repeat_interleave(G, 0), sampled.prompt_mask.repeat_interleave(G, 0)
        few = min(T, 64)  # a token takes as long as the next: kernels are started one by one
        options = {"attention_mask": mask, "do_sample": True, "top_k": 0, "max_new_tokens": few, "min_new_tokens": few}
        rate = n * few / timed(lambda: generated(half, ids, options), device)
        found["generate"] = {"tokens": few, "tokens_s": rate, "slower": found["tokens_s"] / rate}
    return found, sampled


def generated(half, ids, options) -> None:
    with autocast("bfloat16", ids.device):
        half.generate(ids, pad_token_id=0, **options)


def rolled(model, prompts, G, T, decode, device, key=(0,)) -> Rollout:
    tokenizer = SimpleNamespace(eos_token_id=EOS, pad_token_id=0)
    with autocast("bfloat16", device):
        return rollout(model, tokenizer, prompts, G, T, key=key, cache_tokens=1 << 30, decode=decode)


def decoding_levers(model, half, device, shape, decode) -> dict:
    """Seconds with one lever off, over the same few tokens; and what the graphs draw against the same kernels."""
    (P, G, _), T = shape, min(shape[2], 64)
    run = partial(rolled, prompts=prompts_of(P), G=G, T=T, device=device)
    plain = FixedShapes(say=print)
    with_graphs, without = run(half, decode=decode), run(half, decode=plain)
    ways = {
        "all on": lambda: run(half, decode=decode),
        "graphs": lambda: run(half, decode=plain),
        "fixed shapes": lambda: run(half, decode=decode_packed),
        "bfloat16 copy": lambda: run(model, decode=decode_packed),
        "three loops": lambda: [run(half, prompts=prompts_of(P)[i::3], decode=decode) for i in range(3)],
    }
    found = {name: timed(way, device, 1) for name, way in ways.items()}
    same = (with_graphs.completion_ids == without.completion_ids).all(dim=2)
    return found | {"same_samples_with_graphs": f"{int(same.sum())} of {same.numel()}"}


def update_speed(model, device, limits: dict, r: Rollout, levers: bool) -> dict:
    """The gradient of all samples, and its share of the product's peak at 6 operations a parameter and token."""
    policy, share = policy_of(model, device, "bfloat16"), share_of(r)

    def update(budget: int = 16384):
        model.zero_grad(set_to_none=False)
        return train.backward(policy, share, budget, 1.0)

    update()
    peak(device)
    seconds, gradient = timed(update, device, 2), update()
    tokens = int(r.completion_mask.sum() + r.prompt_mask.sum())
    mfu = 6 * model.num_parameters() * tokens / seconds / limits["flops"]
    found = {"seconds": seconds, "tokens_s": tokens / seconds, "of_peak": mfu, "peak_GiB": peak(device)}
    found |= {"grad_norm": gradient.norm, "logprob_gap": gradient.gap}
    if levers:
        slices, forwards = policy.slice_logits, policy.forward_tokens
        policy.slice_logits = 2**25
        found["slices of 2^25 logits"] = timed(update, device)
        policy.slice_logits, policy.forward_tokens = slices, 256
        found["forwards for 256 tokens"] = timed(update, device)
        policy.forward_tokens = forwards
        found["micro-batches of 65,536"] = guarded(timed, partial(update, 65536), device)
        for fused in (True, False):
            optimizer = make_optimizer(model, kind="adamw", lr=1e-6, weight_decay=0.1, fused=fused)
            optimizer.step()
            peak(device)
            name = "AdamW, fused" if fused else "AdamW"
            found[name] = {"seconds": timed(optimizer.step, device), "peak_GiB": peak(device)}
            del optimizer
    return found


if __name__ == "__main__":
    main()
