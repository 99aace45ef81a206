"""A pretend device, "gpu": its tensors' values lie on the CPU, and it finds what would go wrong on a real one.

    mixing    an operation on its tensors and the CPU's raises, as on a GPU
    reads     are counted: where the host waits for values: item, tolist, nonzero, a mask as index, a copy to the CPU
    uploads   are counted: where values go the other way, as in torch.tensor(..., device=...)
    calls     of collectives are counted: on tensors of the device, on the CPU's, or on pickled objects
    pickled   tensors of the device are counted: another process would load them onto this one's device

all by their place, the innermost line of this project: "gpg.py:210". A process can't get rid of such a device, and
torch takes it for the accelerator then: so train.py runs on it in a process of its own, see `workers`.

What it can't show: kernels, graphs, streams, memory, whether NCCL has an operation; autocast's list is an excerpt. What
DistributedDataParallel's hook returns is a CPU tensor here: its copies to the gradients are uploads at "".
"""

import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import forked
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import rollout
import train
from run import ranks

ROOT = f"{Path(rollout.__file__).parent}/"
NAME = "gpu"
MEMORY = 80 << 30  # bytes
WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
INDEX = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
COPIES = {"copy_", "_to_copy"}  # the only operations that read on one device and write on the other
# autocast's lists, as far as a language model needs them
TO_BFLOAT16 = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d")
TO_BFLOAT16 += ("scaled_dot_product_attention",)
TO_FLOAT32 = ("exp", "log", "pow.Tensor_Scalar", "rsqrt", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList")
TO_FLOAT32 += ("cumsum", "layer_norm", "norm.Scalar", "logsumexp", "reciprocal", "expm1", "prod")


@dataclass
class Counts:
    reads: Counter = field(default_factory=Counter)
    uploads: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)  # of (name, "gpu", "cpu" or "objects", place)
    pickled: Counter = field(default_factory=Counter)


def missing() -> str | None:
    """What this torch lacks for it, in words; None: nothing."""
    wanted = {backend_registration: "_setup_privateuseone_for_python_backend", torch.library.Library: "fallback"}
    wanted |= {torch._C: "_acc", torch.Tensor: "_make_wrapper_subclass", torch.library: "fallthrough_kernel"}
    lacking = [name for place, name in wanted.items() if not hasattr(place, name)]
    return f"torch {torch.__version__} lacks {', '.join(lacking)}, which a device in Python needs" if lacking else None


def workers(count: int = 1) -> ProcessPoolExecutor:
    """Processes in which functions run."""
    return ProcessPoolExecutor(count, forked.context(), warnings.simplefilter, ("error",))


def run_train(words: list[str], environment: dict[str, str] | None = None) -> tuple[Counts, str]:
    """What `python train.py WORDS` does there -> what was counted, what was printed."""
    os.environ.update(environment or {})
    with pretend_device() as counts, redirect_stdout(io.StringIO()) as printed:
        try:
            train.main(words)
        except SystemExit as end:  # else this process would end
            print(f"exit code {end.code}")
    return counts, printed.getvalue()


@contextmanager
def pretend_device() -> Iterator[Counts]:
    """Inside, this process is as on a machine with one such device: train.py runs on it. No CUDA, so no graphs."""
    _register()
    counts, device = Counts(), torch.device(NAME, 0)
    with ExitStack() as stack:
        for place, name, value in (
            (ranks, "this_device", lambda: device),
            (ranks, "device_name", lambda _: NAME),
            # as "cpu:gloo,cuda:nccl": one backend for each, so a collective shows what it works on
            (train, "init_distributed", partial(ranks.init_distributed, backend=f"cpu:gloo,{NAME}:gloo")),
            (torch.cuda, "mem_get_info", lambda _: (MEMORY, MEMORY)),
            (torch.accelerator, "current_stream", _Backend.Stream),
            (Pretend, "counts", counts),
        ):
            stack.enter_context(patch.object(place, name, value))
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        torch.__future__.set_swap_module_params_on_conversion(True)  # else Module.to would part tied weights
        stack.enter_context(_Tensor())
        stack.enter_context(_Mode())
        yield counts


class Pretend(torch.Tensor):
    """A tensor on the device; `raw` has its values."""

    counts = Counts()
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor):
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, raw.size(), device=torch.device(NAME, 0), **layout)

    def __init__(self, raw: torch.Tensor):
        self.raw = raw

    @classmethod
    def __torch_dispatch__(cls, operation, _, args=(), kwargs=None):
        return execute(operation, args, kwargs or {})

    def __repr__(self):
        return f"Pretend({self.raw!r})"

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol):
        self.counts.pickled[place()] += 1
        return self.raw.detach().__reduce_ex__(protocol)

    def __getitem__(self, key):
        return super().__getitem__(_lists_to_device(key))

    def __setitem__(self, key, value):
        super().__setitem__(_lists_to_device(key), value)

    def tolist(self):
        self.counts.reads[place()] += 1
        return self.raw.tolist()

    def new_tensor(self, data, *, dtype=None, device=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def data_ptr(self):
        return self.raw.data_ptr()

    def untyped_storage(self):
        return self.raw.untyped_storage()


class _Mode(TorchDispatchMode):
    """Also sees operations without a tensor of the device: those that make one, and the CPU's collectives."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        others = set(types) - {torch.Tensor, torch.nn.Parameter, Pretend}  # shards, whose parts come here next
        return NotImplemented if others else execute(operation, args, kwargs or {})


class _Tensor(TorchFunctionMode):
    """torch.tensor, whose way to a device leads past the other mode."""

    def __torch_function__(self, function, _, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.tensor:
            return function(*args, **kwargs)
        device = kwargs.pop("device", None)
        values = tree_map(lambda x: x.tolist() if isinstance(x, Pretend) else x, args)
        return function(*values, **kwargs).to(device)


def execute(operation, args: tuple, kwargs: dict):
    """Does an operation on the values, if a GPU would do it, and counts what it costs."""
    leaves = tree_leaves((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, Pretend)]
    space, name = operation._schema.name.split("::")
    if space == "c10d" and tensors and name != "barrier":
        Pretend.counts.calls[name, NAME if ours else "objects" if _within("_object") else "cpu", place()] += 1
    target = kwargs.get("device")
    if not ours and (target is None or torch.device(target).type != NAME):
        return operation(*args, **kwargs)

    theirs = [x for x in tensors if not isinstance(x, Pretend)]
    on_device = bool(ours)
    if name in COPIES:
        on_device = isinstance(args[0], Pretend) if target is None else torch.device(target).type == NAME
        source = args[-1] if name == "copy_" else args[0]
        if on_device != isinstance(source, Pretend):
            (Pretend.counts.uploads if on_device else Pretend.counts.reads)[place()] += 1
    else:
        if ours and theirs:
            _check_devices(operation, name, args, theirs)
        if target is not None:
            on_device = torch.device(target).type == NAME
        if ours and (name in WAITS or (name in INDEX and _has_mask(name, args))):
            Pretend.counts.reads[place()] += 1
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}

    back = {id(x.raw): x for x in ours}  # what an operation writes into is returned as the same tensor
    raw_args, raw_kwargs = tree_map(lambda x: x.raw if isinstance(x, Pretend) else x, (args, kwargs))
    out = operation(*raw_args, **raw_kwargs)
    assert all(x.shape == x.raw.shape for x in ours), f"{operation} changes a shape in place"

    def wrapped(x):
        if not isinstance(x, torch.Tensor):
            return x
        return back[id(x)] if id(x) in back else Pretend(x) if on_device else x

    return tree_map(wrapped, out)


def place() -> str:
    """The innermost line of this project that is being run; "" in a backward pass."""
    for frame in _frames():
        file = frame.f_code.co_filename
        if file.startswith(ROOT) and file != __file__ and "site-packages" not in file:
            return f"{file.removeprefix(ROOT)}:{frame.f_lineno}"
    return ""


def _within(name: str) -> bool:
    """Whether a function whose name contains this is being run."""
    return any(name in frame.f_code.co_name for frame in _frames())


def _frames() -> Iterator:
    frame = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


def _check_devices(operation, name: str, args: tuple, theirs: list[torch.Tensor]) -> None:
    """RuntimeError for tensors of two devices, but for what CUDA allows: CPU scalars, and indices on the CPU."""
    if name in INDEX:
        Pretend.counts.uploads[place()] += any(x is y for x in args[1] for y in theirs)
        wrong = [x for x in theirs if x is args[0] or (x.dim() and any(x is y for y in args[2:3]))]
    else:
        known = operation._schema.arguments
        written = [x for x, argument in zip(args, known, strict=False) if _is_written(argument)]
        wrong = [x for x in theirs if x.dim() or name in ("cat", "stack") or any(x is y for y in written)]
    if wrong:
        raise RuntimeError(f"{operation} at {place()}: tensors on {NAME} and on the CPU, {[x.shape for x in wrong]}")


def _is_written(argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _has_mask(name: str, args: tuple) -> bool:
    """Whether an index is a mask, whose places must be counted; a single value is filled in without."""
    masks = [x for x in args[1] if isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)]
    return bool(masks) and not ("put" in name and len(args[1]) == 1 and args[2].numel() == 1)


def _lists_to_device(key):
    if isinstance(key, list):
        return torch.tensor(key, device=torch.device(NAME, 0))
    return tuple(map(_lists_to_device, key)) if isinstance(key, tuple) else key


class _Backend(getattr(backend_registration, "_DummyBackendModule", object)):
    """What torch.gpu is: what torch asks of a device's module."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    class Stream:
        """Nothing waits: what was started is done."""

        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self, *_):
            pass

        wait_stream = wait_event = record = synchronize = wait

        def record_event(self, *_):
            return self

    Event = Stream

    def current_stream(self, *_):
        return self.Stream()

    def stream(self, stream):
        return stream


LIBRARIES = []  # an object's death would take back what it registered


def _register() -> None:
    """Makes the device known to this process, once."""
    if LIBRARIES:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())
    LIBRARIES.append(torch.library.Library("_", "IMPL", "AutocastPrivateUse1"))
    LIBRARIES[0].fallback(torch.library.fallthrough_kernel)
    LIBRARIES.append(torch.library.Library("aten", "IMPL", "AutocastPrivateUse1"))
    for names, dtype in ((TO_BFLOAT16, torch.bfloat16), (TO_FLOAT32, torch.float32)):
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            LIBRARIES[1].impl(name, partial(_autocast, operation, dtype))


def _autocast(operation, dtype: torch.dtype, /, *args, **kwargs):
    """An operation in autocast's dtype; in its own, if it names one."""

    def cast(x):
        casts = isinstance(x, Pretend) and x.is_floating_point() and x.dtype != torch.float64
        return x.to(dtype) if casts else x

    with torch.autocast(NAME, enabled=False):
        if kwargs.get("dtype") is None:
            args, kwargs = tree_map(cast, (args, kwargs))
        return operation(*args, **kwargs)
