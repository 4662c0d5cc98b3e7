"""How well numbers tell what has a quality from what has not."""

import numpy as np
from scipy import stats


def aurocs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x (n, d), y (n, m) bool → (m, d): the probability that a column of x is higher where the quality is, ties counted
    half, by rank sums (Mann and Whitney 1947). ½ by chance; nan where all have the quality or none."""
    ranks = stats.rankdata(np.ascontiguousarray(x.T), axis=1).T  # twice as fast as down the columns
    n = y.sum(0)[:, None]
    with np.errstate(invalid="ignore"):
        return (y.T.astype(float) @ ranks - n * (n + 1) / 2) / (n * (len(y) - n))
