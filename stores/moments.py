"""What is known of a hook point's activations as a whole, summed in float64 while they are written."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped

from stores.description import from_stored, stored_width

Sums = dict[str, Float64[np.ndarray, "..."]]  # over rows, by quantity: of each coordinate (d,), or one number ()
_BLOCK_ROWS = 64  # of 3,072 float64 coordinates: 1.5 MB


@dataclass(frozen=True)
class Moments:
    """Of the finite training rows at one hook point, as stored, summed in float64 in the order of the shards."""

    n_rows: int
    mean: Float64[np.ndarray, " d"]
    second_moment: Float64[np.ndarray, " d"]  # E[x_i^2]
    max_abs: Float64[np.ndarray, " d"]
    mean_norm: float  # E|x|
    kurtosis: float  # mean over rows of the kurtosis over coordinates; 3 for a normal row

    @property
    def total_variance(self) -> float:
        """E|x - mean|^2."""
        return float((self.second_moment - self.mean**2).sum())

    @property
    def scale(self) -> float:
        """What x is multiplied by so that E|x - mean|^2 = d: 1 for constant rows."""
        return math.sqrt(len(self.mean) / self.total_variance) if self.total_variance > 0 else 1.0


def no_sums(d: int) -> Sums:
    """row_sums of no row."""
    vectors = {name: np.zeros(d) for name in ("sum", "sum_sq", "max_abs")}
    return {"n": np.zeros(()), **vectors, "norm": np.zeros(()), "kurtosis": np.zeros(())}


def row_sums(x: Shaped[np.ndarray, "n d_stored"], dtype: str) -> tuple[Sums, Int64[np.ndarray, " n_bad"]]:
    """float64 sums from which Moments follow, over those rows of x that are finite; and which rows are not.

    x: as stored in dtype, (n, d + 4) in int8. The kurtosis comes from the raw moments,
    E(x-m)^4 = E x^4 - 4m E x^3 + 6m^2 E x^2 - 3m^4: in float64 the cancellation costs nothing that matters, and each block
    is read once, while it lies in the cache.
    """
    d = x.shape[1] - stored_width(0, dtype)
    totals = no_sums(d)
    bad = []
    for start in range(0, len(x), _BLOCK_ROWS):
        single = _float32(x[start : start + _BLOCK_ROWS], dtype)
        block = single.astype(np.float64)
        square = block * block
        s2 = square.sum(1)
        finite = np.isfinite(s2)  # the square of every finite float32 is
        if not finite.all():
            bad.append(start + np.flatnonzero(~finite))
            single, block, square, s2 = single[finite], block[finite], square[finite], s2[finite]
        mean, m2 = block.mean(1), s2 / d
        m3, m4 = np.einsum("nd,nd->n", square, block) / d, np.einsum("nd,nd->n", square, square) / d
        variance = m2 - mean**2
        central = m4 - 4 * mean * m3 + 6 * mean**2 * m2 - 3 * mean**4
        spread = variance > 1e-12 * m2  # else the row is constant, as far as can be told
        totals["n"] += len(block)
        totals["sum"] += block.sum(0)
        totals["sum_sq"] += square.sum(0)
        np.maximum(totals["max_abs"], np.abs(single, out=single).max(0, initial=0.0), out=totals["max_abs"])
        totals["norm"] += np.sqrt(s2).sum()
        totals["kurtosis"] += np.divide(central, variance**2, out=np.zeros_like(central), where=spread).sum()
    return totals, np.concatenate(bad) if bad else np.empty(0, np.int64)


def _float32(x: Shaped[np.ndarray, "n d_stored"], dtype: str) -> Float32[np.ndarray, "n d"]:
    """A copy. NumPy converts float16 a number at a time, PyTorch with the processor's own instruction."""
    if dtype == "float16":
        return torch.from_numpy(x).float().numpy()
    return from_stored(x, dtype).astype(np.float32)


def merge_sums(parts: list[Sums]) -> Sums:
    """The sums over all rows from those over parts of them. The order of the parts matters to the last bit."""
    merged = dict(parts[0])
    for part in parts[1:]:
        for key, value in part.items():
            merged[key] = np.asarray(np.maximum(merged[key], value) if key == "max_abs" else merged[key] + value)
    return merged


def moments_from(sums: Sums) -> Moments:
    """What the sums over all rows say. Raises ValueError: there is no row."""
    n = float(sums["n"])
    if not n:
        raise ValueError("no row is finite")
    return Moments(
        n_rows=int(n),
        mean=sums["sum"] / n,
        second_moment=sums["sum_sq"] / n,
        max_abs=sums["max_abs"],
        mean_norm=float(sums["norm"] / n),
        kurtosis=float(sums["kurtosis"] / n),
    )
