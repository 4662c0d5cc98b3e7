"""The products of a training step: in what dtype, by dense or sparse codes, by whom."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.train.codes import Code, Dense, Sparse
from pipeline.train.dense_cpu import EncodeAmong, EncodePositive, columns
from pipeline.train.kernels import Encode, Entries, Shared, matmul
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.selections import OfEachRow, Positive, Selection

_SPARSE_BELOW = 0.05  # density; below it the sparse products are faster on a CPU (equal at .065 for d_in = 768)

_SPARSE_AMONG_BELOW = 0.03  # where the encoder's product is there already: equal at .02 with AMX, at more without


@dataclass(frozen=True)
class Products:
    """dtype: of the matrix products. dense: codes are dense, and take no turns by what the numbers are, so that
    torch.func.vmap can do several dictionaries at once. ranks: who holds the other rows, or the other features."""

    dtype: torch.dtype = torch.float32
    dense: bool = True
    ranks: Ranks = ALONE

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
        if not self.dense and (select.few or (x.device.type == "cpu" and float(density) < _SPARSE_BELOW)):
            ranks, shared = self.ranks, Shared(len(W_enc))
            choose: Callable[[Tensor], Entries] = lambda pre: select.entries(pre, ranks)  # noqa: E731
            entries = Encode.apply(x, W_enc, b_enc, choose, self.dtype, shared)
            return Sparse(Entries(*entries), shared)  # type: ignore[misc]
        if not self.dense and isinstance(select, Positive) and x.device.type == "cpu":
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
    ) -> Code:
        """The code of x by some of the latents. code: of the same x by all of them."""
        if self.dense:
            assert isinstance(code, Dense)
            assert code.pre is not None
            return Dense(select.dense(torch.where(latents, code.pre, 0.0)))  # a selected 0 is no entry
        own = latents.nonzero().squeeze(1)
        known = code.shared.pre if isinstance(code, Sparse) else None
        if known is not None and isinstance(select, OfEachRow) and not self.ranks.splits_features:
            known, shared = columns(known, own), Shared(len(W_enc))
            if select.k < _SPARSE_AMONG_BELOW * len(own):
                among = select.entries(known)
                among = among._replace(indices=own[among.indices])
                entries = Encode.apply(x, W_enc, b_enc, lambda pre: among, self.dtype, shared, known)
                return Sparse(Entries(*entries), shared)  # type: ignore[misc]
            return Dense(EncodeAmong.apply(x, W_enc, b_enc, own, known, select.mask(known)), own)  # type: ignore[arg-type]
        pre = self.pre(x, W_enc[own], b_enc[own]).float()
        return Dense(select.dense(pre, self.ranks), own)

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
