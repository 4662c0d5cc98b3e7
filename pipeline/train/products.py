"""The products of a training step: in what dtype, by dense or sparse codes, by whom."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.train import operators, static
from pipeline.train.codes import Code, Dense, Sparse
from pipeline.train.dense_cpu import EncodeAmong, EncodePositive, columns
from pipeline.train.kernels import Deferred, Encode, Entries, Shared, gathered, matmul
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.selections import OfEachRow, Positive, Selection
from stores.products import linear

_SPARSE_BELOW = 0.05  # density; below it the sparse products are faster on a CPU (equal at .065 for d_in = 768)

_SPARSE_AMONG_BELOW = 0.03  # where the encoder's product is there already: equal at .02 with AMX, at more without


@dataclass(frozen=True)
class Products:
    """dtype: of the matrix products. dense: codes are dense, and take no turns by what the numbers are, so that
    torch.func.vmap can do several dictionaries at once. ranks: who holds the other rows, or the other features. deferred:
    gradients that sparse products leave to the step."""

    dtype: torch.dtype = torch.float32
    dense: bool = True
    ranks: Ranks = ALONE
    deferred: Deferred = field(default_factory=Deferred, compare=False)

    def matmul(self, a: Float[Tensor, "n m"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
        """a b, float32."""
        return matmul(a, b, self.dtype).float()

    def pre(
        self, x: Float[Tensor, "batch d_in"], W_enc: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "batch d_sae"]:
        """x W_encᵀ + b_enc, in the dtype of the products."""
        # Not addmm: it rounds once where the batched product of a stack rounds twice.
        return matmul(x, W_enc.T, self.dtype) + b_enc.to(self.dtype)

    def encode(
        self,
        x: Float[Tensor, "batch d_in"],
        W_enc: Float[Tensor, "d_sae d_in"],
        b_enc: Float[Tensor, " d_sae"],
        select: Selection,
        density: Float[Tensor, ""],
    ) -> Code:
        """The code of x. density: of the last batches' codes."""
        if not self.dense and (select.few or (not static.wanted(x) and float(density) < _SPARSE_BELOW)):
            with torch.no_grad():
                x = gathered(x, self.dtype)
                operands = x.to(self.dtype), W_enc.to(self.dtype), b_enc.to(self.dtype)
                if static.wanted(x) and select.by_maxima(len(W_enc)):
                    pre, maxima = operators.encode(*operands)
                else:
                    pre, maxima = linear(*operands), None
                entries = select.entries(pre, self.ranks, maxima)
            return self._sparse(x, W_enc, b_enc, entries, pre)
        if not self.dense and isinstance(select, Positive) and not static.wanted(x):
            z, sums = EncodePositive.apply(x, W_enc, b_enc, self.dtype)  # type: ignore[misc]
            return Dense(z, sums=sums)
        pre = self.pre(x, W_enc, b_enc)
        if select.few:  # else the code stays as small as it is: each pass over it in float32 allocates anew
            pre = pre.float()
        return Dense(select.dense(pre), pre=pre)

    def encode_among(
        self,
        latents: Bool[Tensor, " d_sae"],
        x: Float[Tensor, "batch d_in"],
        W_enc: Float[Tensor, "d_sae d_in"],
        b_enc: Float[Tensor, " d_sae"],
        select: Selection,
        code: Code,
        n_rows: int | None = None,
    ) -> Code:
        """The code of x[:n_rows] by some of the latents. code: of x by all of them."""
        x, pre = x[:n_rows], None if code.pre is None else code.pre[:n_rows]
        if isinstance(code, Sparse) and static.wanted(x):
            assert pre is not None
            with torch.no_grad():
                entries = select.entries(torch.where(latents, pre, 0.0), self.ranks)  # a selected 0 is no entry
            return self._sparse(gathered(x, self.dtype), W_enc, b_enc, Entries(*static.packed(*entries)))
        if self.dense or static.wanted(x):
            assert isinstance(code, Dense)
            assert pre is not None
            return Dense(select.dense(torch.where(latents, pre, 0.0), self.ranks))
        own = latents.nonzero().squeeze(1)
        if isinstance(code, Sparse) and isinstance(select, OfEachRow) and not self.ranks.splits_features:
            assert pre is not None
            pre = columns(pre, own)
            if select.k < _SPARSE_AMONG_BELOW * len(own):
                entries = select.entries(pre)
                return self._sparse(x, W_enc, b_enc, entries._replace(indices=own[entries.indices]))
            return Dense(EncodeAmong.apply(x, W_enc, b_enc, own, pre, select.mask(pre)), own)  # type: ignore[arg-type]
        pre = self.pre(x, W_enc[own], b_enc[own]).float()
        return Dense(select.dense(pre, self.ranks), own)

    def _sparse(self, x: Tensor, W_enc: Tensor, b_enc: Tensor, entries: Entries, pre: Tensor | None = None) -> Sparse:
        shared = Shared(len(W_enc), self.deferred)
        values = Encode.apply(x, W_enc, b_enc, entries, shared)
        return Sparse(entries._replace(values=values), shared, pre)  # type: ignore[arg-type]

    def decode(
        self, code: Code, W_dec: Float[Tensor, "d_sae d_out"], prefixes: tuple[int, ...] = ()
    ) -> Float[Tensor, "n_prefixes batch d_out"]:
        """What the first prefixes[i] features make, of all that there are; () is all of them."""
        return self.whole(code.decode(W_dec, self.dtype, prefixes or (len(W_dec),)))

    def whole(self, part: Tensor) -> Tensor:
        """The sum over all processes that hold features; the gradient is each one's own."""
        return self.ranks.whole_sum(part)

    def smallest(self, code: Code) -> Float[Tensor, ""]:
        """The least positive strength of the whole batch; infinite without one."""
        return self.ranks.smallest(code.smallest())
