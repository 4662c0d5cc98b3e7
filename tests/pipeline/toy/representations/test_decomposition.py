"""Features as directions, and where a layer keeps them."""

import pytest
import torch

from pipeline.toy.representations.decomposition import decompose, decomposition, rotations, rows, variance_lost


def test_orthogonal_features_are_read_exactly_and_three_in_a_plane_are_not() -> None:
    errors = decomposition(64, 1000, 10)["errors"]
    assert errors["orthogonal, p = 1"][0] < 1e-12
    assert errors["triangle, p = 1"][0] > 0.5
    # One active at strength 1 is read as -1/2 by the others.
    angles = torch.arange(3) * (2 * torch.pi / 3)
    F = torch.stack([angles.cos(), angles.sin()], 1)
    assert torch.allclose(decompose(F[0], F), torch.tensor([1.0, -0.5, -0.5]), atol=1e-6)


def test_what_the_best_linear_read_out_loses_is_what_least_squares_loses() -> None:
    F = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    z = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    x = z @ F
    residual = z - x @ torch.linalg.lstsq(x, z).solution
    assert float(variance_lost(F)) == pytest.approx(float(residual.square().sum() / z.square().sum()), abs=5e-3)
    assert float(variance_lost(torch.eye(4, dtype=torch.double))) == 0


def test_three_directions_of_a_plane_always_lose_a_third_and_interfere() -> None:
    found = decomposition(4, 10, 200)
    assert found["drawn_lost"] == pytest.approx([1 / 3] * 200, abs=1e-6)
    # Lines in a plane are at most 60° apart on average of three: the closest pair has |cos| of at least 1/2.
    assert min(found["drawn_cosine"]) >= 0.5 - 1e-12


def test_rotations_are_orthogonal() -> None:
    Q = rotations(5, 8, torch.Generator().manual_seed(0))
    assert torch.allclose(Q @ Q.transpose(1, 2), torch.eye(8, dtype=torch.double).expand(5, 8, 8), atol=1e-12)


@pytest.mark.slow
def test_rows_are_features_when_each_output_is_one_and_not_when_they_are_turned() -> None:
    found = rows(6, 600, 5)
    assert min(found["a neuron each"]["row_cosine"]) > 0.99  # W = F at the optimum
    assert max(found["directions"]["row_cosine"]) < 0.9  # W = Q F: rows of a random rotation
    for task in found.values():
        assert min(task["written_cosine"]) > 0.99
