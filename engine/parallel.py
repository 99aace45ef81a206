"""A model on several ranks: a full copy on each, or shards. The numbers are the same, and so are checkpoints.

ddp    weights, gradients and AdamW's state on each rank, 16 bytes per parameter; gradients are summed once a step
fsdp   all of them in shards; a layer's weights are gathered when it runs, its gradients are summed and cut after
       each backward; while it samples, a rank holds all weights
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.faster import half_copy, refresh
from engine.policy import Policy, autocast, trial


def spread(policy: Policy, kind: str) -> torch.nn.Module:
    """The policy on all ranks: kind is "ddp" or "fsdp". Gradients are summed, never averaged: see sum_gradients."""
    assert kind in ("ddp", "fsdp"), kind
    if kind == "ddp":
        spread_policy = DistributedDataParallel(policy, gradient_as_bucket_view=True)  # else gradients are held twice
        spread_policy.register_comm_hook(None, sum_gradients)
        spread_policy(*trial(policy.model)).sum().backward()  # it then reorders its sums, once: before step 1
        spread_policy.zero_grad()
        return spread_policy
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    options = {"mp_policy": precision} if policy.dtype == "bfloat16" else {}
    for module in policy.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, **options)
    fully_shard(policy, **options)
    shards = _shards(policy)  # the root, then its layers in order
    for i, module in enumerate(shards):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # plain sums, which every backend has
        # by itself a backward gathers ahead what ran before in any forward, and in sampling ranks differ: a hang
        module.set_modules_to_backward_prefetch([shards[max(1, i - 1)] if i else shards[-1]])
    # collectives run within a forward: all ranks must make equally many, so none is cut by length
    policy.uniform, policy.forward_tokens = True, 1 << 62
    with torch.no_grad():
        policy(*trial(policy.model))  # the root of the shards must run before any layer does, for sampling
    policy.reshard()  # the root stays gathered after a forward; the optimizer must get its shard
    return policy


def sum_gradients(_, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DistributedDataParallel's hook for a bucket of gradients: their sum over ranks; its default is the mean.

    A loss times the world size, to undo the mean, would be the same number but not the same digits: models that
    normalise in float32 round differently for 3 ranks than for 1.
    """
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def common_count(policy: torch.nn.Module, count: int, device: torch.device) -> int:
    """How many micro-batches a rank that has `count` must make: at least one; under fsdp as many as any other rank."""
    if isinstance(policy, FSDPModule):
        most = torch.tensor(count, device=device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        count = int(most)
    return max(1, count)


def accumulating(policy: torch.nn.Module, last: bool) -> AbstractContextManager:
    """The context of a backward: under ddp ranks exchange gradients in the last one of a step, under fsdp in each."""
    unwrapped(policy).exchanges = last
    return nullcontext() if last or isinstance(policy, FSDPModule) else policy.no_sync()


@contextmanager
def gathered(policy: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model to sample from: it has all weights on this rank, runs without a collective, and in the policy's dtype.

    In bfloat16 it is a copy that stays at its addresses, see faster.py; shards are gathered in bfloat16 anyway.
    """
    shards, plain = _shards(policy), unwrapped(policy)
    if plain.dtype == "bfloat16" and not shards:
        plain.copies = plain.copies or [half_copy(plain.model)]
        refresh(plain.copies[0], plain.model)
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        with autocast(plain.dtype, next(policy.parameters()).device):
            yield (plain.copies or [plain.model])[0]
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(module is not policy, recurse=False)


def _shards(policy: torch.nn.Module) -> list[FSDPModule]:
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]


def unwrapped(policy: torch.nn.Module) -> Policy:
    """The policy itself, without the wrapper that spreads it."""
    return policy.module if isinstance(policy, DistributedDataParallel) else policy


def full_tensors(x, reader: int | None = None, seen: dict | None = None):
    """A state_dict with every shard gathered, on the CPU. A collective if there are any.

    reader: the rank that needs them; others hold none (None: all do). A tied tensor, under two names, stays one.
    """
    seen = {} if seen is None else seen
    if isinstance(x, dict):
        return {name: full_tensors(value, reader, seen) for name, value in x.items()}
    if not isinstance(x, DTensor):
        return x
    if id(x) not in seen:
        full = x.detach().full_tensor()
        seen[id(x)] = full.cpu() if reader in (None, dist.get_rank()) else None
    return seen[id(x)]


def cut_state(saved: dict, optimizer: torch.optim.Optimizer) -> dict:
    """An optimizer's full state_dict, the same on all ranks, cut into shards as the optimizer's parameters are. Options
    such as weight decay are those of the optimizer, as a flag may have changed."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if not isinstance(like, DTensor) or x.shape != like.shape:  # no shard; the count of steps
            return x
        return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)

    moments, groups, own = saved["state"].items(), saved["param_groups"], optimizer.state_dict()["param_groups"]
    if len(groups) == len(own):  # else torch says so
        groups = [new | {"params": old["params"]} for new, old in zip(own, groups, strict=True)]
    state = {i: {name: cut(x, parameters[i]) for name, x in of.items()} for i, of in moments}
    return {"state": state, "param_groups": groups}
