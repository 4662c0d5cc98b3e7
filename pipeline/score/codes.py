"""Sparse codes by their entries, and what a dictionary makes of them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from stores.dictionary import FeatureDictionary

_FEW = 1 / 8  # of a code's places: with more of them a whole product is faster


class Entries(NamedTuple):
    """Row i of a code has values[offsets[i]:offsets[i + 1]], which are not zero, at the features in indices."""

    values: Float[Tensor, " n_entries"]
    indices: Int64[Tensor, " n_entries"]
    offsets: Int64[Tensor, " rows_and_one"]

    @classmethod
    def of(cls, z: Float[Tensor, "n d_sae"]) -> "Entries":
        row, indices = z.nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(z))
        return cls(z[row, indices], indices, F.pad(counts.cumsum(0), (1, 0)))

    @property
    def l0(self) -> Int64[Tensor, " n"]:
        """How many each row has."""
        return self.offsets.diff()

    def decode(self, W_dec: Float[Tensor, "d_sae d_out"]) -> Float[Tensor, "n d_out"]:
        """z W_dec."""
        return F.embedding_bag(
            self.indices, W_dec, self.offsets, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )


def decoded(
    z: Float[Tensor, "n d_sae"], entries: Entries, W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "n d_out"]:
    """z W_dec, by the entries of z where they are few."""
    return entries.decode(W_dec) if len(entries.values) < _FEW * z.numel() else z @ W_dec


@torch.no_grad()
def reconstruct(dictionary: FeatureDictionary, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
    """What dictionary(x) is, without a gradient."""
    if not dictionary.sparse:
        return dictionary(x)
    rows = x.reshape(-1, x.shape[-1])
    z = dictionary.encode(rows)
    y_hat = decoded(z, Entries.of(z), dictionary.W_dec) + unencoded(dictionary, rows)
    return y_hat.reshape(*x.shape[:-1], dictionary.d_out)


def unencoded(dictionary: FeatureDictionary, x: Float[Tensor, "n d_in"]) -> Tensor:
    """What is added to z W_dec: b_dec, and x W_skip where there is one."""
    return dictionary.b_dec + x.float() @ dictionary.W_skip if dictionary.spec.skip else dictionary.b_dec
