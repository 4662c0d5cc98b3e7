"""The code of a batch: dense, or its entries that are not zero. Families use it without asking which."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pipeline.train.dense_cpu import column_counts
from pipeline.train.kernels import Decode, Entries, Shared, matmul


class Code(ABC):
    """z (batch, n): the strengths of n features, which are all that there are, or those held or looked at here. pre: what
    they were selected from, if it is kept."""

    pre: Float[Tensor, "batch n"] | None

    @abstractmethod
    def decode(
        self, W_dec: Float[Tensor, "n d_out"], dtype: torch.dtype, prefixes: tuple[int, ...]
    ) -> Float[Tensor, "n_prefixes batch d_out"]:
        """What the first prefixes[i] features make. prefixes: rising, the last one all. dtype: of dense products, and of the
        tables that sparse ones gather on a device."""

    @abstractmethod
    def total(
        self, of: Callable[[Tensor], Tensor] | None = None, weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, ""]:
        """Σ of(z_i) weights_i, averaged over the rows; of: elementwise, with of(0) = 0; by default the strengths
        themselves."""

    @abstractmethod
    def l0(self) -> Float[Tensor, ""]:
        """How many are not 0, averaged over the rows. No gradient."""

    @abstractmethod
    def fired(self) -> Bool[Tensor, " n"]:
        """Which are not 0 in some row."""

    @abstractmethod
    def smallest(self) -> Float[Tensor, ""]:
        """The least positive strength; infinite without one. No gradient."""


@dataclass(frozen=True)
class Dense(Code):
    """latents: which of a dictionary's features these are, None: all of them. sums: over the rows, if they are there
    already, on a CPU."""

    z: Float[Tensor, "batch n"]
    latents: Int64[Tensor, " n"] | None = None
    pre: Float[Tensor, "batch n"] | None = None
    sums: Float[Tensor, " n"] | None = None

    def decode(
        self, W_dec: Float[Tensor, "n d_out"], dtype: torch.dtype, prefixes: tuple[int, ...]
    ) -> Float[Tensor, "n_prefixes batch d_out"]:
        if self.latents is not None:
            W_dec = W_dec.index_select(0, self.latents)  # the gradient of W_dec[latents] adds up row by row
        if len(prefixes) == 1:  # the gradient of a part is a copy
            return matmul(self.z, W_dec, dtype).float()[None]
        made, before = [], 0
        for end in prefixes:
            own = matmul(self.z[:, before:end], W_dec[before:end], dtype).float()
            made.append(made[-1] + own if made else own)
            before = end
        return torch.stack(made)

    def total(
        self, of: Callable[[Tensor], Tensor] | None = None, weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, ""]:
        if of is None and self.sums is not None:
            by_feature = self.sums
        else:
            by_feature = (of(self.z.float()) if of else self.z).sum(0, dtype=torch.float32)
        return (by_feature if weights is None else by_feature * weights).sum() / len(self.z)

    def l0(self) -> Float[Tensor, ""]:
        if self.sums is not None:
            return self._counts.sum().float() / len(self.z)
        return self._active.sum(dtype=torch.float32) / len(self.z)

    def fired(self) -> Bool[Tensor, " n"]:
        return self._active.any(0) if self.sums is None else self._counts > 0

    @cached_property
    def _counts(self) -> Int64[Tensor, " n"]:
        return column_counts(self.z)

    @cached_property
    def _active(self) -> Bool[Tensor, "batch n"]:
        return self.z.detach().bool()

    def smallest(self) -> Float[Tensor, ""]:
        z = self.z.detach()
        return torch.where(z > 0, z, torch.inf).min()


@dataclass(frozen=True)
class Sparse(Code):
    """shared: what the backward passes of its encoder and its decoders have in common. pre: what the entries were selected
    from, of which the auxiliary loss selects again."""

    entries: Entries
    shared: Shared
    pre: Float[Tensor, "batch n"] | None = None

    def decode(
        self, W_dec: Float[Tensor, "n d_out"], dtype: torch.dtype, prefixes: tuple[int, ...]
    ) -> Float[Tensor, "n_prefixes batch d_out"]:
        return Decode.apply(*self.entries, W_dec, prefixes, self.shared, dtype)  # type: ignore[return-value]

    def total(
        self, of: Callable[[Tensor], Tensor] | None = None, weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, ""]:
        own = of(self.entries.values) if of else self.entries.values
        if weights is not None:  # not weights[indices]: on a CPU its gradient's sums are in any order
            own = own * F.embedding(self.entries.indices, weights[:, None])[:, 0]
        return own.sum() / self._n_rows

    def l0(self) -> Float[Tensor, ""]:
        return (self.entries.values.detach() != 0).sum() / self._n_rows

    def fired(self) -> Bool[Tensor, " n"]:
        values, indices, _ = self.entries
        n = self.shared.d_sae
        found = torch.zeros(n + 1, dtype=torch.bool, device=values.device)
        return found.index_fill_(0, torch.where(values != 0, indices, n), True)[:n]

    def smallest(self) -> Float[Tensor, ""]:
        values = self.entries.values.detach()
        values = torch.where(values > 0, values, torch.inf)
        return torch.cat([values, torch.full((1,), torch.inf, device=values.device)]).min()

    @property
    def _n_rows(self) -> int:
        return len(self.entries.offsets) - 1
