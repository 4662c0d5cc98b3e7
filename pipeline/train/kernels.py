"""The products of sparse codes that make a TopK step cheap: no (batch, k, d) tensor, no dense (batch, d_sae) gradient."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.products import linear
from pipeline.train.ranks import ALONE, Ranks

# Compressed sparse rows are complete for what is done here, the products of some pairs of rows.
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


def product_dtype(precision: str, device_type: str) -> torch.dtype:
    """Of train.precision: "auto", or a dtype's name."""
    return fast_dtype(device_type) if precision == "auto" else getattr(torch, precision)


def matmul(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b computed in dtype, returned in it."""
    return a.to(dtype) @ b.to(dtype)


class Code(NamedTuple):
    """A batch of sparse codes: row i has values[offsets[i]:offsets[i + 1]] at the latents in indices."""

    values: Tensor  # (n_entries,) float32
    indices: Tensor  # (n_entries,) int64
    offsets: Tensor  # (batch + 1,) int64


Select = Callable[[Tensor], Code]


def select_topk(k: int, ranks: Ranks = ALONE) -> Select:
    """The k largest pre-activations of each row, over all processes that hold features; of those, the positive ones."""

    def select(pre: Tensor) -> Code:
        if ranks.splits_features:
            values, indices = pre.topk(min(k, pre.shape[1]), dim=-1)
            kept = ranks.kept_of_largest(values, k) & (values > 0)
            offsets = F.pad(kept.sum(-1).cumsum(0), (1, 0))
            return Code(values[kept].float(), indices[kept], offsets)
        if pre.device.type == "cpu" and pre.shape[1] >= 2 * _GROUPS_PER_K * k:
            return _largest(pre, k)
        values, indices = pre.topk(k, dim=-1, sorted=False)
        offsets = torch.arange(0, len(pre) * k + 1, k, device=pre.device)
        return Code(values.float().relu_().flatten(), indices.flatten(), offsets)

    return select


_GROUPS_PER_K = 6  # fewer let more through that is thrown away again, more cost more to look at


def _largest(pre: Tensor, k: int) -> Code:
    """select_topk on a CPU, by a bound from below: the k-th largest of the maxima over groups of latents.

    torch.topk takes a third of the time of the encoder's product (measured: 40 ms for 4096 rows of 6144, this 18).
    Positive floating-point numbers have the order of their bits read as integers, which NumPy partitions fast; negative
    ones come out as negative integers in the wrong order, and are not asked for.
    """
    bits = pre.detach().view(torch.int16 if pre.element_size() == 2 else torch.int32)
    n, d_sae = bits.shape
    depth = d_sae // (_GROUPS_PER_K * k)
    width = d_sae // depth
    maxima = bits[:, : depth * width].unflatten(1, (depth, width)).amax(1).numpy()
    bound = _kth_largest(maxima, k).clip(min=1)  # the bits of the smallest positive number
    bits = bits.numpy()
    place = np.flatnonzero(bits >= bound[:, None])
    values, row = bits.reshape(-1).take(place), place // d_sae
    starts = _offsets(row, n)
    padded_width = max(k, int(np.diff(starts).max(initial=0)))
    padded = np.zeros(n * padded_width, values.dtype)
    padded[np.arange(len(row)) + (np.arange(n) * padded_width - starts[:-1]).take(row)] = values
    kth = _kth_largest(padded.reshape(n, padded_width), k)
    more = values > kth.take(row)
    equal = np.flatnonzero(values == kth.take(row))  # of these, the first ones are kept
    rank = np.arange(len(equal)) - _offsets(row[equal], n).take(row[equal])
    more[equal[rank < (k - np.bincount(row[more], minlength=n)).take(row[equal])]] = True
    place, row = place[more], row[more]
    found = torch.from_numpy(values[more]).view(pre.dtype).float()
    return Code(found, torch.from_numpy(place - row * d_sae), torch.from_numpy(_offsets(row, n)))


def _kth_largest(x: np.ndarray, k: int) -> np.ndarray:
    return np.partition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k]


def _places(mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of what is true, on a CPU: several times as fast as torch.nonzero."""
    return np.divmod(np.flatnonzero(mask.numpy()), mask.shape[1])


def _offsets(row: np.ndarray, n: int) -> np.ndarray:
    """(n + 1,) where each row's entries begin."""
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])


def _code(pre: Tensor, mask: Tensor) -> Code:
    """The pre-activations where the mask is true."""
    if pre.device.type == "cpu":
        row, index = (torch.from_numpy(places) for places in _places(mask))
    else:
        row, index = mask.nonzero(as_tuple=True)
    offsets = F.pad(torch.bincount(row, minlength=len(pre)).cumsum(0), (1, 0))
    return Code(pre[row, index].float(), index, offsets)


def select_positive(pre: Tensor) -> Code:
    """All positive pre-activations."""
    return _code(pre, pre > 0)


def select_batch_topk(k: int, guess: float = 0.0, ranks: Ranks = ALONE) -> Select:
    """The k · batch largest positive pre-activations of the whole batch, and what equals the smallest of them.

    guess: below what value none of them is thought to lie; it costs time when it is wrong, and changes nothing.
    """

    def select(pre: Tensor) -> Code:
        n = k * int(ranks.row_total(torch.tensor(len(pre), device=pre.device)))
        code = _code(pre, pre > guess)

        def found() -> int:
            return int(ranks.total(torch.tensor(len(code.values), device=pre.device)))

        if guess > 0 and found() < n:
            code = _code(pre, pre > 0)
        if found() <= n:
            return code
        best = code.values.topk(min(n, len(code.values)), sorted=False).values
        kept = code.values >= torch.cat(ranks.gathered(best)).topk(n, sorted=False).values.min()
        offsets = F.pad(torch.bincount(_rows(code)[kept], minlength=len(pre)).cumsum(0), (1, 0))
        return Code(code.values[kept], code.indices[kept], offsets)

    return select


def bag(code: Code, table: Tensor) -> Tensor:
    """(batch, d): row i is the sum of values[e] · table[indices[e]] over the entries e of row i. table: (n, d) float32."""
    if table.device.type == "cuda":
        from pipeline.train import triton_kernels  # imported late: it is there where CUDA is

        return triton_kernels.bag(code.values.detach(), code.indices, code.offsets, table.detach())
    return F.embedding_bag(
        code.indices, table.detach(), code.offsets[:-1], per_sample_weights=code.values.detach(), mode="sum"
    )


def dots(a: Tensor, table: Tensor, code: Code) -> Tensor:
    """(n_entries,): a[i] · table[indices[e]] for the entries e of row i. a: (batch, d); table: (n, d), both float32."""
    if table.device.type == "cuda":
        from pipeline.train import triton_kernels

        return triton_kernels.dots(a, table.detach(), code.indices, code.offsets)
    pattern = torch.sparse_csr_tensor(
        code.offsets, code.indices, torch.zeros_like(code.values), size=(len(a), len(table))
    )
    return torch.sparse.sampled_addmm(pattern, a, table.detach().T, beta=0.0).values()


def _rows(code: Code) -> Tensor:
    """(n_entries,) the row of each entry."""
    n = len(code.offsets) - 1
    return torch.repeat_interleave(torch.arange(n, device=code.offsets.device), code.offsets.diff())


def _split(code: Code, bounds: tuple[int, ...]) -> list[tuple[Tensor | slice, Code]]:
    """Per range [bounds[j], bounds[j + 1]) of latents: which entries are in it, and the code of those alone."""
    if len(bounds) == 2:
        return [(slice(None), code)]
    row, parts = _rows(code), []
    for low, high in itertools.pairwise(bounds):
        own = ((code.indices >= low) & (code.indices < high)).nonzero().squeeze(1)
        offsets = F.pad(torch.bincount(row[own], minlength=len(code.offsets) - 1).cumsum(0), (1, 0))
        parts.append((own, Code(code.values[own], code.indices[own], offsets)))
    return parts


class _SparseAutoencode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        select: Select,
        bounds: tuple[int, ...],
        dtype: torch.dtype,
    ):
        code = select(linear(x.to(dtype), W_enc.to(dtype), b_enc.to(dtype)))
        x_hats: list[Tensor] = []
        for _, part in _split(code, bounds):
            own = bag(part, W_dec)
            x_hats.append(x_hats[-1] + own if x_hats else own)
        ctx.save_for_backward(x, W_dec, *code)
        ctx.mark_non_differentiable(code.indices, code.offsets)
        ctx.bounds = bounds
        return torch.stack(x_hats) if len(x_hats) > 1 else x_hats[0][None], *code

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        grad, grad_values = gradients[:2]
        x, W_dec, *saved = ctx.saved_tensors
        code = Code(*saved)
        grad_values = grad_values.clone()
        grad_W_dec = []
        later = grad[-1]  # a range of latents is in its own prefix and in all longer ones
        gradients_of_ranges = [later]
        for own in grad[:-1].flip(0):
            later = later + own
            gradients_of_ranges.insert(0, later)
        whole = _Transposed(code, 0, len(W_dec))
        for (own, part), g, low, high in zip(
            _split(code, ctx.bounds), gradients_of_ranges, ctx.bounds[:-1], ctx.bounds[1:], strict=True
        ):
            grad_values[own] += dots(g, W_dec, part)
            transposed = whole if len(ctx.bounds) == 2 else _Transposed(part, low, high)
            grad_W_dec.append(transposed.times(part.values, g))
        grad_values *= code.values > 0
        grad_b_enc = torch.zeros(len(W_dec), device=x.device).index_add_(0, code.indices, grad_values)
        grad_W_dec = torch.cat(grad_W_dec) if len(grad_W_dec) > 1 else grad_W_dec[0]
        return None, whole.times(grad_values, x), grad_b_enc, grad_W_dec, None, None, None


class _Transposed:
    """The transpose of a code, latents [low, high) by rows of the batch: per latent its entries in the batch's order."""

    def __init__(self, code: Code, low: int, high: int) -> None:
        self.order = code.indices.argsort(stable=True)
        self.row = _rows(code)[self.order]
        self.offsets = F.pad(torch.bincount(code.indices - low, minlength=high - low).cumsum(0), (1, 0))

    def times(self, entries: Tensor, dense: Tensor) -> Tensor:
        """(high - low, d). entries: the values, in the code's order; dense: (batch, d)."""
        return bag(Code(entries[self.order], self.row, self.offsets), dense)


def sparse_autoencode(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    select: Select,
    dtype: torch.dtype,
) -> tuple[Tensor, Code]:
    """x_hat = z W_dec, (batch, d), and the code z = select(x W_encᵀ + b_enc). W_enc and W_dec are (d_sae, d).

    Gradients flow from x_hat and from the code's values to W_enc, b_enc and W_dec, not to x.
    """
    x_hats, code = sparse_autoencode_prefixes(x, W_enc, b_enc, W_dec, select, (len(W_dec),), dtype)
    return x_hats[0], code


def sparse_autoencode_prefixes(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    select: Select,
    prefixes: tuple[int, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Code]:
    """(len(prefixes), batch, d): what the first prefixes[i] latents of one code make, for about the cost of all of them.

    prefixes: rising, the last one d_sae.
    """
    bounds = (0, *prefixes)
    x_hats, values, indices, offsets = _SparseAutoencode.apply(  # type: ignore[misc]
        x, W_enc, b_enc, W_dec, select, bounds, dtype
    )
    return x_hats, Code(values, indices, offsets)
