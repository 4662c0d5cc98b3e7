"""Scores, rotations and dictionaries of the known layer, where the answer is known."""

import numpy as np
import pytest
import torch

from pipeline.toy.known_layer import dictionaries
from pipeline.toy.known_layer.dictionaries import N_HELDOUT, source
from pipeline.toy.known_layer.experiment import QUICK, Settings
from pipeline.toy.known_layer.layer import orthogonal, strengths, superposed
from pipeline.toy.known_layer.recovery import best_rotation, one_to_one, recovery
from pipeline.toy.known_layer.rotations import rotated
from pipeline.train.rotations.measures import agreement
from pipeline.train.rotations.orthogonal import random_rotation


def test_recovery_of_what_is_known() -> None:
    truth = random_rotation(6, 0)
    assert recovery(truth, truth, 1, signed=False)["matched"] == 1
    flipped = recovery(truth, -truth, 1, signed=False)
    assert flipped["found"] == flipped["back_found"] == 0
    assert recovery(truth, -truth, 1, signed=True)["found"] == 1
    half = recovery(truth, truth[:3], 1, signed=False)
    assert (half["found"], half["back_found"], half["matched"]) == (0.5, 1, 0.5)
    # one axis for both ends: two features are found, one of them has an axis of its own
    ends = torch.cat([truth[:1], -truth[:1]])
    assert recovery(ends, truth[:1], 1, signed=True)["found"] == 1
    assert one_to_one(ends, truth[:1], signed=True) == 0.5


def test_floors_are_those_of_random_directions_drawn_again() -> None:
    """Mean over many draws of the two sides against an independent simulation in numpy."""
    truth = random_rotation(8, 0)
    rows = [recovery(truth, truth[:5], seed, signed=False) for seed in range(300)]
    rng = np.random.default_rng(0)
    there, back = [], []
    for _ in range(2000):
        drawn = rng.standard_normal((5, 8))
        cosine = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)  # with the unit vectors
        there.append(cosine.max(0).mean())
        back.append(cosine.max(1).mean())
    assert np.mean([row["floor_mmcs"] for row in rows]) == pytest.approx(np.mean(there), abs=0.015)
    assert np.mean([row["floor_back_mmcs"] for row in rows]) == pytest.approx(np.mean(back), abs=0.015)


def test_the_rotation_finds_an_orthogonal_truth_on_both_sides() -> None:
    for layer in orthogonal(2, 8, 0.075):
        R_in, R_out = rotated(layer, 128, 15, 30, 0)
        assert recovery(layer.F, R_in, 0, signed=True)["mmcs"] > 0.99
        assert recovery(layer.G, R_out, 0, signed=True)["mmcs"] > 0.99


def test_the_best_rotation_is_the_truth_where_there_is_one_and_beats_random_ones() -> None:
    assert agreement(best_rotation(random_rotation(8, 0), 1, 10), random_rotation(8, 0)) == pytest.approx(1, abs=1e-6)
    F = superposed(1, 20, 8, 0.03)[0].F
    R = best_rotation(F, 0, 10)
    assert torch.allclose(R @ R.T, torch.eye(8, dtype=torch.float64), atol=1e-9)
    assert agreement(R, F) > max(agreement(random_rotation(8, i), F) for i in range(200)) + 0.05


def test_sources_have_the_moments_of_their_rows() -> None:
    layer = superposed(1, 20, 8, 0.03)[0]
    x = strengths((100_000,), 20, 0.03, torch.Generator().manual_seed(0)).double() @ layer.F
    (known,) = source(layer.F, layer.p).reads.moments
    assert torch.allclose(torch.from_numpy(known.mean), x.mean(0), atol=2e-3)
    assert known.total_variance == pytest.approx(float(x.var(0).sum()), rel=0.02)


@pytest.mark.slow
def test_a_dictionary_finds_the_features_and_its_scores_are_counts() -> None:
    layers = superposed(2, 20, 8, 0.03)
    found = dictionaries.compare(layers, "topk", 40, 500, 128)
    assert min(found["rows"]["found"]) >= 0.9
    assert max(found["rows"]["floor_found"]) < 0.3
    assert max(found["rows"]["live"]) <= 40
    assert max(found["rows"]["l0"]) <= 2  # k
    expected = 20 * 0.03 / (1 - 0.97**20)  # active features, given that there is one
    assert sum(found["rows"]["true_l0"]) / 2 == pytest.approx(expected, abs=4 * 0.6 / (2 * 0.45 * N_HELDOUT) ** 0.5)
    assert len(found["mcs"]) == 40


def test_settings_without_superposition_are_refused() -> None:
    with pytest.raises(ValueError, match="n = 8 features fit into d = 8 dimensions"):
        Settings(**{**QUICK, "n": 8})
    with pytest.raises(ValueError, match="lacks 0.05"):
        Settings(**{**QUICK, "shared_p": (1.0, 0.3)})
