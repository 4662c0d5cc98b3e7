import pytest
import torch

from pipeline.toy.mnist_rotation.descent import descend
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import measure
from pipeline.train.rotations.orthogonal import antisymmetric, random_rotation
from pipeline.train.rotations.solvers import equal_inputs, gradient

D, N = 6, 10
J = Dense(torch.randn(N, D, D + 1, generator=torch.Generator().manual_seed(0)))
R_IN, START = random_rotation(D + 1, 1), random_rotation(D, 2)


def test_the_first_step_goes_down_the_gradient_of_the_sum() -> None:
    """B = -lr (A - Aᵀ) for A the derivative by exp's argument, so R = exp(-4 lr · antisymmetric part of A) start."""
    lr = 1e-4
    found = descend(J, R_IN, START, "sgd", lr, 1)[0]
    one = torch.ones((), dtype=torch.float64)
    slope, _ = gradient(equal_inputs(J), {"in": R_IN, "out": START}, "log", 0.1, one, ["out"])
    A = antisymmetric(slope["out"], START) * D * (D + 1)
    expected = torch.linalg.matrix_exp(-4 * lr * A) @ START
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (expected - START).abs().max() > 1e-4


def test_it_starts_at_the_measure_and_stays_a_rotation() -> None:
    R, values, seconds = descend(J, R_IN, START, "adam", 1e-2, 60)
    assert values[0] == pytest.approx(measure(J, R_IN, START)["log"], rel=1e-5)
    assert values[-1] == pytest.approx(measure(J, R_IN, R)["log"], rel=1e-5)
    assert values[-1] < values[0]
    assert len(values) == 61
    assert seconds > 0
    assert (R @ R.T - torch.eye(D)).abs().max() < 1e-5
    assert float(torch.linalg.det(R)) == pytest.approx(float(torch.linalg.det(START)), abs=1e-4)
