"""The products of sparse codes that make a training step cheap: no (batch, k, d) tensor, no dense (batch, d_sae) gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.train import operators, static


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
    """A batch of sparse codes: row i has values[offsets[i]:offsets[i + 1]] at the latents in indices.

    On a device (static.wanted) there may be more values than the last offset says; they belong to no row, and are 0.
    """

    values: Float[Tensor, " n_entries"]
    indices: Int64[Tensor, " n_entries"]
    offsets: Int64[Tensor, " rows"]  # batch + 1

    @property
    def rows(self) -> Int64[Tensor, " n_entries"]:
        """The row of each entry."""
        if static.wanted(self.offsets):
            return static.rows_of(self.offsets, len(self.indices))
        n = len(self.offsets) - 1
        return torch.repeat_interleave(torch.arange(n, device=self.offsets.device), self.offsets.diff())


def gathered(table: Tensor, dtype: torch.dtype) -> Tensor:
    """A table, (n, d) float32, of which sparse products gather rows: on a device in the dtype of the products, on a CPU as it
    is. bfloat16 rounds each number by 2⁻⁸ of it at most; what is summed of them is float32."""
    return table.detach().to(dtype) if static.wanted(table) else table


def bag(code: Entries, table: Tensor) -> Tensor:
    """(batch, d) float32: row i is the sum of values[e] · table[indices[e]] over the entries e of row i. table: (n, d), float32
    or bfloat16."""
    return operators.bag(code.values.detach(), code.indices, code.offsets, table.detach())


def dots(a: Tensor, table: Tensor, code: Entries) -> Tensor:
    """(n_entries,) float32: a[i] · table[indices[e]] for the entries e of row i; of what belongs to no row, anything. a:
    (batch, d), table: (n, d), each float32 or bfloat16."""
    return operators.dots(a, table.detach(), code.indices, code.offsets)


class Parts:
    """A code by rows and ranges of latents: part j of row i, latents bounds[j - 1] to bounds[j], is row i · n + j of `code`,
    whose entries are those in `order`. row: in which of its rows each entry of the whole code is."""

    def __init__(self, whole: Entries, bounds: tuple[int, ...]) -> None:
        n, n_rows = len(bounds), len(whole.offsets) - 1
        self.row = whole.rows * n
        for bound in bounds[:-1]:
            self.row += whole.indices >= bound
        ordered, self.order = self.row.int().sort(stable=True)
        self.code = Entries(whole.values[self.order], whole.indices[self.order], static.offsets_of(ordered, n_rows * n))


class Transposed:
    """The transpose of a code: per latent its entries that are not 0 in the batch's order, so that sums over rows have an
    order too."""

    def __init__(self, code: Entries, n: int) -> None:
        ordered, self.order = torch.where(code.values != 0, code.indices, n).int().sort(stable=True)
        self.offsets = static.offsets_of(ordered, n)
        self.rows = code.rows[self.order]

    def entries(self, values: Float[Tensor, " n_entries"], rows: Int64[Tensor, " n_entries"] | None = None) -> Entries:
        """values: in the code's order. rows: the indices, one for each entry; by default the code's rows."""
        return Entries(values[self.order], self.rows if rows is None else rows[self.order], self.offsets)

    def times(self, values: Float[Tensor, " n_entries"], dense: Float[Tensor, "batch d"]) -> Float[Tensor, "n d"]:
        """values: in the code's order."""
        return bag(self.entries(values), dense)


class Deferred:
    """Gradients of weights that are products of a code and a table, left as these two, for a step that makes them where it
    uses them (fused.py). Outside of `here` nothing is left."""

    def __init__(self) -> None:
        self._open = False
        self._left: dict[Tensor, list[tuple[Entries, Tensor]]] = {}

    @contextmanager
    def here(self, wanted: bool) -> Iterator[None]:
        """Around a backward pass."""
        self._left.clear()
        self._open = wanted
        try:
            yield
        finally:
            self._open = False

    def gradient(self, weight: Tensor, code: Entries, table: Tensor) -> Tensor | None:
        """What a backward pass says of a weight whose gradient is bag(code, table)."""
        if not (self._open and weight.is_leaf):
            return bag(code, table)
        self._left.setdefault(weight, []).append((code, table))
        return None

    def of(self, weight: Tensor) -> list[tuple[Entries, Tensor]]:
        """(code, table) of each product that belongs to its gradient, once."""
        return self._left.pop(weight, [])


class Shared:
    """What the backward passes of one code's encoder and decoder have in common."""

    def __init__(self, d_sae: int, deferred: Deferred | None = None) -> None:
        self.d_sae, self.deferred = d_sae, deferred or Deferred()
        self.code: Entries | None = None

    @cached_property
    def transposed(self) -> Transposed:
        assert self.code is not None
        return Transposed(self.code, self.d_sae)


class Encode(torch.autograd.Function):
    """The values of a code that was selected from x W_encᵀ + b_enc. Gradients flow to W_enc and b_enc, not to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, code: Entries, shared: "Shared"):  # type: ignore[override]
        shared.code = code
        ctx.save_for_backward(x, code.values)
        ctx.shared, ctx.W_enc = shared, W_enc
        return code.values.view_as(code.values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        (x, values), shared = ctx.saved_tensors, ctx.shared
        own, transposed = torch.where(values != 0, grad, 0.0), shared.transposed
        # not index_add_: on a CUDA device its sums are in any order
        grad_b_enc = transposed.times(own, torch.ones(len(x), 1, device=x.device))[:, 0]
        to_W_enc, W_enc = ctx.needs_input_grad[1], ctx.W_enc
        grad_W_enc = shared.deferred.gradient(W_enc, transposed.entries(own), x) if to_W_enc else None
        return None, grad_W_enc, grad_b_enc, None, None


class Decode(torch.autograd.Function):
    """(len(prefixes), batch, d): what the first prefixes[i] latents of one code make, for about the cost of all of them.

    prefixes: rising, the last one d_sae. dtype: of gathered tables, see `gathered`.
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
        dtype: torch.dtype,
    ):
        code, n = Entries(values.detach(), indices, offsets), len(prefixes)
        ctx.parts = Parts(code, prefixes) if n > 1 else None
        table = gathered(W_dec, dtype)
        by_part = bag(ctx.parts.code if ctx.parts else code, table).unflatten(0, (-1, n)).unbind(1)
        made = [by_part[0]]
        for own in by_part[1:]:
            made.append(made[-1] + own)
        ctx.save_for_backward(*code, table)
        ctx.shared, ctx.W_dec, ctx.dtype = shared, W_dec, dtype
        return torch.stack(made) if n > 1 else made[0][None]

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        *saved, table = ctx.saved_tensors
        code, parts, shared = Entries(*saved), ctx.parts, ctx.shared

        def of_W_dec(g: Tensor, rows: Tensor | None = None) -> Tensor | None:
            if not ctx.needs_input_grad[3]:
                return None
            entries = shared.transposed.entries(code.values, rows)
            return shared.deferred.gradient(ctx.W_dec, entries, gathered(g, ctx.dtype))

        if parts is None:
            return dots(grad[0], table, code), None, None, of_W_dec(grad[0]), None, None, None
        later = [grad[-1]]  # a range of latents is in its own prefix and in all longer ones
        for own in grad[:-1].flip(0):
            later.insert(0, later[0] + own)
        g = torch.stack(later, dim=1).flatten(0, 1)
        grad_values = torch.empty_like(code.values)
        grad_values[parts.order] = dots(g, table, parts.code)
        return grad_values, None, None, of_W_dec(g, parts.row), None, None, None
