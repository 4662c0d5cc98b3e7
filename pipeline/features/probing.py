"""How well single features tell labels: AUROC and F1 of every feature for every label.

A feature says that a label holds where its activation is at least a threshold, one of the values that it takes where it is
not zero. In sorted columns both scores follow from where the label's rows stand, so that zeros cost nothing.
"""

from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer
from scipy import sparse


@dataclass(frozen=True)
class SortedCodes:
    """Codes (n_rows, d_sae), the entries of each feature from the largest to the smallest.

    starts: where each feature's entries begin. reach: how many rows have at least an entry's value; zeros lie between
    positive and negative entries.
    """

    n_rows: int
    rows: Integer[np.ndarray, " n_entries"]
    values: Float[np.ndarray, " n_entries"]
    starts: Integer[np.ndarray, " _"]
    reach: Int64[np.ndarray, " n_entries"]

    @classmethod
    def of(cls, codes: sparse.csc_array) -> Self:
        """Raises ValueError: a value is not finite."""
        codes = codes.copy()
        codes.eliminate_zeros()
        n_rows, _ = cast(tuple[int, int], codes.shape)
        starts, rows, values = (np.array(a) for a in (codes.indptr, codes.indices, codes.data))
        if not np.isfinite(values).all():
            raise ValueError("codes are not all finite")
        for a, b in zip(starts[:-1].tolist(), starts[1:].tolist()):
            order = np.argsort(np.negative(values[a:b]), kind="stable")
            rows[a:b], values[a:b] = rows[a:b][order], values[a:b][order]
        column = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        last = np.ones(len(values), bool)  # of the entries of a feature that have the same value
        last[:-1] = (values[1:] != values[:-1]) | (column[1:] != column[:-1])
        ends = np.flatnonzero(last)
        reach = np.repeat(ends + 1, np.diff(ends, prepend=-1)) - starts[column]
        n_zeros = n_rows - np.diff(starts)
        return cls(n_rows, rows, values, starts, reach + np.where(values < 0, n_zeros[column], 0))

    @property
    def d_sae(self) -> int:
        return len(self.starts) - 1

    @property
    def columns(self) -> Int64[np.ndarray, " n_entries"]:
        return np.repeat(np.arange(self.d_sae), np.diff(self.starts))


def aurocs(codes: SortedCodes, Y: Bool[np.ndarray, "n_rows n_labels"]) -> Float64[np.ndarray, "d_sae n_labels"]:
    """The probability that a feature is larger on a row with the label than on one without, ties counted half; ½ by
    chance, nan where all rows have the label or none. A feature that is smaller there has less than ½.

    By rank sums (Mann and Whitney 1947): a row's rank counts from the ranks of the zeros, so that only entries are summed.
    """
    n, columns = codes.n_rows, codes.columns
    first = np.ones(len(columns), bool)
    first[1:] = (codes.reach[1:] != codes.reach[:-1]) | (columns[1:] != columns[:-1])
    size = np.diff(np.append(np.flatnonzero(first), len(columns)))
    n_above = codes.reach - np.repeat(size, size)
    rank = n - (n_above + codes.reach - 1) / 2  # the mean of n - n_above, …, n + 1 - reach
    n_positive = np.bincount(columns[codes.values > 0], minlength=codes.d_sae)
    n_negative = np.diff(codes.starts) - n_positive
    zero_rank = (n_negative + n - n_positive + 1) / 2
    moved = sparse.csr_array((rank - zero_rank[columns], codes.rows, codes.starts), shape=(codes.d_sae, n))
    n_label = Y.sum(0).astype(np.float64)
    sums = moved @ Y.astype(np.float64) + zero_rank[:, None] * n_label
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums - n_label * (n_label + 1) / 2) / (n_label * (n - n_label))


def best_thresholds(
    codes: SortedCodes, Y: Bool[np.ndarray, "n_rows n_labels"]
) -> tuple[Float64[np.ndarray, "d_sae n_labels"], Float[np.ndarray, "d_sae n_labels"]]:
    """(F1, threshold) of the threshold with the largest F1 = 2 TP / (TP + FP + TP + FN), the larger one of two.

    0 and infinity where that is 0.
    """
    shape = (codes.d_sae, Y.shape[1])
    f1, thresholds = np.zeros(shape), np.full(shape, np.inf, codes.values.dtype)
    columns, is_negative = codes.columns, codes.values < 0
    first_negative = is_negative & (np.append(True, ~is_negative[:-1]) | (np.diff(columns, prepend=-1) > 0))
    for label, n_label in enumerate(Y.sum(0).tolist()):
        has = Y[:, label][codes.rows]
        at = np.flatnonzero(has | first_negative)  # F1 grows where the label is found, and where zeros are
        if not len(at):
            continue
        column, n_before = columns[at], np.append(0, np.cumsum(has[at]))
        begins = np.searchsorted(column, np.arange(codes.d_sae + 1))
        n_true = n_before[1:] - n_before[begins[column]]
        n_true += is_negative[at] * (n_label - np.diff(n_before[begins]))[column]  # zeros that have the label
        found = 2 * n_true / (codes.reach[at] + n_label)
        used = np.flatnonzero(np.diff(begins))
        f1[used, label] = np.maximum.reduceat(found, begins[used])
        best = at[found == f1[column, label]][::-1]
        thresholds[columns[best], label] = codes.values[best]  # the first of several, which is written last
    return f1, np.where(f1 > 0, thresholds, codes.values.dtype.type(np.inf))


def f1_at(
    codes: SortedCodes, Y: Bool[np.ndarray, "n_rows n_labels"], thresholds: Float[np.ndarray, "d_sae n_labels"]
) -> Float64[np.ndarray, "d_sae n_labels"]:
    """F1 of each feature for each label at a threshold of its own, as on other rows than those it was chosen on."""
    n_above = np.zeros(thresholds.shape, np.int64)
    for feature, (a, b) in enumerate(zip(codes.starts[:-1].tolist(), codes.starts[1:].tolist())):
        n_above[feature] = np.searchsorted(-codes.values[a:b], -thresholds[feature], side="right")
    zeros = thresholds <= 0  # rows that are zero are above such a threshold, too
    n_rows = n_above + zeros * (codes.n_rows - np.diff(codes.starts))[:, None]
    f1 = np.zeros(thresholds.shape)
    for label, n_label in enumerate(Y.sum(0).tolist()):
        at = np.flatnonzero(Y[:, label][codes.rows])
        begins = np.searchsorted(at, codes.starts)
        n_true = np.searchsorted(at, codes.starts[:-1] + n_above[:, label]) - begins[:-1]
        n_true += zeros[:, label] * (n_label - np.diff(begins))
        f1[:, label] = 2 * n_true / np.maximum(n_rows[:, label] + n_label, 1)
    return f1


def both_signs(codes: sparse.csc_array) -> sparse.csc_array:
    """(n_rows, 2 d_sae): what is positive of each feature, then what is negative of each with its sign turned.

    So a signed feature and its opposite are two features that are never active together.
    """
    parts = []
    for sign in (1, -1):
        part = codes.copy()
        part.data = np.maximum(sign * part.data, 0)
        part.eliminate_zeros()
        parts.append(part)
    return sparse.csc_array(sparse.hstack(parts, format="csc"))


def always(Y: Bool[np.ndarray, "n_rows n_labels"]) -> Float[np.ndarray, " n_labels"]:
    """F1 of saying that a label holds everywhere: what a frequent label gives for nothing."""
    share = Y.mean(0)
    return 2 * share / (1 + share)
