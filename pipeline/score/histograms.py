"""How often, and how strongly, each feature is active: streaming, in logarithmic bins."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from pipeline.score.codes import Entries

# Half-octave bins of |z| from 2^-20 to 2^20; what lies beyond counts in the first or the last.
LOG2_MIN, LOG2_MAX, PER_OCTAVE = -20, 20, 2
N_BINS = (LOG2_MAX - LOG2_MIN) * PER_OCTAVE
_SQRT2 = 0x3504F4  # the bits of the least float32 mantissa above √2


def bin_edges() -> Float64[np.ndarray, " n_edges"]:
    """N_BINS + 1 edges of the bins of |z|."""
    return 2.0 ** (LOG2_MIN + np.arange(N_BINS + 1) / PER_OCTAVE)


@dataclass
class ActivationHistogram:
    """Counts of |z| given z ≠ 0, per feature, and of how many features a row has."""

    counts: Int64[Tensor, "d_sae n_bins"]
    l0: Int64[Tensor, " d_sae+1"]  # rows with 0, 1, … active features
    n_rows: int = 0

    @classmethod
    def empty(cls, d_sae: int) -> "ActivationHistogram":
        return cls(torch.zeros(d_sae, N_BINS, dtype=torch.long), torch.zeros(d_sae + 1, dtype=torch.long))

    def add(self, code: Entries) -> None:
        """code: of some rows, of float32."""
        bits = code.values.view(torch.int32)
        octave, mantissa = bits.bitwise_right_shift(23).bitwise_and_(0xFF), bits & 0x7FFFFF
        # |z| = m 2^(octave - 127) with m in [1, 2): log2|z| = octave - 127 + (m ≥ √2 ? ½ : 0) to half an octave, exactly
        place = (octave - 127 - LOG2_MIN) * PER_OCTAVE + (mantissa >= _SQRT2)
        flat = (code.indices * N_BINS + place.clamp_(0, N_BINS - 1)).cpu()
        counts = self.counts.view(-1)
        if len(flat) < len(counts):
            counts.index_add_(0, flat, torch.ones_like(flat))
        else:  # bincount makes all bins anew: ten million of 131,072 features, too many for a small batch
            counts += torch.bincount(flat, minlength=len(counts))
        self.l0 += torch.bincount(code.l0, minlength=len(self.l0)).cpu()
        self.n_rows += len(code.l0)

    def merge(self, later: "ActivationHistogram") -> None:
        """later: of other rows."""
        self.counts += later.counts
        self.l0 += later.l0
        self.n_rows += later.n_rows

    def arrays(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts.numpy(), "l0": self.l0.numpy(), "n_rows": np.int64(self.n_rows)}  # type: ignore[dict-item]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "ActivationHistogram":
        """What `arrays` gave. Raises ValueError: it is none of that."""
        counts, l0, n_rows = (arrays.get(name, np.zeros(0)) for name in ("counts", "l0", "n_rows"))
        shapes = counts.shape, l0.shape, n_rows.shape
        if shapes != ((len(l0) - 1, N_BINS), (len(l0),), ()) or {counts.dtype, l0.dtype, n_rows.dtype} != {
            np.dtype("int64")
        }:
            raise ValueError(f"counts, l0, n_rows are {shapes}, expected int64 (d_sae, {N_BINS}), (d_sae + 1), ()")
        return cls(torch.from_numpy(counts), torch.from_numpy(l0), int(n_rows))

    @property
    def density(self) -> Float64[Tensor, " d_sae"]:
        """The fraction of rows on which a feature is active."""
        return self.counts.sum(1).double() / max(1, self.n_rows)

    @property
    def mean_l0(self) -> float:
        return float(self.counts.sum()) / max(1, self.n_rows)

    def l0_quantile(self, q: float) -> int:
        """The smallest number of active features that at least a fraction q of the rows does not exceed."""
        return int(torch.searchsorted(self.l0.cumsum(0).double(), q * self.n_rows))
