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
        casts = function is torch.Tensor.to and torch.float32 in args or function is torch.Tensor.float
        if casts and args[0].dtype == torch.float64:
            return args[0]
        return function(*args, **(kwargs or {}))
