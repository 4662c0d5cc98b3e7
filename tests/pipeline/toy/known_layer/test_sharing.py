"""The arithmetic of sharing a dimension, against closed forms and counts."""

import math

import numpy as np
import pytest
import torch

from pipeline.toy.known_layer.sharing import P, almost_orthogonal, arithmetic, kept, pair, sweep


def test_the_pair_is_exact_unless_both_are_active() -> None:
    x = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.0, 0.9], [0.3, 0.9]])
    assert torch.allclose(pair(x), torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.0, 0.9], [0.0, 0.6]]))


def test_two_features_meet_in_p_squared() -> None:
    found = arithmetic(1_000_000)
    tolerance = 5 * P / 1000  # five standard deviations of a share of p²
    for key in ("both", "errs"):
        assert found[key] / found["n_rows"] == pytest.approx(P * P, abs=tolerance)
    assert tolerance < 0.0025 - 0.00025  # the source's figure is far outside
    assert found["errs_exclusive"] == 0


def test_losses_are_those_of_the_closed_forms() -> None:
    found = sweep((1.0, 0.3, P), 3, 200, 400_000)
    assert found["pair"] == pytest.approx([p * p / 3 for p in found["p"]])
    assert found["dedicated"] == pytest.approx([p / 3 - p * p / 4 for p in found["p"]])
    for closed, (value, error) in zip(found["pair"], found["hand_made"], strict=True):
        assert abs(value - closed) < 5 * error
    ended = np.array(found["antipodal"][2])
    best = int(np.argmin(found["trained"][2]))
    assert ended[best]  # at p = .05 the pair is the better one
    assert min(found["trained"][2]) < 0.5 * found["dedicated"][2]


def test_dense_features_are_projected_and_sparse_ones_share() -> None:
    found = kept(10, (3,), (1.0, 0.03), 2, 400)["kept"]["3"]
    assert found[0] == pytest.approx([3, 3], abs=0.3)
    assert min(found[1]) > 4


def test_the_number_of_almost_orthogonal_directions_is_near_its_closed_form() -> None:
    found = almost_orthogonal((16, 24, 32), 200)
    for drawn, theory in zip(found["drawn"], found["theory"], strict=True):
        assert abs(math.log(np.median(drawn) / theory)) < 0.35  # pairs are not quite independent, and n is whole
