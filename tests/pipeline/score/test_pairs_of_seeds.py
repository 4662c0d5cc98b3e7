"""Intervals of the MMCS of seeds hold a known truth as often as they say."""

import numpy as np
import pytest

from pipeline.estimates import mean, unpaired
from pipeline.score.spread import member_values

N_TRIALS = 500


def mmcs_of(rng: np.random.Generator, n: int, seed_std: float, pair_std: float) -> list[float]:
    """As the score has it, of n seeds. MMCS of a and b: .5 + what seed a adds + what seed b adds + what the pair adds."""
    own = rng.normal(0, seed_std, n)
    both = np.triu(rng.normal(0, pair_std, (n, n)), 1)
    value = 0.5 + own[:, None] + own + both + both.T
    pairs = [
        {"site": "x", "relation": "seed", "a": str(a), "b": str(b), "mmcs": float(value[a, b])}
        for a in range(n)
        for b in range(n)
        if a != b
    ]
    rows = [{"site": "x", "name": str(i)} for i in range(n)]
    group = {"site": "x", "names": [str(i) for i in range(n)]}
    return member_values({"dictionaries": rows, "pairs": pairs}, group, "mmcs")


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(("seed_std", "pair_std"), [(0.0, 0.02), (0.02, 0.0)])
def test_an_interval_holds_the_truth_in_95_of_100_runs(n: int, seed_std: float, pair_std: float) -> None:
    rng = np.random.default_rng(0)
    held, no_difference = 0, 0
    for _ in range(N_TRIALS):
        a, b = (mmcs_of(rng, n, seed_std, pair_std) for _ in range(2))
        of_one, of_both = mean(a), unpaired(a, b)
        held += of_one.low <= 0.5 <= of_one.high
        no_difference += of_both.low <= 0 <= of_both.high
    # three binomial standard deviations below 95%
    assert min(held, no_difference) / N_TRIALS > 0.95 - 3 * (0.95 * 0.05 / N_TRIALS) ** 0.5
