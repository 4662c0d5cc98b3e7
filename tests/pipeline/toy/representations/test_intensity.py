"""Codes of one quality's strength, in closed form and by other ways to compute them."""

import numpy as np
import pytest

from pipeline.toy.representations.intensity import dimensions, lost, lost_in_noise, trained


@pytest.mark.parametrize(("code", "k", "n_states"), [("binary", 3, 8), ("ranges", 5, 5), ("binary", 1, 2)])
def test_states_that_cut_the_range_evenly_lose_one_over_their_square(code: str, k: int, n_states: int) -> None:
    x = (np.arange(10_000) + 0.5) / 10_000
    read = (np.floor(n_states * x) + 0.5) / n_states
    assert lost(code, k) == pytest.approx(np.mean((x - read) ** 2) * 12, rel=1e-3)


def test_dimensions_are_the_least_that_do() -> None:
    assert dimensions("length", 0.001) == 1
    # root of 1/(12 k²) ≤ .01: k ≥ 28.9; of 1/(12 4^k): k ≥ 4.85
    assert dimensions("ranges", 0.01) == 29
    assert dimensions("binary", 0.01) == 5


def test_noise_costs_what_drawing_shows() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.random(200_000), 0.2
    for code, sent in (("length", x), ("binary", (x >= 0.5) * 1.0)):
        received = sent + noise * rng.standard_normal(len(x))
        bins = np.digitize(
            received, np.quantile(received, np.linspace(0, 1, 201)[1:-1])
        )  # the posterior mean, by counting
        read = (np.bincount(bins, x) / np.bincount(bins))[bins]
        assert lost_in_noise(code, noise) == pytest.approx(12 * np.mean((x - read) ** 2), abs=5e-3)


def test_hardly_any_noise_costs_a_length_nothing_and_a_binary_unit_a_quarter() -> None:
    assert lost_in_noise("length", 0.01) < 0.005
    assert lost_in_noise("binary", 0.01) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(("code", "k"), [("length", 1), ("binary", 2), ("ranges", 2)])
def test_no_trained_code_beats_the_best_one(code: str, k: int) -> None:
    found = trained(code, k, 300, 10)
    assert min(found) > lost(code, k) - 1e-3
    assert min(found) < lost(code, k) + 0.15
