"""Dense codes on a CPU: passes over (batch, d_sae) tensors that take a fraction of what PyTorch's own take.

NumPy's comparisons, products and selections of integers use the processor's wide registers where PyTorch's operations on
bfloat16 and booleans convert or copy. Nothing here can be used under torch.func.vmap.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stores.products import linear


def bits(x: Tensor) -> Tensor:
    """The numbers' bits as integers; these have the order of the numbers, as far as they are positive."""
    return x.detach().contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32)


def where(mask: Tensor, x: Tensor) -> Tensor:
    """x where the mask is true, 0 elsewhere, without a derivative, on a CPU: torch.where takes four times as long."""
    return torch.from_numpy(bits(x).numpy() * mask.numpy()).view(x.dtype)


def column_sums(x: Tensor) -> Tensor:
    """x.sum(0), (n,), in x's dtype: as a product it is added up in float32 and rounded once, and twice as fast."""
    return (torch.ones(1, len(x), dtype=x.dtype) @ x)[0]


def column_counts(x: Tensor) -> Tensor:
    """(n,) int64: how many are not 0, on a CPU."""
    mask = (x.detach().numpy() if x.dtype != torch.bfloat16 else bits(x).numpy() << 1) != 0
    rows = mask.view(np.uint8)
    counts = [np.add.reduce(rows[i : i + 255], axis=0, dtype=np.uint8) for i in range(0, len(rows), 255)]
    return torch.from_numpy(np.sum(counts, axis=0, dtype=np.int64))


def columns(x: Tensor, own: Tensor) -> Tensor:
    """x[:, own] without a derivative, on a CPU."""
    return torch.from_numpy(bits(x).numpy().take(own.numpy(), axis=1)).view(x.dtype)


class EncodePositive(torch.autograd.Function):
    """(z (batch, d_sae), Σ_rows z (d_sae) float32, rounded to dtype), z = ReLU(x W_encᵀ + b_enc) in dtype, on a CPU.
    Gradients flow to W_enc and b_enc, not to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, dtype: torch.dtype):  # type: ignore[override]
        x = x.to(dtype)
        # Not oneDNN's own ReLU: it makes 0 of a NaN, and a dictionary that diverged would not be seen.
        z = linear(x, W_enc.to(dtype), b_enc.to(dtype)).relu()
        ctx.save_for_backward(x, z)
        ctx.set_materialize_grads(False)
        return z, column_sums(z).float()

    @staticmethod
    def backward(ctx: Any, of_z: Tensor | None, of_sums: Tensor | None):  # type: ignore[override]
        x, z = ctx.saved_tensors
        if of_sums is not None:
            of_z = of_sums.to(z.dtype).expand_as(z) if of_z is None else of_z + of_sums.to(z.dtype)
        if of_z is None:
            return None, None, None, None
        grad = torch.ops.aten.threshold_backward(of_z, z, 0)
        of_W_enc = (grad.mT @ x).float() if ctx.needs_input_grad[1] else None
        return None, of_W_enc, column_sums(grad).float(), None


class EncodeAmong(torch.autograd.Function):
    """z (batch, n): pre where the mask is true, 0 elsewhere; pre is of the n latents `own` of x W_encᵀ + b_enc. Gradients flow
    to W_enc and b_enc, by products in the dtype of pre."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, own: Tensor, pre: Tensor, mask: Tensor):  # type: ignore[override]
        ctx.save_for_backward(x, own, mask)
        ctx.d_sae = len(W_enc)
        return where(mask, pre)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        x, own, mask = ctx.saved_tensors
        grad = where(mask, grad)
        of_W, of_b = grad.mT @ x.to(grad.dtype), column_sums(grad)
        grad_W_enc = torch.zeros(ctx.d_sae, x.shape[1]).index_copy_(0, own, of_W.float())
        return None, grad_W_enc, torch.zeros(ctx.d_sae).index_copy_(0, own, of_b.float()), None, None, None
