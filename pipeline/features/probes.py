"""Probes: what one feature, a few of them, or all coordinates of an activation tell of labels.

Features, weights and thresholds are chosen on the rows of one half, and measured on those of the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import sparse
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from pipeline.features.probing import SortedCodes, aurocs, best_thresholds, f1_at

# The logistic probe minimises the mean of the log-loss plus this |w|²/2. With scikit-learn's default rare labels are separable
# and the F1 is where the solver stops: .757, .737, .724 at tolerances of 1e-3, 1e-4, 1e-6 (demo, residual stream, mean of 67
# labels).
_PENALTY = 0.01


@dataclass(frozen=True)
class SingleScores:
    """Each feature as a probe for each label. Of signed codes a second feature d_sae + i is the opposite of feature i.

    fit_: of the rows that thresholds are chosen on. The others are measured on the other rows. AUROC is NaN where a half
    has no row with the label, or none without.
    """

    d_sae: int
    fit_f1: Float64[np.ndarray, "n_features n_labels"]
    fit_auroc: Float64[np.ndarray, "n_features n_labels"]
    f1: Float64[np.ndarray, "n_features n_labels"]
    auroc: Float64[np.ndarray, "n_features n_labels"]


@dataclass(frozen=True)
class Probe:
    """Scores of labels on the rows that nothing was chosen on. features: those that are used, -1 where there are fewer."""

    features: Int64[np.ndarray, "n_labels k"]
    auroc: Float64[np.ndarray, " n_labels"]
    f1: Float64[np.ndarray, " n_labels"]


def single_scores(
    codes: sparse.csc_array, Y: Bool[np.ndarray, "n_rows n_labels"], first: Bool[np.ndarray, " n_rows"], signed: bool
) -> SingleScores:
    """first: the rows to choose on. signed: a feature may tell a label by being small, too."""
    found = []
    for turned in (codes, -codes) if signed else (codes,):
        fit, rest = (SortedCodes.of(part) for part in _halves(turned, first))
        fit_f1, thresholds = best_thresholds(fit, Y[first])
        found.append((fit_f1, aurocs(fit, Y[first]), f1_at(rest, Y[~first], thresholds), aurocs(rest, Y[~first])))
    return SingleScores(_d_sae(codes), *map(np.concatenate, zip(*found)))


def best_feature(scores: SingleScores) -> Probe:
    """Of each label the feature with the largest F1; its AUROC is that of the feature with the largest AUROC."""
    labels = np.arange(scores.f1.shape[1])
    chosen, by_auroc = scores.fit_f1.argmax(0), np.nan_to_num(scores.fit_auroc).argmax(0)
    return Probe((chosen % scores.d_sae)[:, None], scores.auroc[by_auroc, labels], scores.f1[chosen, labels])


def best_label(
    scores: SingleScores,
) -> tuple[Int64[np.ndarray, " d_sae"], Bool[np.ndarray, " d_sae"], np.ndarray, np.ndarray]:
    """(label, whether it is told by being small, AUROC, F1) of each feature: the label that it has the largest F1 for, in
    its better direction."""
    shape = (-1, scores.d_sae, scores.f1.shape[1])
    fit = scores.fit_f1.reshape(shape).transpose(1, 0, 2).reshape(scores.d_sae, -1)
    at = fit.argmax(1)
    direction, label = at // shape[2], at % shape[2]
    rows = direction * scores.d_sae + np.arange(scores.d_sae)
    return label, direction > 0, scores.auroc[rows, label], scores.f1[rows, label]


def few_features(
    codes: sparse.csc_array,
    Y: Bool[np.ndarray, "n_rows n_labels"],
    first: Bool[np.ndarray, " n_rows"],
    begin: Int64[np.ndarray, " n_labels"],
    sizes: Sequence[int] = (2, 5),
) -> dict[int, Probe]:
    """By size, linear probes on at most so many features of each label: from its feature in begin on, each time the
    feature that goes best with what the least-squares fit leaves (orthogonal matching pursuit, Pati et al. 1993). Of the
    fits up to a size the one with the largest F1 is taken.
    """
    fit, _ = _halves(codes, first)
    chosen, weights = _pursued(fit, Y[first], begin, max(sizes))
    tried = sorted({1, *sizes})
    scores = [_probed(codes, Y, first, chosen[:, :k], weights[k - 1]) for k in tried]
    fit_f1, f1, auroc = (np.stack(columns) for columns in zip(*scores))
    labels, found = np.arange(Y.shape[1]), {}
    for size in sizes:
        best = fit_f1[: tried.index(size) + 1].argmax(0)
        used = np.where(np.arange(size) < np.array(tried)[best, None], chosen[:, :size], -1)
        found[size] = Probe(used, auroc[best, labels], f1[best, labels])
    return found


# Two threads wait for each other at thousands of small products: 55 s of CPU for 1.6 s (67 labels, d 192, a busy machine).
@threadpool_limits.wrap(limits=1, user_api="blas")
def all_coordinates(
    x: Float[np.ndarray, "n_rows d"], Y: Bool[np.ndarray, "n_rows n_labels"], first: Bool[np.ndarray, " n_rows"]
) -> Probe:
    """A logistic probe on all coordinates of activations: scikit-learn's, on standardised coordinates."""
    from sklearn.linear_model import LogisticRegression

    mean, sd = x[first].mean(0, dtype=np.float64), x[first].std(0, dtype=np.float64)
    x = ((x - mean) / np.where(sd > 0, sd, 1)).astype(np.float32)
    told, fitted = np.flatnonzero(Y[first].any(0) & ~Y[first].all(0)), x[first]
    how: dict[str, Any] = {"C": 1 / (_PENALTY * max(1, len(fitted))), "tol": 1e-4, "max_iter": 1000}
    fits = [LogisticRegression(**how).fit(fitted, Y[first, label]) for label in told]
    scores = np.zeros(Y.shape)
    for label, fit in zip(told, fits, strict=True):
        scores[:, label] = fit.decision_function(x)
    _, f1, auroc = _scored(scores, Y, first)
    known = np.isin(np.arange(Y.shape[1]), told)
    return Probe(np.full((Y.shape[1], 0), -1), np.where(known, auroc, np.nan), np.where(known, f1, 0))


def _d_sae(codes: sparse.csc_array) -> int:
    return cast(tuple[int, int], codes.shape)[1]


def _halves(codes: sparse.csc_array, first: Bool[np.ndarray, " n_rows"]) -> Iterator[sparse.csc_array]:
    for half in (first, ~first):
        yield sparse.csc_array(codes[np.flatnonzero(half)])


def _scored(
    scores: Float64[np.ndarray, "n_rows n_labels"],
    Y: Bool[np.ndarray, "n_rows n_labels"],
    first: Bool[np.ndarray, " n_rows"],
) -> Float64[np.ndarray, "3 n_labels"]:
    """Of scores of each label its F1 on the first half, its F1 and AUROC on the other. Any score may be the threshold; of
    two that are as good the larger one."""
    fit, rest = (np.ascontiguousarray(scores[half].T) for half in (first, ~first))
    y, y_rest = (np.ascontiguousarray(Y[half].T) for half in (first, ~first))
    order = np.argsort(-fit, axis=1)
    fit, n_true = np.take_along_axis(fit, order, 1), np.take_along_axis(y, order, 1).cumsum(1)
    f1 = 2 * n_true / (np.arange(1, fit.shape[1] + 1) + n_true[:, -1:])
    f1[:, :-1][fit[:, :-1] == fit[:, 1:]] = 0  # a threshold is reached by all scores that equal it
    fit_f1 = f1.max(1)
    threshold = np.where(fit_f1 > 0, fit[np.arange(len(fit)), f1.argmax(1)], np.inf)
    said = rest >= threshold[:, None]
    n_said = said.sum(1) + y_rest.sum(1)
    return np.stack([fit_f1, 2 * (said & y_rest).sum(1) / np.maximum(n_said, 1), _dense_aurocs(rest, y_rest)])


def _dense_aurocs(
    scores: Float64[np.ndarray, "n_labels n"], Y: Bool[np.ndarray, "n_labels n"]
) -> Float64[np.ndarray, " n_labels"]:
    """Of each row of scores for its own row of labels, by rank sums: see aurocs."""
    n, n_label = Y.shape[1], Y.sum(1)
    with np.errstate(invalid="ignore"):
        return ((rankdata(scores, axis=1) * Y).sum(1) - n_label * (n_label + 1) / 2) / (n_label * (n - n_label))


def _probed(
    codes: sparse.csc_array,
    Y: Bool[np.ndarray, "n_rows n_labels"],
    first: Bool[np.ndarray, " n_rows"],
    chosen: Int64[np.ndarray, "n_labels k"],
    weights: Float64[np.ndarray, "n_labels k"],
) -> Float64[np.ndarray, "3 n_labels"]:
    """Each label's F1 on the first half, F1 and AUROC."""
    n_labels, k = chosen.shape
    shape = (_d_sae(codes), n_labels)
    columns = np.repeat(np.arange(n_labels), k)
    scores = sparse.csc_array(codes @ sparse.csc_array((weights.ravel(), (chosen.ravel(), columns)), shape=shape))
    return _scored(scores.toarray(), Y, first)


def _pursued(
    codes: sparse.csc_array, Y: Bool[np.ndarray, "n n_labels"], begin: Int64[np.ndarray, " n_labels"], k: int
) -> tuple[Int64[np.ndarray, "n_labels _"], list[Float64[np.ndarray, "n_labels _"]]]:
    """The k features of each label in the order in which they are taken, and the weights of each number of them.

    From products of columns alone: cov is of each feature with the taken ones, target of each feature with each label.
    """
    n, labels = len(Y), np.arange(Y.shape[1])
    mean = np.asarray(codes.mean(0))
    spread = np.sqrt(np.maximum(np.asarray((codes * codes).mean(0)) - mean**2, 0))
    target = codes.T @ Y.astype(np.float64) / n - mean[:, None] * Y.mean(0)
    chosen, weights = begin[:, None], []
    while True:
        used = np.unique(chosen)
        cov = codes.T @ codes[:, used].toarray() / n - mean[:, None] * mean[used]
        at = np.searchsorted(used, chosen)
        own = [np.linalg.lstsq(cov[f][:, i], target[f, l], rcond=1e-10)[0] for l, (f, i) in enumerate(zip(chosen, at))]
        weights.append(np.stack(own))
        if chosen.shape[1] == k:
            return chosen, weights
        left = target - np.stack([cov[:, i] @ w for i, w in zip(at, own)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = np.nan_to_num(abs(left) / spread[:, None], nan=0, posinf=0)
        fits[chosen, labels[:, None]] = -1
        chosen = np.concatenate([chosen, fits.argmax(0)[:, None]], axis=1)
