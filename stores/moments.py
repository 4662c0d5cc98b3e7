"""What is known of a hook point's activations as a whole, summed in float64 while they are written."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Of all rows at one hook point, as stored, summed in float64 in the order of the shards."""

    n_rows: int
    mean: np.ndarray  # (d,)
    second_moment: np.ndarray  # (d,) E[x_i^2]
    max_abs: np.ndarray  # (d,)
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


def row_sums(x: np.ndarray) -> dict[str, np.ndarray]:
    """float64 sums over the rows of x (n, d) from which Moments follow."""
    x = x.astype(np.float64)
    squared = (x - x.mean(1, keepdims=True)) ** 2
    variance = squared.mean(1)
    fourth = (squared**2).mean(1)  # a fourth power would go through pow, 20 times as slow
    kurtosis = np.divide(fourth, variance**2, out=np.zeros_like(fourth), where=variance > 0)
    return {
        "n": np.asarray(float(len(x))),
        "sum": x.sum(0),
        "sum_sq": (x**2).sum(0),
        "max_abs": np.abs(x).max(0),
        "norm": np.sqrt((x**2).sum(1)).sum(),
        "kurtosis": kurtosis.sum(),
    }


def merge_sums(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The sums over all rows from those over parts of them. The order of the parts matters to the last bit."""
    merged = dict(parts[0])
    for part in parts[1:]:
        for key, value in part.items():
            merged[key] = np.maximum(merged[key], value) if key == "max_abs" else merged[key] + value
    return merged


def moments_from(sums: dict[str, np.ndarray]) -> Moments:
    """What the sums over all rows say."""
    n = float(sums["n"])
    return Moments(
        n_rows=int(n),
        mean=sums["sum"] / n,
        second_moment=sums["sum_sq"] / n,
        max_abs=sums["max_abs"],
        mean_norm=float(sums["norm"] / n),
        kurtosis=float(sums["kurtosis"] / n),
    )
