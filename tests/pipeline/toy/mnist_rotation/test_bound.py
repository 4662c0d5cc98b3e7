"""The bound on ΣG⁴: above every rotation, exact where the best one is known."""

import math

import pytest
import torch

from pipeline.toy.mnist_rotation.bound import _vanishing, planted, quartic, uniform, upper_bound
from pipeline.train.rotations.orthogonal import random_rotation


def sample(d: int, seed: int, n: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) ** 3


@pytest.mark.parametrize("seed", range(5))
def test_in_two_dimensions_it_is_the_largest_over_all_angles(seed: int) -> None:
    y = sample(2, seed)
    angles = torch.linspace(0, math.pi / 2, 20_001, dtype=torch.float64)
    c, s = angles.cos(), angles.sin()
    R = torch.stack([torch.stack([c, s], 1), torch.stack([-s, c], 1)], 1)
    best = float((y @ R.mT).pow(4).sum(2).mean(1).max())
    assert upper_bound(y) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("d", [3, 8])
def test_with_one_entry_each_the_planted_rotation_reaches_it(d: int) -> None:
    y, R = planted(d, 0, 0.0)
    assert quartic(y, R) == pytest.approx(float(y.square().sum(1).square().mean()), rel=1e-9)
    assert upper_bound(y) == pytest.approx(quartic(y, R), rel=1e-9)


@pytest.mark.parametrize("n_steps", [0, 30])
def test_no_rotation_is_above_it(n_steps: int) -> None:
    """In three dimensions 8,000 random rotations come near the best one."""
    y = sample(3, 1)
    a, b = torch.randn(2, 8000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = torch.nn.functional.normalize(a)
    second = torch.nn.functional.normalize(torch.linalg.cross(first, b))
    R = torch.stack([first, second, torch.linalg.cross(first, second)], 1)
    values = (y @ R.mT).pow(4).sum(2).mean(1)
    bound = upper_bound(y, n_steps)
    assert float(values.max()) <= bound < 1.1 * float(values.max())
    assert float(values.mean()) < 0.9 * bound


def test_steps_on_vanishing_forms_lower_it() -> None:
    y = sample(4, 0)
    assert upper_bound(y, 30) < 0.999 * upper_bound(y)


def test_a_vanishing_form_is_0_on_squares_and_not_elsewhere() -> None:
    d, generator = 5, torch.Generator().manual_seed(0)
    K = _vanishing(torch.randn(d * d, d * d, generator=generator, dtype=torch.float64), d)
    r = torch.randn(50, d, generator=generator, dtype=torch.float64)
    squares = (r[:, :, None] * r[:, None, :]).flatten(1)
    assert ((squares @ K) * squares).sum(1).abs().max() < 1e-10
    assert float(K.norm()) > 1
    torch.testing.assert_close(K, K.T)


def test_the_mean_over_rotations_is_that_of_many() -> None:
    y = sample(3, 2)
    drawn = torch.tensor([quartic(y, random_rotation(3, k)) for k in range(1000)])
    assert abs(float(drawn.mean()) - uniform(y)) < 5 * float(drawn.std()) / 1000**0.5


def test_nothing_is_bounded_by_0() -> None:
    assert upper_bound(torch.zeros(5, 3, dtype=torch.float64), 3) == 0
