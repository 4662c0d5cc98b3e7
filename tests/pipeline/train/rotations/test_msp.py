from itertools import pairwise

import pytest
import torch

from pipeline.score.similarity import matched_cosine
from pipeline.train.rotations.msp import RotationConfig, RotationLearner
from pipeline.train.rotations.orthogonal import random_rotation
from tests.conftest import source_of


def planted(n: int, d: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bernoulli(θ)-Gaussian codes seen through a rotation: (n, d) rows, and the rotation."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(n, d, generator=generator) * (torch.rand(n, d, generator=generator) < theta)
    rotation = random_rotation(d, 5).float()
    return codes @ rotation, rotation


def fitted(x: torch.Tensor, n_iterations: int, batches: int) -> tuple[RotationLearner, list[float]]:
    learner = RotationLearner(RotationConfig(n_iterations=n_iterations), source_of(x), "cpu")
    parts = x.split(len(x) // batches)
    l4 = []
    for step in range(n_iterations * batches):
        l4.append(float(learner.step(parts[step % batches], step, n_iterations * batches)["l4"]))
    return learner, l4


def test_a_planted_basis_is_recovered() -> None:
    x, rotation = planted(10_000, 64, 0.1)
    learner, _ = fitted(x, 20, 2)
    found = learner.to_dictionary({})
    assert matched_cosine(found.directions, rotation, signed=True) > 0.99


def test_the_objective_never_falls_on_the_same_rows() -> None:
    x, _ = planted(4_000, 32, 0.1)
    _, l4 = fitted(x, 25, 1)
    assert all(after >= before * (1 - 1e-6) for before, after in pairwise(l4))
    assert l4[-1] > 1.5 * l4[0]


def test_the_result_is_a_rotation_and_loses_nothing() -> None:
    x, _ = planted(2_000, 24, 0.2)
    learner, _ = fitted(x, 5, 3)
    R = learner.state()["R_out"]
    assert (R @ R.T - torch.eye(24, dtype=R.dtype)).abs().max() < 1e-10
    dictionary = learner.to_dictionary({})
    fvu = (x - dictionary(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert fvu < 1e-6
    assert dictionary.signed


@pytest.mark.parametrize("objective", ["l1", "log", "rational", "varimax"])
def test_every_objective_polishes_a_planted_basis(objective: str) -> None:
    x, rotation = planted(2_000, 16, 0.1)
    learner = RotationLearner(RotationConfig(objective=objective, n_iterations=10), source_of(x), "cpu")
    for step in range(50):
        learner.step(x, step, 50)
    found = learner.to_dictionary({})
    assert matched_cosine(found.directions, rotation, signed=True) > 0.98


def test_resuming_in_the_middle_of_an_iteration_gives_the_same_bits() -> None:
    x, _ = planted(2_000, 16, 0.2)
    source = source_of(x)
    whole, half, rest = (RotationLearner(RotationConfig(n_iterations=4), source, "cpu") for _ in range(3))
    batches = x.split(100)
    for step in range(20):
        whole.step(batches[step], step, 20)
        if step < 7:
            half.step(batches[step], step, 20)
    rest.load_state({k: v.clone() for k, v in half.state().items()})
    for step in range(7, 20):
        rest.step(batches[step], step, 20)
    assert torch.equal(rest.state()["R_out"], whole.state()["R_out"])
