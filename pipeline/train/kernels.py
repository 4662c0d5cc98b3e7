"""The products of sparse codes that make a TopK step cheap: no (batch, k, d) tensor, no dense (batch, d_sae) gradient."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Compressed sparse rows are complete for what is done here, a product with a dense matrix.
warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks are)")


def fast_dtype(device_type: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    By what the processor says of itself: a timing would differ from run to run, and with it every weight.
    """
    if device_type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def matmul(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b computed in dtype, returned in it."""
    return a.to(dtype) @ b.to(dtype)


class Code(NamedTuple):
    """A batch of sparse codes: row i has values[offsets[i]:offsets[i + 1]] at the latents in indices."""

    values: Tensor  # (n_entries,) float32
    indices: Tensor  # (n_entries,) int64
    offsets: Tensor  # (batch + 1,) int64


Select = Callable[[Tensor], Code]


def select_topk(k: int) -> Select:
    """The k largest pre-activations of each row, negative ones as 0."""

    def select(pre: Tensor) -> Code:
        values, indices = pre.topk(k, dim=-1, sorted=False)
        offsets = torch.arange(0, len(pre) * k + 1, k, device=pre.device)
        return Code(values.float().relu_().flatten(), indices.flatten(), offsets)

    return select


def select_positive(pre: Tensor) -> Code:
    """All positive pre-activations."""
    row, index = (pre > 0).nonzero(as_tuple=True)
    offsets = F.pad(torch.bincount(row, minlength=len(pre)).cumsum(0), (1, 0))
    return Code(pre[row, index].float(), index, offsets)


class _SparseAutoencode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, select: Select, dtype: torch.dtype):
        code = select(matmul(x, W_enc.T, dtype).add_(b_enc.to(dtype)))
        x_hat = F.embedding_bag(code.indices, W_dec, code.offsets[:-1], per_sample_weights=code.values, mode="sum")
        ctx.save_for_backward(x, W_dec, *code)
        ctx.mark_non_differentiable(code.indices, code.offsets)
        return x_hat, *code

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        grad, grad_values = gradients[:2]
        x, W_dec, values, indices, offsets = ctx.saved_tensors
        d_sae = len(W_dec)
        grad_values = (_sampled_products(grad, W_dec, indices, offsets) + grad_values) * (values > 0)
        # The transposed code in compressed rows: one row per latent, its entries in the order of the batch.
        order = indices.argsort(stable=True)
        row = torch.repeat_interleave(torch.arange(len(x), device=x.device), offsets.diff())
        starts = F.pad(torch.bincount(indices, minlength=d_sae).cumsum(0), (1, 0))

        def transposed_times(entries: Tensor, dense: Tensor) -> Tensor:
            return torch.sparse_csr_tensor(starts, row[order], entries[order], size=(d_sae, len(x))) @ dense

        grad_b_enc = torch.zeros(d_sae, device=x.device).index_add_(0, indices, grad_values)
        return None, transposed_times(grad_values, x), grad_b_enc, transposed_times(values, grad), None, None


def _sampled_products(a: Tensor, W: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """(n_entries,): a[i] · W[indices[e]] for the entries e of row i, by embedding_bag's own gradient."""
    weights = torch.zeros(indices.shape, device=a.device, requires_grad=True)
    with torch.enable_grad():
        out = F.embedding_bag(indices, W.detach(), offsets[:-1], per_sample_weights=weights, mode="sum")
    return torch.autograd.grad(out, weights, a)[0]


def sparse_autoencode(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, select: Select, dtype: torch.dtype
) -> tuple[Tensor, Code]:
    """x_hat = z W_dec, (batch, d), and the code z = select(x W_encᵀ + b_enc). W_enc and W_dec are (d_sae, d).

    Gradients flow from x_hat and from the code's values to W_enc, b_enc and W_dec, not to x.
    """
    x_hat, values, indices, offsets = _SparseAutoencode.apply(x, W_enc, b_enc, W_dec, select, dtype)  # type: ignore[misc]
    return x_hat, Code(values, indices, offsets)
