"""Probes of one, a few and all coordinates find what was planted, and measure it on other rows."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from pipeline.features.probes import all_coordinates, best_feature, best_label, few_features, single_scores

N, D = 2000, 30


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, labels, first half): label 0 is where feature 7 is active, label 1 where 3 or 11 is, label 2 where feature
    5 is negative."""
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 2, (N, D)).astype(np.float32) * (rng.random((N, D)) < 0.1)
    z[:, 5] *= rng.choice([-1, 1], N)
    return z, np.stack([z[:, 7] > 0, (z[:, 3] > 0) | (z[:, 11] > 0), z[:, 5] < 0], axis=1), rng.random(N) < 0.5


def test_a_planted_feature_is_the_best_one_and_its_label_the_best_label() -> None:
    z, y, first = planted()
    scores = single_scores(sparse.csc_array(z), y, first, signed=True)
    probe = best_feature(scores)
    assert probe.features[:, 0].tolist()[::2] == [7, 5]
    assert probe.f1[[0, 2]].tolist() == [1, 1]
    assert probe.auroc[[0, 2]].tolist() == [1, 1]
    label, negative, auroc, f1 = best_label(scores)
    assert label[[7, 3, 5]].tolist() == [0, 1, 2]
    assert negative[[7, 3, 5]].tolist() == [False, False, True]
    assert f1[[7, 5]].tolist() == auroc[[7, 5]].tolist() == [1, 1]


def test_without_signs_a_negative_feature_tells_nothing() -> None:
    z, y, first = planted()
    assert best_feature(single_scores(sparse.csc_array(z), y, first, signed=False)).f1[2] < 0.3


def test_two_features_tell_what_either_of_them_tells_half_of() -> None:
    z, y, first = planted()
    one = best_feature(single_scores(sparse.csc_array(z), y, first, signed=True))
    found = few_features(sparse.csc_array(z), y, first, one.features[:, 0])
    assert set(found[2].features[1]) == {3, 11}
    assert one.f1[1] < 0.8 < 0.98 < found[2].f1[1]
    assert found[5].features[0].tolist() == [7, -1, -1, -1, -1]


def test_the_weights_are_those_of_least_squares_and_the_scores_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(N, D)).astype(np.float32)
    y, first = (z[:, :2] @ [[1.0], [2.0]] + rng.normal(size=(N, 1)) > 0.5), rng.random(N) < 0.5
    found = few_features(sparse.csc_array(z), y, first, np.array([1]))[2]
    assert found.features.tolist() == [[1, 0]]
    fit = LinearRegression().fit(z[first][:, [1, 0]], y[first, 0])
    scores = fit.predict(z[:, [1, 0]])
    assert found.auroc[0] == pytest.approx(roc_auc_score(y[~first, 0], scores[~first]), abs=1e-6)
    best = max(scores[first], key=lambda t: f1_score(y[first, 0], scores[first] >= t))
    assert found.f1[0] == pytest.approx(f1_score(y[~first, 0], scores[~first] >= best), abs=2e-3)


def test_all_coordinates_tell_what_no_single_one_does() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N, 40)).astype(np.float32)
    y, first = x @ rng.normal(size=(40, 3)) > 6, rng.random(N) < 0.5
    whole = all_coordinates(x, y, first)
    assert (whole.auroc > 0.99).all()
    assert (best_feature(single_scores(sparse.csc_array(x), y, first, signed=True)).auroc < 0.85).all()


def test_the_probe_on_all_coordinates_has_converged() -> None:
    """Of a rare label and uneven coordinates, as of a residual stream, it is what scikit-learn ends with."""
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(N, 100)) @ rng.normal(size=(100, 100)) * np.geomspace(1, 0.01, 100)).astype(np.float32)
    first = rng.random(N) < 0.5
    score = x[:, :50] @ rng.normal(size=50) + 5 * rng.normal(size=N)
    y = score[:, None] > np.quantile(score, [0.97, 0.7])
    scaled = (x - x[first].mean(0)) / x[first].std(0)
    fits = [
        LogisticRegression(C=100 / first.sum(), tol=1e-9, max_iter=10_000).fit(scaled[first], y[first, i])
        for i in range(2)
    ]
    exact = [roc_auc_score(y[~first, i], fit.decision_function(scaled[~first])) for i, fit in enumerate(fits)]
    assert all_coordinates(x, y, first).auroc == pytest.approx(exact, abs=1e-3)


def test_labels_that_mean_nothing_have_an_auroc_of_a_half() -> None:
    rng = np.random.default_rng(3)
    x, y, first = rng.normal(size=(8000, 20)).astype(np.float32), rng.random((8000, 5)) < 0.3, rng.random(8000) < 0.5
    single = single_scores(sparse.csc_array(x), y, first, signed=True)
    for probe in (best_feature(single), all_coordinates(x, y, first)):
        assert probe.auroc == pytest.approx(0.5, abs=0.04)
