"""Codes whose activations are at other rows."""

import numpy as np
import pytest
from scipy import sparse, stats

from pipeline.features.probes import best_feature, single_scores
from pipeline.features.shuffled import densest, shuffled


@pytest.fixture
def codes() -> sparse.csc_array:
    """(2000, 40): one feature of density 1, one that is dead."""
    rng = np.random.default_rng(0)
    dense = rng.exponential(size=(2000, 40)) * (rng.random((2000, 40)) < np.linspace(0, 1, 40))
    return sparse.csc_array(dense.astype(np.float32))


def test_each_feature_keeps_its_strengths_and_their_number(codes: sparse.csc_array) -> None:
    found = shuffled(codes)
    assert (found.shape, found.dtype, found.nnz) == (codes.shape, codes.dtype, codes.nnz)
    assert found.has_canonical_format
    np.testing.assert_array_equal(np.sort(found.toarray(), axis=0), np.sort(codes.toarray(), axis=0))


def test_a_feature_has_nothing_to_do_with_what_it_was_or_with_another(codes: sparse.csc_array) -> None:
    twice = sparse.csc_array(sparse.hstack([codes, codes]))  # each feature and its copy, which are permuted apart
    before, found = codes.toarray()[:, 1:], shuffled(twice).toarray()
    for a, b in ((before, found[:, 1:40]), (found[:, 1:40], found[:, 41:])):
        r = np.array([stats.pearsonr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)])
        assert abs(r).max() < 5 / np.sqrt(len(before))  # five standard deviations


def test_rows_are_drawn_evenly(codes: sparse.csc_array) -> None:
    first = sparse.csc_array(np.concatenate([np.ones((10, 4000)), np.zeros((90, 4000))]).astype(np.float32))
    counts = shuffled(first).toarray().sum(1)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_seed_says_all(codes: sparse.csc_array) -> None:
    before = codes.copy()
    assert (shuffled(codes, 1) != shuffled(codes, 1)).nnz == 0
    assert (shuffled(codes, 1) != shuffled(codes, 2)).nnz > 0
    assert (codes != before).nnz == 0


def test_no_activation_at_all_is_none() -> None:
    assert shuffled(sparse.csc_array((5, 3), dtype=np.float32)).nnz == 0


def test_the_densest_are_those_that_chance_favours(codes: sparse.csc_array) -> None:
    """By chance a feature that is active on a share q of the rows has F1 2 p q / (p + q) for a label of a share p."""
    assert densest(codes, 5).tolist() == [35, 36, 37, 38, 39]
    assert densest(codes, 99).tolist() == list(range(40))
    rng = np.random.default_rng(1)
    Y, first = rng.random((2000, 1)) < 0.3, np.arange(2000) % 2 == 0
    rare, dense = (shuffled(sparse.csc_array(codes[:, part])) for part in (slice(1, 6), densest(codes, 5)))
    assert best_feature(single_scores(dense, Y, first, signed=False)).f1[0] == pytest.approx(
        0.6 / 1.3, abs=0.03
    )  # q is 1
    assert best_feature(single_scores(rare, Y, first, signed=False)).f1[0] < 0.25
