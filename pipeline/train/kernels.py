"""The products of sparse codes that make a training step cheap: no (batch, k, d) tensor, no dense (batch, d_sae) gradient."""

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.train import operators
from stores.products import linear


def fast_dtype(device_type: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    By what the processor says of itself: a timing would differ from run to run, and with it every weight.
    """
    if device_type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def product_dtype(precision: str, device: str) -> torch.dtype:
    """Of train.precision: "auto", or a dtype's name."""
    return fast_dtype(torch.device(device).type) if precision == "auto" else getattr(torch, precision)


def matmul(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b computed in dtype, returned in it. Under torch.vmap each of several products, and each of its gradients, has
    the bits that it has alone."""
    return Product.apply(a.to(dtype), b.to(dtype))  # type: ignore[return-value]


class Product(torch.autograd.Function):
    """a @ b. A batched product may divide long sums among threads in another way than a single one (MKL does), so torch.vmap
    makes one after another."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        to_a, to_b = ctx.needs_input_grad
        return grad @ b.mT if to_a else None, a.mT @ grad if to_b else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        each = ([t] * info.batch_size if dim is None else t.unbind(dim) for t, dim in zip((a, b), in_dims, strict=True))
        return torch.stack([Product.apply(*pair) for pair in zip(*each, strict=True)]), 0  # type: ignore[misc]


class Entries(NamedTuple):
    """A batch of sparse codes: row i has values[offsets[i]:offsets[i + 1]] at the latents in indices."""

    values: Float[Tensor, " n_entries"]
    indices: Int64[Tensor, " n_entries"]
    offsets: Int64[Tensor, " rows"]  # batch + 1

    @property
    def rows(self) -> Int64[Tensor, " n_entries"]:
        """The row of each entry."""
        n = len(self.offsets) - 1
        return torch.repeat_interleave(torch.arange(n, device=self.offsets.device), self.offsets.diff())


def bag(code: Entries, table: Tensor) -> Tensor:
    """(batch, d): row i is the sum of values[e] · table[indices[e]] over the entries e of row i. table: (n, d) float32."""
    return operators.bag(code.values.detach(), code.indices, code.offsets, table.detach())


def dots(a: Tensor, table: Tensor, code: Entries) -> Tensor:
    """(n_entries,): a[i] · table[indices[e]] for the entries e of row i. a: (batch, d); table: (n, d), both float32."""
    return operators.dots(a, table.detach(), code.indices, code.offsets)


def _split(code: Entries, bounds: tuple[int, ...]) -> list[tuple[Tensor | slice, Entries]]:
    """Per range [bounds[j], bounds[j + 1]) of latents: which entries are in it, and the code of those alone."""
    if len(bounds) == 2:
        return [(slice(None), code)]
    row, parts = code.rows, []
    for low, high in itertools.pairwise(bounds):
        own = ((code.indices >= low) & (code.indices < high)).nonzero().squeeze(1)
        offsets = F.pad(torch.bincount(row[own], minlength=len(code.offsets) - 1).cumsum(0), (1, 0))
        parts.append((own, Entries(code.values[own], code.indices[own], offsets)))
    return parts


class Transposed:
    """The transpose of a code, latents [low, high) by rows of the batch: per latent its entries in the batch's order."""

    def __init__(self, code: Entries, low: int, high: int) -> None:
        self.order = code.indices.argsort(stable=True)
        self.row = code.rows[self.order]
        self.offsets = F.pad(torch.bincount(code.indices - low, minlength=high - low).cumsum(0), (1, 0))

    def times(self, entries: Float[Tensor, " n_entries"], dense: Float[Tensor, "batch d"]) -> Float[Tensor, "n d"]:
        """(high - low, d). entries: the values, in the code's order."""
        return bag(Entries(entries[self.order], self.row, self.offsets), dense)


class Shared:
    """What the backward passes of one code's encoder and decoder have in common. pre: what it was selected from, on a CPU."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self.code: Entries | None = None
        self.pre: Tensor | None = None

    @cached_property
    def transposed(self) -> Transposed:
        assert self.code is not None
        return Transposed(self.code, 0, self.d_sae)


class Encode(torch.autograd.Function):
    """select(x W_encᵀ + b_enc) as Entries. Gradients flow from the values to W_enc and b_enc, not to x. pre: the product, if
    it is there already."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        select: Callable[[Tensor], Entries],
        dtype: torch.dtype,
        shared: Shared,
        pre: Tensor | None = None,
    ):
        if pre is None:
            pre = linear(x.to(dtype), W_enc.to(dtype), b_enc.to(dtype))
        shared.pre = pre if pre.device.type == "cpu" else None
        code = select(pre)
        shared.code = Entries(code.values.detach(), code.indices, code.offsets)
        ctx.save_for_backward(x, *code)
        ctx.mark_non_differentiable(code.indices, code.offsets)
        ctx.shared = shared
        return tuple(code)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        x, values, indices, _ = ctx.saved_tensors
        own = gradients[0] * (values != 0)
        grad_b_enc = torch.zeros(ctx.shared.d_sae, device=x.device).index_add_(0, indices, own)
        return None, ctx.shared.transposed.times(own, x), grad_b_enc, None, None, None, None


class Decode(torch.autograd.Function):
    """(len(prefixes), batch, d): what the first prefixes[i] latents of one code make, for about the cost of all of them.

    prefixes: rising, the last one d_sae.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        values: Tensor,
        indices: Tensor,
        offsets: Tensor,
        W_dec: Tensor,
        prefixes: tuple[int, ...],
        shared: Shared,
    ):
        ctx.bounds = (0, *prefixes)
        made: list[Tensor] = []
        for _, part in _split(Entries(values, indices, offsets), ctx.bounds):
            own = bag(part, W_dec)
            made.append(made[-1] + own if made else own)
        ctx.save_for_backward(values, indices, offsets, W_dec)
        ctx.shared = shared
        return torch.stack(made) if len(made) > 1 else made[0][None]

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        *saved, W_dec = ctx.saved_tensors
        code = Entries(*saved)
        later = grad[-1]  # a range of latents is in its own prefix and in all longer ones
        gradients_of_ranges = [later]
        for own in grad[:-1].flip(0):
            later = later + own
            gradients_of_ranges.insert(0, later)
        grad_values, grad_W_dec = torch.empty_like(code.values), []
        for (own, part), g, low, high in zip(
            _split(code, ctx.bounds), gradients_of_ranges, ctx.bounds[:-1], ctx.bounds[1:], strict=True
        ):
            grad_values[own] = dots(g, W_dec, part)
            transposed = ctx.shared.transposed if len(ctx.bounds) == 2 else Transposed(part, low, high)
            grad_W_dec.append(transposed.times(part.values, g))
        return grad_values, None, None, torch.cat(grad_W_dec) if len(grad_W_dec) > 1 else grad_W_dec[0], None, None
