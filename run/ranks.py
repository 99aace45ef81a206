"""The process group and the device of this rank: the one place that names a device."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist


def init_distributed(seconds: float, backend: str | None = None) -> torch.device:
    """Joins torchrun's process group, or makes one of a single process -> this rank's device.

    seconds: how long a rank waits for the others. backend: by default the device's own, nccl or gloo.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    single = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(backend or ("nccl" if cuda else "gloo"), timeout=timedelta(seconds=seconds), **single)
    return device
