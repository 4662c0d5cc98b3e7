"""AUROC and F1 of all features for all labels are scikit-learn's, and those of trying every threshold."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score, roc_auc_score

from pipeline.features.probing import SortedCodes, always, aurocs, best_thresholds, both_signs, f1_at


def codes_and_labels(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 12) codes with many ties and an empty column, and (n, 5) labels that some of them tell."""
    rng = np.random.default_rng(0)
    n = 300
    z = rng.integers(1, 7, (n, 12)).astype(np.float32) / 2
    if kind != "dense":
        z *= rng.random((n, 12)) < rng.random(12) * 0.6
    if kind != "positive":
        z *= rng.choice([-1, 1], (n, 12))
    z[:, 3] = 0
    y = np.stack([z[:, 0] > 1, z[:, 1] < 0.5, rng.random(n) < 0.1, abs(z[:, 2]) > 2, rng.random(n) < 0.7], axis=1)
    return z, y


KINDS = pytest.mark.parametrize("kind", ["positive", "signed", "dense"])


@KINDS
def test_aurocs_are_those_of_scikit_learn(kind: str) -> None:
    z, y = codes_and_labels(kind)
    found = aurocs(SortedCodes.of(sparse.csc_array(z)), y)
    for feature in range(z.shape[1]):
        for label in range(y.shape[1]):
            assert found[feature, label] == pytest.approx(roc_auc_score(y[:, label], z[:, feature]), abs=1e-12)


@KINDS
def test_the_best_threshold_is_that_of_trying_all(kind: str) -> None:
    z, y = codes_and_labels(kind)
    f1, thresholds = best_thresholds(SortedCodes.of(sparse.csc_array(z)), y)
    for feature in range(z.shape[1]):
        for label in range(y.shape[1]):
            tried = {t: f1_score(y[:, label], z[:, feature] >= t) for t in set(z[z[:, feature] != 0, feature].tolist())}
            assert f1[feature, label] == pytest.approx(max(tried.values(), default=0), abs=1e-12)
            if f1[feature, label]:
                best = max(t for t, value in tried.items() if value >= f1[feature, label] - 1e-12)
                assert thresholds[feature, label] == best


@KINDS
def test_f1_at_a_threshold_is_that_of_scikit_learn_on_other_rows(kind: str) -> None:
    z, y = codes_and_labels(kind)
    _, thresholds = best_thresholds(SortedCodes.of(sparse.csc_array(z[:150])), y[:150])
    found = f1_at(SortedCodes.of(sparse.csc_array(z[150:])), y[150:], thresholds)
    for feature in range(z.shape[1]):
        for label in range(y.shape[1]):
            said = z[150:, feature] >= thresholds[feature, label]
            assert found[feature, label] == pytest.approx(f1_score(y[150:, label], said, zero_division=0), abs=1e-12)


def test_a_label_of_all_rows_or_of_none_has_no_auroc() -> None:
    z = sparse.csc_array(np.eye(4, dtype=np.float32))
    y = np.stack([np.zeros(4, bool), np.ones(4, bool)], axis=1)
    assert np.isnan(aurocs(SortedCodes.of(z), y)).all()


def test_a_signed_feature_and_its_opposite_are_two() -> None:
    z, _ = codes_and_labels("signed")
    both = both_signs(sparse.csc_array(z)).toarray()
    assert np.array_equal(both[:, :12] - both[:, 12:], z)
    assert np.array_equal(np.minimum(both[:, :12], both[:, 12:]), np.zeros_like(z))


def test_saying_always_has_the_f1_of_scikit_learn() -> None:
    _, y = codes_and_labels("positive")
    assert always(y) == pytest.approx([f1_score(y[:, i], np.ones(len(y), bool)) for i in range(y.shape[1])])


def test_codes_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not all finite"):
        SortedCodes.of(sparse.csc_array(np.array([[1, np.nan]], np.float32)))
