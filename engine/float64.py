"""--dtype float64: the same gradient to 1e-10 however the batch is cut."""

from functools import partial, wraps

import torch
from torch.overrides import TorchFunctionMode


def keep_float64(model) -> None:
    """Stops every module of a float64 model from rounding to float32, as transformers' norms do whatever the dtype.

    A sum of rounded parts is not the rounded sum, so with it a gradient would depend on the cut.
    """

    def unrounded(forward, *args, **kwargs):
        with _KeepFloat64():
            return forward(*args, **kwargs)

    for module in model.modules():  # all of them: the attention of vision towers casts between its layers
        module.forward = wraps(module.forward)(partial(unrounded, module.forward))


class _KeepFloat64(TorchFunctionMode):
    """A cast of float64 to float32 does nothing."""

    def __torch_function__(self, function, _, args=(), kwargs=None):
        kwargs, wide = kwargs or {}, args and getattr(args[0], "dtype", None) == torch.float64
        named = function in (torch.Tensor.to, torch.Tensor.type) and torch.float32 in args
        if wide and (named or function is torch.Tensor.float):
            return args[0]
        if wide and kwargs.get("dtype") == torch.float32:  # of a softmax
            kwargs = kwargs | {"dtype": torch.float64}
        return function(*args, **kwargs)
