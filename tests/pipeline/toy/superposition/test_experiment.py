"""Toy models of superposition against closed forms and known answers."""

import itertools
import math

import pytest
import torch

from pipeline.toy.superposition.experiment import (
    QUICK,
    SHARED,
    Settings,
    Task,
    importance,
    pairs,
    pentagon,
    phase,
    shared,
    train,
)
from pipeline.toy.superposition.geometry import STICKY, classify, dimensionality, per_feature, phase_losses


def polygon(n: int) -> torch.Tensor:
    """(1, 2, n) unit columns."""
    angles = torch.arange(n) * (2 * math.pi / n)
    return torch.stack([angles.cos(), angles.sin()])[None]


def test_dimensionality_of_the_regular_polytopes() -> None:
    tetrahedron = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).T[None]
    side, height = math.sqrt(2 / 3), math.sqrt(1 / 3)  # then all three axes carry the same
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    turn = torch.tensor([[1.0, 1], [-1, 1]]) / math.sqrt(2)
    antiprism = torch.cat(
        [torch.cat([s * side, torch.full((4, 1), z * height)], 1) for s, z in ((square, 1), (square @ turn, -1))]
    ).T[None]
    for name, W in {
        "triangle": polygon(3),
        "antipodal pair": torch.tensor([[[1.0, -1.0]]]),
        "pentagon": polygon(5),
        "tetrahedron": tetrahedron,
        "square antiprism": antiprism,
    }.items():
        assert torch.allclose(dimensionality(W), torch.tensor(STICKY[name]), atol=1e-6), name
        assert float(dimensionality(W).sum()) == pytest.approx(W.shape[1], abs=1e-5)
        unit = W / W.norm(dim=1, keepdim=True)
        assert float(per_feature(unit)) == pytest.approx(STICKY[name], abs=1e-6)
    assert float(dimensionality(torch.zeros(1, 2, 3)).sum()) == 0


def test_samples_are_what_the_task_says() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([[0.1], [0.6]])
    x = Task(4, 2, p).sample(20_000, generator)
    active = x > 0
    assert torch.allclose(active.float().mean((1, 2)), p[:, 0], atol=0.01)
    assert float(x[active].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(x[active].var()) == pytest.approx(1 / 12, abs=0.003)
    together = Task(4, 2, p, together="correlated").sample(20_000, generator) > 0
    assert torch.equal(together[..., 0], together[..., 1])
    assert not torch.equal(together[..., 1], together[..., 2])
    apart = Task(4, 2, p[:1], together="anticorrelated").sample(20_000, generator) > 0
    assert not bool((apart[..., 0] & apart[..., 1]).any())
    assert torch.allclose(apart.float().mean((0, 1)), torch.tensor(0.1), atol=0.01)


def test_phase_losses_are_those_of_the_maps_themselves() -> None:
    """Against the loss of the three sets of weights on samples."""
    p, weight = torch.tensor([[0.3]]), torch.tensor([[1.0, 0.5]])
    task = Task(2, 1, p, weight)
    x = task.sample(2_000_000, torch.Generator().manual_seed(0))
    maps = {0: ([1.0, 0.0], [0.0, 0.15]), 1: ([0.0, 1.0], [0.15, 0.0]), 2: ([1.0, -1.0], [0.0, 0.0])}
    theory = phase_losses(p[0, 0], weight[0, 1])
    for which, (W, b) in maps.items():
        found = task.loss(torch.tensor(W)[None, None], torch.tensor(b)[None], x)
        assert float(found) == pytest.approx(float(theory[which]), rel=0.01)
        assert int(classify(torch.tensor(W)[None, None])) == which


@pytest.mark.parametrize("weight", [0.2, 0.5, 1.0])
def test_the_pair_wins_below_the_line(weight: float) -> None:
    line = 4 * weight / (2 + 5 * weight)
    below, above = (int(phase_losses(torch.tensor(line * f), torch.tensor(weight)).argmin()) for f in (0.98, 1.02))
    assert below == 2
    assert above != 2


def test_five_features_in_two_dimensions_are_a_pentagon() -> None:
    found = pentagon(Settings(**{**QUICK, "pentagon_seeds": 4, "pentagon_steps": 2000}))
    best = min(range(4), key=lambda i: found["loss"][i])
    assert 0.398 <= min(found["D"][best]) <= max(found["D"][best]) <= 0.402
    assert len(found["largest_jump"]) == 4
    records = found["D_over_training"]
    later = records[len(records) // 10 :]
    largest = max(abs(b - a) for x, y in itertools.pairwise(later) for a, b in zip(x, y, strict=True))
    assert found["largest_jump"][best] == pytest.approx(largest, abs=2e-4)


def test_dense_features_get_a_dimension_each_and_sparse_ones_share() -> None:
    found = importance(Settings(**{**QUICK, "importance_p": (1.0, 0.1), "importance_steps": 1500}))
    assert found["represented"][0] == 5
    assert abs(found["represented"][1] - 9) <= 1


def test_training_agrees_with_the_theory_away_from_the_boundary() -> None:
    found = phase(Settings(**{**QUICK, "grid": 7}))
    assert found["n_clear"] >= 40
    assert found["agreement"] >= 0.9


def test_correlated_features_are_orthogonal_and_exclusive_ones_opposite() -> None:
    found = pairs(Settings(**{**QUICK, "pair_seeds": 3, "pair_steps": 1000}))
    assert sum(abs(c) < 0.2 for c in found["correlated"]["cosine"]) >= 5
    assert sum(c < -0.8 for c in found["anticorrelated"]["cosine"]) >= 5


def test_the_same_seed_gives_the_same_bits() -> None:
    task = Task(6, 2, torch.full((3, 1), 0.1))
    first, second, other = (train(task, 30, 64, seed).W for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_sticky_dimensionalities_at_full_size() -> None:
    found = shared(Settings())
    assert found["p"] == list(SHARED)
    for near, represented, D in zip(found["near"], found["represented"], found["D"], strict=True):
        assert sum(near) / len(near) >= 0.9
        for n in represented:  # n features of D = m / n each fill the dimensions
            assert 30 / n == pytest.approx(D, abs=0.03)


@pytest.mark.slow
def test_how_many_features_are_kept_at_full_size() -> None:
    found = importance(Settings(importance_p=(1.0, 0.1, 0.03, 0.01)))
    for (least, most), known in zip(found["close"], (5, 9, 11, 12), strict=True):
        assert least <= known <= most
        assert most - least <= 2
