"""Counts that agree: what may be said of their difference."""

import numpy as np
import pytest

from pipeline.estimates import Estimate, exact, mean, unpaired


def apart(found: Estimate) -> bool:
    return found.low > 0 or found.high < 0


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.8])
def test_counts_of_one_distribution_are_seldom_apart(n: int, p: float) -> None:
    """Each is k or k + 1, so that they often agree. All outcomes, with their probabilities."""
    chance = [np.prod([p if i >> bit & 1 else 1 - p for bit in range(n)]) for i in range(2**n)]
    samples = [[13 + (i >> bit & 1) for bit in range(n)] for i in range(2**n)]
    false = sum(
        chance[i] * chance[j]
        for i, a in enumerate(samples)
        for j, b in enumerate(samples)
        if i < j and apart(unpaired(a, b, counts=True))
    )
    assert 2 * false <= 0.05


def test_counts_far_from_each_other_are_apart_though_they_agree() -> None:
    assert apart(unpaired([700, 700], [3, 3], counts=True))
    assert apart(unpaired([14, 14, 14], [12, 12, 12], counts=True))
    assert not apart(unpaired([14, 14], [13, 13], counts=True))
    assert mean([1, 1], counts=True).low < 0  # of an exact side the differences of two


def test_what_varies_more_than_rounding_has_its_own_variance_and_an_exact_number_none() -> None:
    assert unpaired([10, 12, 14], [9, 11, 13], counts=True) == unpaired([10, 12, 14], [9, 11, 13])
    assert exact(14) == Estimate(14, 14, 14)
