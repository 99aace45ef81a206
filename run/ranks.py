"""The process group and the device of this rank: the one place that names a device, and knows what suits it."""

import ctypes
import math
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from engine.fixed_shapes import FixedShapes
from engine.output_layer import SLICE_LOGITS
from engine.policy import FORWARD_TOKENS, Policy
from rollout import decode_packed

# tokens of padding times parameters whose products take as long as starting the kernels of one more forward: some
# 25 ms, at 13 microseconds a token of 1.5 billion parameters
FORWARD_WORK = 3e12
LOGIT_SHARE = 256  # bytes of a device's memory for each float32 logit of a slice: 1/64 of it


def init_distributed(seconds: float, backend: str | None = None) -> torch.device:
    """Joins torchrun's process group, or makes one of a single process -> this rank's device. seconds: how long a rank
    waits for the others. backend: by default nccl for what is on a GPU, gloo for the rest."""
    device, options = this_device(), {"timeout": timedelta(seconds=seconds)}
    keep_memory()
    if "RANK" not in os.environ:
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # of convolutions; of products it is off by default
        # its gradient is NaN behind a mask, for 64 tokens more than a multiple of 128 (pytorch issue 196678)
        torch.backends.cuda.enable_cudnn_sdp(False)
        if not backend:
            backend, options["device_id"] = "cpu:gloo,cuda:nccl", device
    dist.init_process_group(backend or "gloo", **options)
    return device


def keep_memory() -> None:
    """From here on glibc keeps large buffers, such as logits. Else it returns each to the system, and to take it anew,
    page by page, costs more than what is done in it. A threshold of the user's own is left alone."""
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with suppress(AttributeError, OSError, TypeError):  # not glibc
            libc = ctypes.CDLL(None)
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def this_device() -> torch.device:
    index = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")


def has_bfloat16() -> bool:
    """Whether this GPU multiplies in bfloat16, as those since 2020 do, and not by conversion."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def for_device(args):
    """The flags, with those that depend on it as they suit this machine's device."""
    if args.dtype is None:  # on a GPU float32 products, without TF32's shortened ones, take ten times as long
        args.dtype = "bfloat16" if is_gpu(this_device()) and has_bfloat16() else "float32"
    if args.cache_tokens is None:  # 0: on a GPU as many as its memory holds, see run/memory.py
        args.cache_tokens = 0 if is_gpu(this_device()) else 2**18
    return args


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU: free, and in all."""
    return torch.cuda.mem_get_info(device)


def is_gpu(device: torch.device) -> bool:
    """Whether kernels are started from afar: starting and waiting cost more than the work of small ones."""
    return device.type != "cpu"


def patience(device: torch.device, rank_timeout: float) -> float:
    """Seconds that a rank may be silent: a little less than NCCL's watchdog waits. Gloo's collectives fail at once."""
    return 0.9 * rank_timeout if is_gpu(device) else math.inf


def suit(policy: Policy) -> Policy:
    """The policy, with slices of logits and numbers of forwards that suit its device."""
    device = policy.model.device
    policy.slice_logits = slice_logits(device)
    if is_gpu(device):
        policy.forward_tokens = max(FORWARD_TOKENS, int(FORWARD_WORK / policy.model.num_parameters()))
    return policy


def slice_logits(device: torch.device) -> int:
    """Logits that the update makes at once. By the whole memory, not what is free: slices decide how sums round."""
    return max(SLICE_LOGITS, memory(device)[1] // LOGIT_SHARE) if is_gpu(device) else SLICE_LOGITS


def decoder(device: torch.device, say: Callable[[str], None]) -> Callable:
    """How `rollout` decodes on this device."""
    recorder = record if device.type == "cuda" else None
    return FixedShapes(recorder, say) if is_gpu(device) else decode_packed


def record(work: Callable[[], None], pool):
    """Does work of fixed shapes and places, and records it -> a CUDA graph, in the memory `pool` of an earlier one."""
    side = torch.cuda.Stream()  # what libraries do at first must not be recorded
    side.wait_stream(torch.cuda.current_stream())
    torch.backends.cuda.enable_cudnn_sdp(True)  # the fastest to read a cache; only its gradient is wrong
    try:
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            work()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)
    return graph
