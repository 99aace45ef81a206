"""How much memory a run takes on each rank, by arithmetic on the model's configuration, before anything slow.

--plan prints it and stops. The parts are counted at their largest: prompts and completions of full length, every
micro-batch full. Three moments can be the peak: the rollout, the update, the optimizer's step. tests/run/test_memory.py
compares it with measurements.
"""

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from engine.fixed_shapes import WIDTH, fit, multiple
from engine.lora import linear_layers
from engine.output_layer import SLICE_LOGITS
from run.flags import fail
from run.journal import say
from run.models import config_of, model_class
from run.ranks import is_gpu, memory, slice_logits

DRAW_BYTES = 24  # per logit in the rollout: as made, repeated, scaled, exponential, and its CDF in float64
HOST_GROWTH = 64 << 20  # bytes by which a process grows besides its tensors: modules, buffers, malloc's reserve
DEVICE_BASE = 1 << 30  # bytes that libraries take on a GPU and that its allocator can't use; not measured
GIB = 1 << 30
COMPUTED = {"bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a number in a matrix product
# control groups, v2 and v1: folder, files, and a line of memory.stat
CGROUP_ROOT = "/sys/fs/cgroup"
CGROUPS = ("", "max", "current", "inactive_file"), ("memory", "limit_in_bytes", "usage_in_bytes", "total_inactive_file")
SAMPLED = "max_new_tokens", "max_prompt_tokens", "prompts_per_step"  # flags
STORED = COMPUTED | {"bfloat16": 4}  # bytes of a weight, and of anything not under autocast


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide its memory."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    query: int  # query heads * width of one
    key: int  # key-value heads * width of one
    vocabulary: int
    linear: int = 0  # inputs and outputs of all linear layers but the last: parameters of an adapter of rank 1
    tower: tuple[int, int, int, int] = (0, 0, 0, 0)  # of pictures: layers, hidden, intermediate, patches of a token


@dataclass(frozen=True)
class Load:
    """The sizes of a run that decide its memory."""

    tokens: int  # padded tokens of a micro-batch of the update
    completion_share: float  # of these tokens, the share in completions: only they have logits
    prefix_share: float  # prompt tokens that completions attend to, each its own copy, per such token
    width: int  # prompt and completion, in tokens
    rows: int  # decoded at once
    samples: int  # of a step on this rank, in all its rounds
    trained: int  # samples of all ranks, which every rank gathers
    dtype: str = "float32"
    checkpointing: bool = False
    moments: int = 2  # of a gradient in the optimizer: AdamW's two, SGD's none
    compared: int = 0  # numbers per parameter for a reference (weights) and a critic (also gradient and moments)
    halves: bool = False  # a copy of the gradient of half of the groups, for --noise-every
    lora_rank: int = 0  # of the adapters trained in place of the weights; 0: none
    shards: int = 1  # over which parameters, gradients and optimizer are cut; 1: DistributedDataParallel
    base: int = 0  # bytes of the process itself: interpreter, libraries, a device's context
    slice: int = SLICE_LOGITS  # logits at once in the update
    gpu: bool = False  # the cache stays between rollouts (engine/fixed_shapes.py), and AdamW needs no temporaries


def choose_parallel(args, resumed: Path | None, device: torch.device) -> str:
    """ "ddp" or "fsdp". --plan prints the plan; without it, a run that takes more than there is ends here."""
    if args.parallel != "ddp" and not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        fail(f"--parallel {args.parallel}: needs a newer torch than {torch.__version__}, to sum gradients of shards")
    kind, shape, load, limit = planned(args, resumed, device)
    if args.plan:
        say(describe(shape, load, limit))
        return kind
    moment, size = peak(shape, load)
    if size > limit:
        way = remedy(args, shape, load, limit)
        way = f"{way} would fit" if way else "no flag would make it fit; take a smaller model, or larger devices"
        wanted = f"the {moment} takes up to {size / GIB:.1f} GiB per rank, and there are {limit / GIB:.1f}"
        fail(f"memory: {wanted}; {way} (see --plan)")
    return kind


def planned(args, resumed: Path | None, device: torch.device) -> tuple[str, Shape, Load, int]:
    """ "ddp" or "fsdp", the model's sizes, a rank's load, and the bytes that every rank can use."""
    shape, (limit, base) = shape_of(config_of(args, resumed), args.trust_remote_code), room(device)
    least = torch.tensor(limit, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)  # all ranks must choose alike
    limit, ranks = int(least), dist.get_world_size()
    options = {"base": base, "gpu": is_gpu(device), "slice": slice_logits(device)}
    loads = {"ddp": load_of(args, ranks, **options), "fsdp": load_of(args, ranks, shards=ranks, **options)}
    kind, (moment, size) = args.parallel, peak(shape, loads["ddp"])
    if kind == "auto":
        kind = "ddp" if size <= limit else "fsdp"
        takes = f"a full copy takes {size / GIB:.1f} GiB of each rank's {limit / GIB:.1f}"
        say(f"--parallel auto: {kind}, as {takes} in the {moment}")
    load = loads[kind]
    if not args.cache_tokens:  # a GPU decodes many rows in little more time than few
        while peak(shape, load)[1] > limit and load.rows > args.group_size:
            load = replace(load, rows=fewer(load.rows, args.group_size))
        args.cache_tokens = load.rows * load.width
    return kind, shape, load, limit


def shape_of(config, trust: bool = False) -> Shape:
    """The shape of a Hugging Face configuration. A model without attention is counted as if it had one head."""
    with torch.device("meta"):  # which takes no memory
        try:
            model = model_class(config).from_config(config, trust_remote_code=trust)
        except Exception as error:  # a value may be wrong in any way
            fail(f"the model's config.json: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    tower, config = tower_of(config), config.get_text_config()
    config.allow_global_per_layer_attribute_access = True  # heads may differ by layer (Gemma 4)
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "num_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size  # or a list, one for each layer
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=max(wide) if isinstance(wide, list) else wide,
        query=heads * width,
        key=(getattr(config, "num_key_value_heads", None) or heads) * width,
        vocabulary=config.vocab_size,
        linear=sum(sum(module.weight.shape) for module in linear_layers(model).values()),
        tower=tower,
    )


def tower_of(config) -> tuple[int, int, int, int]:
    """Shape.tower of a configuration, whose names differ by family; all 0 for a model of text."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return Shape.tower

    def size(*names: str) -> int | None:
        return next((int(getattr(vision, name)) for name in names if getattr(vision, name, None)), None)

    hidden, merge = size("embed_dim", "hidden_size"), size("spatial_merge_size") or getattr(config, "scale_factor", 1)
    patches = merge**2
    if per_image := getattr(config, "mm_tokens_per_image", None):
        patches = (vision.image_size // vision.patch_size) ** 2 // per_image
    wide = size("intermediate_size") or int(hidden * getattr(vision, "mlp_ratio", 4))
    return size("depth", "num_hidden_layers"), hidden, wide, patches


def fewer(rows: int, group_size: int) -> int:
    """About half as many, in whole groups."""
    return max(group_size, rows // 2 // group_size * group_size)


def load_of(args, ranks: int, *, shards: int = 1, **options) -> Load:
    """The load of a run with these flags on one of `ranks` ranks."""
    L, T, G = args.max_prompt_tokens, args.max_new_tokens, args.group_size
    rounds, prompts = args.max_rounds if args.beta_th else 1, math.ceil(args.prompts_per_step / ranks)
    group = L + G * T  # tokens: the prompt goes through the model once
    cache_tokens = args.cache_tokens or prompts * G * (L + T)  # 0: all rows at once
    return Load(
        tokens=min(max(args.tokens_per_micro_batch, L + T), args.prompts_per_step * rounds * group),
        completion_share=G * T / group,
        prefix_share=G * L / group,
        width=L + T,
        rows=min(prompts, max(1, cache_tokens // (G * (L + T)))) * G,
        samples=prompts * rounds * G,
        trained=args.prompts_per_step * rounds * G,
        dtype=args.dtype,
        checkpointing=args.gradient_checkpointing,
        moments=(moments := 2 if args.optimizer == "adamw" else 0),
        compared=bool(args.kl_coef) + (args.baseline == "critic") * (2 + moments),
        halves=args.noise_every > 0,
        lora_rank=args.lora_rank,
        shards=shards,
        **options,
    )


def moments(shape: Shape, load: Load) -> dict[str, dict[str, int]]:
    """The bytes of each part at each moment that can be the peak: {moment: {part: bytes}}."""
    always = {"process": load.base, **lasting(shape, load)}
    aside = {"gradient of a half": always["gradients"]} if load.halves else {}
    # numbers in the largest trained matrix: the embedding, or an adapter of the feed-forward
    largest = load.lora_rank * shape.intermediate if load.lora_rank else shape.vocabulary * shape.hidden
    steps = {} if load.gpu else {"temporaries": 2 * largest * STORED[load.dtype]}
    return {
        "rollout": always | sampling(shape, load),
        "update": always | training(shape, load) | aside,
        "optimizer step": always | steps,
    }


def lasting(shape: Shape, load: Load) -> dict[str, int]:
    """What stays from the first step on, including gradients, in the buckets of DistributedDataParallel."""
    stored = STORED[load.dtype]
    one = shape.parameters * stored // load.shards
    trained = load.lora_rank * shape.linear * stored // load.shards if load.lora_rank else one
    parts = {"weights": one, "gradients": trained, "optimizer": load.moments * trained}
    parts |= {"reference and critic": load.compared * one} if load.compared else {}
    parts |= {"adapters": trained} if load.lora_rank else {}
    if load.dtype == "bfloat16" and load.shards == 1:
        parts["copy for sampling"] = 2 * shape.parameters
    if load.gpu:
        parts["cache"] = cache_bytes(shape, load)
    return parts


def cache_bytes(shape: Shape, load: Load) -> int:
    """Keys and values of all rows at full length."""
    rows, width = (fit(load.rows), multiple(load.width, WIDTH)) if load.gpu else (load.rows, load.width)
    return 2 * shape.layers * shape.key * rows * width * COMPUTED[load.dtype]


def sampling(shape: Shape, load: Load) -> dict[str, int]:
    """The key-value cache at full length, the logits, and the samples."""
    return {
        "cache": cache_bytes(shape, load),
        "logits": DRAW_BYTES * load.rows * shape.vocabulary,
        "samples": 40 * load.samples * load.width,  # ids, masks, log-probabilities and uniform numbers
        "all weights": COMPUTED[load.dtype] * shape.parameters if load.shards > 1 else 0,
    }


def training(shape: Shape, load: Load) -> dict[str, int]:
    """Activations of a micro-batch, its logits in slices, and the copies of weights for its products."""
    stored, computed = STORED[load.dtype], COMPUTED[load.dtype]
    # keys and values, repeated for every query head, of a prompt token for each completion that attends to it
    prefixes = int(load.tokens * load.prefix_share) * 2 * shape.query * computed
    layer = load.tokens * layer_bytes(shape, load) + prefixes
    inputs = load.tokens * shape.hidden * stored  # of a layer
    # of the layers that run again, about three are held at once (measured): one run, one in use, one being freed
    layers = shape.layers * inputs + 3 * layer if load.checkpointing else shape.layers * layer
    # the gradients of a layer's three widest tensors during its backward
    passing = 3 * load.tokens * (shape.intermediate + shape.hidden) * computed
    depth, width, wide, patches = shape.tower
    # every token of a prompt may be one of a picture; of a layer its norms, attention and feed-forward, as layer_bytes
    shown = int(load.tokens * (1 - load.completion_share)) * patches
    pictures = shown * (6 * width * stored + (4 * width + 2 * wide) * computed)
    pictures = depth * shown * width * stored + 3 * pictures if load.checkpointing else depth * pictures
    logits = min(load.slice, int(load.tokens * load.completion_share) * shape.vocabulary)
    cast = load.dtype == "bfloat16"  # a slice in both dtypes, and its gradient
    # the gradient of the output layer, and its bfloat16 copy, which is made even if the layer is frozen
    head = shape.vocabulary * shape.hidden * (stored * (load.lora_rank == 0) + 2 * cast)
    copies = 2 * shape.parameters * cast
    if load.shards > 1:  # two layers at a time, and embedding and output layer
        matrices = 2 * (shape.parameters - 2 * shape.vocabulary * shape.hidden) // shape.layers
        copies = computed * (matrices + 2 * shape.vocabulary * shape.hidden)
    return {
        "activations": layers + passing,
        "pictures": pictures,
        "attention mask": 5 * load.tokens * load.width,  # rows * width^2, as bool and as float32
        "logits": logits * (max(4, computed) + 4 * cast) + head,
        "copies of weights": copies,
        "samples": 40 * (load.samples + load.trained) * load.width,
    }


def layer_bytes(shape: Shape, load: Load) -> int:
    """Bytes per token that a decoder layer holds for its backward: each norm its input and output, and off a GPU, where
    it is not fused, the normalised input; attention query, keys and values (repeated for every query head) and output;
    the gated feed-forward four intermediates. Under bfloat16 outputs of norms are held in both dtypes."""
    norms, products = (4 if load.gpu else 6) * shape.hidden, 4 * shape.query + 4 * shape.intermediate
    twice = 2 * shape.hidden if load.dtype == "bfloat16" else 0
    return norms * STORED[load.dtype] + (products + twice) * COMPUTED[load.dtype]


def peak(shape: Shape, load: Load) -> tuple[str, int]:
    """The moment that takes most memory, and its bytes."""
    totals = {moment: sum(parts.values()) for moment, parts in moments(shape, load).items()}
    return max(totals.items(), key=lambda item: item[1])


def remedy(args, shape: Shape, load: Load, limit: int) -> str | None:
    """The flags that make it fit; None if none do. First those that change no result, the cheapest first, and then
    less of what is sampled, each time a tenth less of what takes most."""
    options, found = {name: getattr(load, name) for name in ("shards", "base", "gpu", "slice")}, {}

    def plan(**less: int) -> Load:
        return load_of(type(args)(**vars(args) | found | less), dist.get_world_size(), **options)

    while peak(shape, load := plan())[1] > limit:
        moment, size = peak(shape, load)
        if moment == "rollout" and load.rows > args.group_size:
            found["cache_tokens"] = fewer(load.rows, args.group_size) * load.width
        elif moment == "update" and load.tokens > load.width:
            found["tokens_per_micro_batch"] = max(load.width, load.tokens // 2)
        elif moment == "update" and not load.checkpointing:
            found["gradient_checkpointing"] = True
        else:
            tenths = [{name: max(1, found.get(name, getattr(args, name)) * 9 // 10)} for name in SAMPLED]
            found |= min(tenths, key=lambda less: peak(shape, plan(**less))[1])
            if peak(shape, plan())[1] >= size:
                return None
    flags = [f"--{name.replace('_', '-')} {x}" for name, x in found.items()]
    return " ".join(flags).replace("checkpointing True", "checkpointing")


def room(device: torch.device) -> tuple[int, int]:
    """Bytes that this rank can use, its part of what is free, and how many of them process and libraries take."""
    if is_gpu(device):
        return memory(device)[0], DEVICE_BASE
    rooms = of_proc("meminfo", "MemAvailable")
    for group, *names in CGROUPS:
        limit, used, stat = (Path(CGROUP_ROOT, group, f"memory.{name}") for name in (*names[:2], "stat"))
        if limit.exists() and used.exists() and limit.read_text().strip().isdecimal():
            # what files take of it, the system gives back when it must
            cached = re.search(rf"^{names[2]} (\d+)$", stat.read_text() if stat.exists() else "", re.MULTILINE)
            rooms.append(int(limit.read_text()) - int(used.read_text()) + int(cached[1] if cached else 0))
    base, ranks = resident(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(rooms, default=1 << 62) // ranks + base, base + HOST_GROWTH


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory, now (VmRSS) or at its peak (VmHWM); 0 outside Linux."""
    return sum(of_proc("self/status", field))


def of_proc(file: str, field: str) -> list[int]:
    """The bytes that a field in a file of /proc names; none outside Linux."""
    lines = Path("/proc", file).read_text().splitlines() if Path("/proc", file).exists() else []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")]


def describe(shape: Shape, load: Load, limit: int) -> str:
    """The plan in lines of text."""
    lines = [f"{shape.parameters / 1e6:,.1f} million parameters; GiB per rank, at the largest that the flags allow:"]
    for moment, parts in moments(shape, load).items():
        named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
        lines.append(f"{moment:>15}  {sum(parts.values()) / GIB:8.2f} = {named}")
    moment, size = peak(shape, load)
    lines.append(f"{'peak':>15}  {size / GIB:8.2f}, in the {moment}; there is room for {limit / GIB:.2f}")
    return "\n".join(lines)
