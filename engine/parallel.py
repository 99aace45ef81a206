"""How a model lies over the ranks: whole on each, or cut into shards. The numbers are the same.

    ddp    weights, gradients and AdamW's state on each rank, 16 bytes a parameter; gradients are summed once a step
    fsdp   all of them cut over the ranks; a layer's weights are gathered when it runs, and its gradients summed and cut
           after each backward; while it samples, a rank holds the weights whole

What a rank holds is the same either way to those who ask by `whole`: so a checkpoint does not tell how it was made.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.policy import Policy, trial


def spread(policy: Policy, kind: str, dtype: str) -> torch.nn.Module:
    """The policy over all ranks: kind is "ddp" or "fsdp". Gradients are summed, never averaged: see sum_gradients."""
    assert kind in ("ddp", "fsdp"), kind
    if kind == "ddp":
        spread_policy = DistributedDataParallel(policy, gradient_as_bucket_view=True)  # else gradients are there twice
        spread_policy.register_comm_hook(None, sum_gradients)
        return spread_policy
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    options = {"mp_policy": precision} if dtype == "bfloat16" else {}
    for module in policy.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, **options)
    fully_shard(policy, **options)
    for module in _shards(policy):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # by plain sums, which every backend has
    policy.uniform = True  # collectives run within a forward: all ranks must make as many
    with torch.no_grad():
        policy(*trial(policy.model))  # the root of the shards must run first, before a layer does for sampling
    policy.reshard()  # it stays whole after a forward; but what the optimizer gets must be its shard
    return policy


def sum_gradients(_, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """What DistributedDataParallel does with a bucket of gradients: sums it over ranks; its default is the mean.

    Eq. 8 is a sum whose weights hold every count already. A loss times the world size, to undo the mean, would be the
    same number but not the same digits: models that normalise in float32 round another way for 3 ranks than for 1.
    """
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def micro_batches_here(policy: torch.nn.Module, count: int, device: torch.device) -> int:
    """How many micro-batches this rank must make, if it has so many: one at least, under fsdp as many as any rank."""
    if isinstance(policy, FSDPModule):
        most = torch.tensor(count, device=device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        count = int(most)
    return max(1, count)


def accumulating(policy: torch.nn.Module, last: bool):
    """The context of a backward: under ddp ranks exchange gradients in the last one of a step, under fsdp in each."""
    return nullcontext() if last or isinstance(policy, FSDPModule) else policy.no_sync()


def autocast(args, device: torch.device):
    """bfloat16 matrix products over float32 master weights, in sampling and in training alike."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16")


@contextmanager
def whole_weights(policy: torch.nn.Module) -> Iterator[None]:
    """Within it, the model has all weights on this rank, and runs without a collective: to sample, without gradient.

    Frozen weights are not marked so meanwhile: autocast would cast each of them again for every token.
    """
    shards = _shards(policy)
    frozen = [p for p in policy.parameters() if not p.requires_grad and not shards]
    for parameter in frozen:
        parameter.requires_grad_(True)
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(module is not policy, recurse=False)


def _shards(policy: torch.nn.Module) -> list[FSDPModule]:
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]


def plain(policy: torch.nn.Module) -> Policy:
    """The policy itself, without what spreads it."""
    return policy.module if isinstance(policy, DistributedDataParallel) else policy


def whole(x, seen: dict | None = None):
    """What is in a state_dict, each shard of it made whole, on the CPU of every rank. A collective where there are any.

    What is one tensor under two names, as tied layers are, stays one.
    """
    seen = {} if seen is None else seen
    if isinstance(x, dict):
        return {name: whole(value, seen) for name, value in x.items()}
    if not isinstance(x, DTensor):
        return x
    if id(x) not in seen:
        seen[id(x)] = x.detach().full_tensor().cpu()
    return seen[id(x)]


def cut_state(saved: dict, optimizer: torch.optim.Optimizer) -> dict:
    """A whole state_dict of an optimizer, the same on all ranks, cut as the optimizer's parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        i: {name: _cut_like(x, parameters[i]) for name, x in of_parameter.items()}
        for i, of_parameter in saved["state"].items()
    }
    return saved | {"state": state}


def _cut_like(x: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """As it is, if the parameter is no shard, or if it is the count of steps."""
    if not isinstance(parameter, DTensor) or x.shape != parameter.shape:
        return x
    return distribute_tensor(x, parameter.device_mesh, parameter.placements, src_data_rank=None)
