"""Which features are active together."""

import numpy as np
from jaxtyping import Float32, Int64
from scipy import sparse

_BLOCK = 1024  # features at a time: their products are sparse, but not always by much


def cofiring(codes: sparse.csc_array, n: int) -> tuple[Int64[np.ndarray, "d_sae n"], Float32[np.ndarray, "d_sae n"]]:
    """(features, φ): of each feature the n others with the largest φ coefficient, largest first; -1 and nan where fewer are
    active with it.

    φ = (n₁₁ N - n₁ n₂) / √(n₁ n₂ (N - n₁) (N - n₂)), the correlation of being active (≠ 0) over N rows: 1 always together, 0
    as often as chance has it. codes: (n_rows, d_sae).
    """
    n_rows, d_sae = codes.shape  # type: ignore[misc]
    active = sparse.csc_array((np.ones(codes.nnz), codes.indices, codes.indptr), codes.shape)
    active.data[codes.data == 0] = 0
    active.eliminate_zeros()
    counts = np.asarray(active.sum(0), np.float64).ravel()
    spread = np.sqrt(counts * (n_rows - counts))
    features = np.full((d_sae, n), -1, np.int64)
    values = np.full((d_sae, n), np.nan, np.float32)
    for start in range(0, d_sae, _BLOCK):
        both = sparse.csr_array(active[:, start : start + _BLOCK].T @ active)
        both.sort_indices()
        own, other = start + np.repeat(np.arange(len(both.indptr) - 1), np.diff(both.indptr)), both.indices
        kept = (own != other) & (spread[own] * spread[other] > 0)
        own, other, joint = own[kept], other[kept], both.data[kept]
        phi = (joint * n_rows - counts[own] * counts[other]) / (spread[own] * spread[other])
        used, begins = np.unique(own, return_index=True)
        row = np.repeat(np.arange(len(used)), np.diff(begins, append=len(own)))
        for place in range(n if len(own) else 0):  # the best that is left of each
            best = np.maximum.reduceat(phi, begins)
            at = np.flatnonzero((phi == best[row]) & (phi > -np.inf))
            _, one = np.unique(row[at], return_index=True)  # of equal ones the first feature
            at = at[one]
            features[own[at], place], values[own[at], place] = other[at], phi[at]
            phi[at] = -np.inf
    return features, values
