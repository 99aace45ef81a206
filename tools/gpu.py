"""What only a GPU can show: that it computes what the CPU does, and how fast it is. docs/gpu.md has what else to try.

    python -m tools.gpu                      all parts; results/gpu/NAME.json
    python -m tools.gpu --parts step         only the first
    python -m tools.gpu --tiny               the same with sizes for a CPU, to see that it works

step     the same float32 step of the built-in model on CPU and GPU: samples, log-probabilities, gradient
speed    random Qwen2 models: decoding, update and optimizer, each also with one lever off, beside `generate` and
         what a large product and a large copy reach. No weights are downloaded

Seconds and bytes are tools.bench's. A part that fails is recorded with its error, and the others go on.
"""

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from engine.faster import fuse_norms, half_copy, refresh
from engine.fixed_shapes import FixedShapes
from engine.optimizer import make_optimizer
from engine.policy import autocast
from rollout import Rollout, decode_packed, pick, rollout
from run import ranks
from tasks import addition
from tools.bench import flops_limit, measure, policy_of, share_of, update

EOS = 1  # hardly ever drawn by a random model
QWEN = {"vocab_size": 151_936, "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True}
QWEN |= {"eos_token_id": EOS, "pad_token_id": 0, "bos_token_id": None}
NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES = {"1.5B": (1536, 8960, 28, 12), "0.5B": (896, 4864, 24, 14), "tiny": (64, 128, 2, 4)}  # NAMES, of Qwen2.5
# prompts, samples of each, and tokens of one or more rollouts; the first is also updated on
SHAPES = {"1.5B": (64, 8, (256, 1024)), "0.5B": (64, 8, (256,)), "tiny": (3, 2, (12,))}
FEW = 64  # tokens to compare ways of decoding by: one takes as long as the next
BUDGET = 16384  # tokens of a micro-batch


def main(argv: list[str] | None = None) -> None:
    parts = {"step": same_step, "speed": speed}
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="in this order (default: all)")
    parser.add_argument("--out", default="results/gpu", metavar="DIR", help="for NAME.json (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    args = parser.parse_args(argv)
    device = ranks.init_distributed(600)
    name = ranks.device_name(device)
    found = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    path = Path(args.out, f"{name.replace(' ', '-').lower()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        began = time.perf_counter()
        found[part] = guarded(parts[part], device, args.tiny)
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
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
    sampled, grads, gaps = [], [], []
    for place, decode in ((torch.device("cpu"), None), (device, ranks.decoder(device, print))):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(place).train()
        sampled.append(rollout(model, tokenizer, prompts, 8, 40, key=(0, 0, 0), decode=decode))
        share = share_of(pick(sampled[0], torch.arange(len(rows)), place), len(rows))
        gaps.append(update(policy_of(model, "float32"), share, 4096).gap)
        grads.append(torch.cat([p.grad.flatten().double().cpu() for p in model.parameters()]))
    ours, theirs = (r.completion_ids.cpu() for r in sampled)  # (P, G, T)
    width = min(ours.shape[2], theirs.shape[2])
    same = (ours[..., :width] == theirs[..., :width]).all(dim=2)  # (P, G)
    return {
        "samples": same.numel(),
        "same_samples": int(same.sum()),
        "gradient_difference": float((grads[0] - grads[1]).norm() / grads[0].norm()),
        "logprob_gap": gaps,  # on the CPU; of the CPU's sampling and the GPU's update
    }


def speed(device: torch.device, tiny: bool) -> dict:
    n = 256 if tiny else 8192
    found = {"flops": flops_limit(device, torch.bfloat16, n), "bytes": bytes_limit(device, 16 * n * n)}
    limits = found["flops"], found["bytes"]  # FLOP/s and bytes/s of one large product and one large copy
    for size in ["tiny"] if tiny else ["1.5B", "0.5B"]:
        found[size] = guarded(speed_of, size, device, limits)
        print(f"{size}: {json.dumps(found[size])}", flush=True)
        gc.collect()
        if ranks.is_gpu(device):
            torch.accelerator.empty_cache()
    return found


def bytes_limit(device: torch.device, num: int) -> float:
    """Bytes read and written per second by a large copy."""
    x, y = (torch.empty(num, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * num / measure({"copy": lambda: y.copy_(x)}, device, 5)["copy"]["seconds"]


def speed_of(size: str, device: torch.device, limits: tuple[float, float]) -> dict:
    torch.manual_seed(0)
    config = Qwen2Config(**dict(zip(NAMES, SIZES[size], strict=True)), **QWEN)
    with device:
        model = Qwen2ForCausalLM(config).float().train()
    if ranks.is_gpu(device):
        fuse_norms(model)
    half, decode, (P, G, lengths) = half_copy(model), ranks.decoder(device, print), SHAPES[size]
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, 400, (64 - p % 3,), generator=generator).tolist() for p in range(P)]
    draw = partial(draw_rollout, prompts=prompts, G=G, device=device)
    found = {"parameters": model.num_parameters()}
    for T in lengths:
        work = partial(draw, half, T=T, decode=decode)
        taken, r = measure({"rollout": work}, device)["rollout"], work()
        rate = int(r.completion_mask.sum()) / taken["seconds"]
        of_floor = floor(config, model.num_parameters(), P * G, T, limits) / taken["seconds"]
        found[f"{P * G} rows of {T}"] = taken | {"tokens_s": rate, "of_floor": of_floor}
        if T == lengths[0]:
            found["decoding, levers off"] = decoding_levers(draw, model, half, decode, r)
            found["update"] = updating(model, r, limits[0])
    return found | measure({"refresh of the bfloat16 copy": partial(refresh, half, model)}, device, 3)


def floor(config, parameters: int, rows: int, T: int, limits: tuple[float, float]) -> float:
    """Seconds that T tokens take at least: to read the cache, and to read all weights or to multiply by them, whichever
    takes longer. Both are bfloat16; prompts have 64 tokens."""
    key = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    cache = 2 * 2 * config.num_hidden_layers * key * rows * (64 + T / 2)
    flops, speed = limits
    return T * (cache / speed + max(2 * parameters / speed, 2 * parameters * rows / flops))


def draw_rollout(model, prompts: list[list[int]], G: int, T: int, decode: Callable, device: torch.device) -> Rollout:
    tokenizer = SimpleNamespace(eos_token_id=EOS, pad_token_id=0)
    with autocast("bfloat16", device):
        return rollout(model, tokenizer, prompts, G, T, key=(0,), cache_tokens=1 << 30, decode=decode)


def decoding_levers(draw: Callable, model, half, decode: Callable, r: Rollout) -> dict:
    """A few tokens as runs draw them, with one lever off, and by `generate`."""
    T, prompts, (_, G, _) = min(FEW, r.completion_ids.shape[2]), draw.keywords["prompts"], r.completion_ids.shape
    draw, plain = partial(draw, T=T), FixedShapes(say=print)
    ids, mask = (x.repeat_interleave(G, 0) for x in (r.prompt_ids, r.prompt_mask))
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": T, "min_new_tokens": T, "pad_token_id": 0}

    def generate():
        with autocast("bfloat16", ids.device):
            half.generate(ids, attention_mask=mask, **options)

    works = {
        "all on": lambda: draw(half, decode=decode),
        "graphs": lambda: draw(half, decode=plain),
        "fixed shapes": lambda: draw(half, decode=decode_packed),
        "bfloat16 copy": lambda: draw(model, decode=decode_packed),
        "one loop": lambda: [draw(half, decode=decode, prompts=prompts[i::3]) for i in range(3)],
        "generate": generate,
    }
    return measure(works, half.device)


def updating(model, r: Rollout, most: float) -> dict:
    """The gradient of all samples, and its share of the product's peak at 6 operations a parameter and token."""
    step = partial(update, policy_of(model, "bfloat16"), share_of(r, len(r.truncated)), BUDGET)
    works = {"all on": step, "slices of 2^25 logits": partial(step, slice_logits=2**25)}
    found = measure(works | {"forwards for 256 tokens": partial(step, forward_tokens=256)}, model.device)
    gradient, rate = step(), int(r.completion_mask.sum() + r.prompt_mask.sum()) / found["all on"]["seconds"]
    found |= {"tokens_s": rate, "of_peak": 6 * model.num_parameters() * rate / most}
    found |= {"grad_norm": gradient.norm, "logprob_gap": gradient.gap}
    for name, fused in {"AdamW, fused": True, "AdamW": False}.items():  # one after the other: each holds its moments
        optimizer = make_optimizer(model, kind="adamw", lr=1e-6, weight_decay=0.1, fused=fused)
        found |= measure({name: optimizer.step}, model.device)
    return found


if __name__ == "__main__":
    main()
