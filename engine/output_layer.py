"""The output layer: log-probabilities of tokens from hidden states, in slices, so that logits are never made whole.

A slice of logits is the largest tensor of an update. GPG's d loss / d log pi is known before the forward pass (it is
-weight), so values and gradients come from the same logits, made once.

Letters: M tokens, n of them in a slice, D hidden width, V vocabulary.
"""

import torch

SLICE_LOGITS = 2**25  # 128 MB in float32


def token_logprobs(logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log softmax(logits / temperature)[id]: (..., V), (...) -> (...). In float32 or wider, whatever the logits are."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return scaled.gather(-1, ids[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)


def sliced_logprobs(
    hidden: torch.Tensor,  # (..., D)
    weight: torch.Tensor,  # (V, D), the output layer
    ids: torch.Tensor,  # (...)
    *,
    bias: torch.Tensor | None = None,  # (V,)
    temperature: float = 1.0,
    slice_tokens: int | None = None,
    grad: torch.Tensor | None = None,  # (...)
) -> torch.Tensor:
    """token_logprobs(hidden @ weight.T + bias, ids, temperature), with at most slice_tokens rows of logits alive.

    -> (...), float32 or wider: the same values and gradients. grad: d loss / d logprobs where it is known beforehand;
    without it, logits are made again in the backward pass. Under autocast products run in its dtype, the softmax and
    the sums over slices in float32. slice_tokens: by default as many rows as make SLICE_LOGITS logits.
    AssertionError: the backward pass delivers a gradient other than `grad`.
    """
    device = hidden.device.type
    compute_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    options = temperature, slice_tokens or max(1, SLICE_LOGITS // len(weight)), compute_dtype
    known = None if grad is None or not torch.is_grad_enabled() else grad.flatten()
    flat = _SlicedLogprobs.apply(hidden.reshape(-1, hidden.shape[-1]), weight, bias, ids.flatten(), known, options)
    return flat if ids.dim() == 1 else flat.view(ids.shape)  # no view, where none is needed: shards forbid its editing


class _SlicedLogprobs(torch.autograd.Function):
    """One node for the whole output layer, so that a micro-batch has one backward, as DistributedDataParallel demands.

    With z = (h W^T + b) / temperature and p = softmax(z):  d logp[id] / dz = onehot(id) - p. Edited in place.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, known, options):
        logprobs, grads = _run(hidden, weight, bias, ids, known, options, ctx.needs_input_grad)
        ctx.save_for_backward(*(hidden, weight, bias, ids) if known is None else (known, *grads))
        ctx.options = None if known is not None else options
        return logprobs  # (M,)

    @staticmethod
    def backward(ctx, grad):  # (M,)
        if ctx.options is None:
            known, *grads = ctx.saved_tensors
            assert torch.equal(grad, known.to(grad.dtype)), "sliced_logprobs: the gradient is not the one it was told"
        else:
            _, grads = _run(*ctx.saved_tensors, grad, ctx.options, ctx.needs_input_grad)
        return *grads, None, None, None


def _run(hidden, weight, bias, ids, grad, options, needed):
    """log p of the ids (M,), and, if their gradient (M,) is given, those of hidden states, output layer and bias."""
    temperature, slice_tokens, compute_dtype = options
    w, logprobs = weight.to(compute_dtype), []  # (V, D)
    parts = zip((hidden, weight, bias), needed, strict=False)
    grads = None if grad is None else [torch.zeros_like(x) if need else None for x, need in parts]
    for start in range(0, len(hidden), slice_tokens):
        piece = slice(start, start + slice_tokens)
        rows = hidden[piece].to(w.dtype)  # (n, D)
        z = (rows @ w.T).to(torch.promote_types(w.dtype, torch.float32))  # (n, V)
        if bias is not None:
            z.add_(bias)
        if temperature != 1:
            z.div_(temperature)
        picked, top = z.gather(1, ids[piece, None]), z.amax(dim=1, keepdim=True)  # (n, 1)
        total = z.sub_(top).exp_().sum(dim=1, keepdim=True)  # (n, 1)
        logprobs.append((picked - (total.log() + top)).squeeze(1))
        if grads is not None:
            g = (grad[piece, None] / temperature).to(z.dtype)  # (n, 1); a float64 factor would make all of it slow
            dz = z.div_(total).scatter_add_(1, ids[piece, None], -torch.ones_like(g)).mul_(-g)  # (onehot(id) - p) * g
            _add_grads(grads, dz, dz.to(w.dtype), w, rows, piece)
    return torch.cat(logprobs), grads


def _add_grads(grads, dz, rounded, w, rows, piece) -> None:
    """Adds the part of a slice to the gradients; dz (n, V): of its logits, rounded: the same, as products take it."""
    grad_hidden, grad_weight, grad_bias = grads
    if grad_bias is not None:
        grad_bias += dz.sum(dim=0)
    if grad_hidden is not None:
        grad_hidden[piece] = rounded @ w
    if grad_weight is not None and grad_weight.dtype == rounded.dtype:
        grad_weight.addmm_(rounded.T, rows)
    elif grad_weight is not None:
        grad_weight += rounded.T @ rows
