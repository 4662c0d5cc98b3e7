"""The chance level of what is said of single features: their codes at rows that have nothing to do with them."""

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csc_array

from stores.manifest import seed_of


def shuffled(codes: csc_array, seed: int = 0) -> csc_array:
    """codes (n_rows, d_sae) with each feature's activations permuted over the rows, feature by feature.

    Each keeps its density and every strength; which rows they are at, with which others of them, and in which neighbourhood,
    is drawn uniformly from the seed. What scores as well on these codes says nothing of the text.
    """
    n_rows = codes.shape[0]  # pyright: ignore[reportOptionalSubscript]
    generator = np.random.default_rng(seed_of("shuffled", seed))
    counts = np.diff(codes.indptr)
    rows = [generator.choice(n_rows, n, replace=False) for n in counts]
    indices = np.concatenate([np.empty(0, np.int64), *rows]).astype(codes.indices.dtype)
    found = csc_array((codes.data.copy(), indices, codes.indptr.copy()), shape=codes.shape)
    found.sort_indices()  # and the strengths with them: choice gives rows in random order
    return found


def densest(codes: csc_array, n: int) -> Int64[np.ndarray, " n_found"]:
    """The n features that are active most often, in their order.

    They are the ones that chance favours: where a feature says something of a share q of the rows, and a label holds on a share
    p, their F1 by chance is 2 p q / (p + q), which grows with q.
    """
    return np.sort(np.argsort(-np.diff(codes.indptr), kind="stable")[:n]).astype(np.int64)
