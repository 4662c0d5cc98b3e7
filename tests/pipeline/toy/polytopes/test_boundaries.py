"""Boundaries are counted where they are."""

import math

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.toy import stage
from pipeline.toy.polytopes.boundaries import around, density, flips, profile, shell
from pipeline.toy.polytopes.experiment import QUICK, Settings
from pipeline.toy.polytopes.nets import N_PLACES, ReluNets


def test_flips_are_counted_along_the_path_and_by_layer() -> None:
    """Layer 1 turns at 1, 2, 3 on the first axis; layer 2, relu(x - 1) > 1.5, at 2.5."""
    W = [torch.tensor([[1.0, 1, 1], [0, 0, 0]]), torch.tensor([[1.0], [0], [0]]), torch.ones(1, 1)]
    b = [torch.tensor([[-1.0, -2, -3]]), torch.tensor([[-1.5]]), torch.zeros(1, 1)]
    nets = ReluNets([w[None] for w in W], [v[None] for v in b])
    start, stop = torch.tensor([[0.0, 5], [0, 0]]), torch.tensor([[4.0, 5], [1.9, 0]])
    found = flips(nets, start, stop, 100)[0]
    assert found.sum(1).tolist() == [[3, 1], [1, 0]]
    assert found[0].sum(1).nonzero()[:, 0].tolist() == pytest.approx([25, 50, 62, 75], abs=1)


def test_a_profiles_mean_is_the_density_of_the_path() -> None:
    generator = torch.Generator().manual_seed(0)
    crossed = torch.randint(0, 4, (3, 5, 60), generator=generator)
    crossed[..., -3:] = 50  # the end counts as the rest does
    length = torch.rand(3, 5, generator=generator) + 0.5
    found = profile(crossed, length)
    assert found.shape == (3, 5, N_PLACES)
    assert torch.allclose(found.mean(2), (crossed.sum(2) / length).double(), rtol=1e-6)
    with pytest.raises(ValueError, match="61 steps do not make 20 equal places"):
        profile(torch.zeros(1, 61), torch.ones(1))


def test_the_profile_that_is_drawn_is_the_density_that_is_told() -> None:
    found = density(Settings(**{**QUICK, "n_nets": 2, "train_steps": 20}))
    for kinds in found.values():
        for row in kinds.values():
            assert np.mean(row["along"]) == pytest.approx(np.mean(row["density"]), rel=1e-9)
            assert np.sum(row["by_layer"]) == pytest.approx(np.mean(row["density"]), rel=1e-9)


def test_steps_that_do_not_part_evenly_are_refused() -> None:
    with pytest.raises(UserError, match="polytopes.path_steps: Input should be a multiple of 20"):
        stage.settings_of(["polytopes"], ["polytopes.path_steps=399"], quick=False)


@pytest.mark.parametrize("radius", [0.5, 1.0, 4.0])
def test_the_density_around_a_centre_is_that_of_the_closed_form(radius: float) -> None:
    """Hyperplanes at distance h of the centre, of any direction: density = p(h) E|cos|, where p is the density of one
    coordinate of a point of the sphere, and E|cos| that of a random direction with the normal."""
    d, h, n = 16, 0.4, 1000
    normals = torch.nn.functional.normalize(torch.randn(d, n, generator=torch.Generator().manual_seed(0)), dim=0)
    nets = ReluNets([normals[None], torch.zeros(1, n, 1)], [torch.full((1, 1, n), -h), torch.zeros(1, 1, 1)])
    found = around(nets, torch.zeros(1, 8192, d), radius, 0.02, torch.Generator().manual_seed(1))
    place = math.gamma(d / 2) / math.gamma((d - 1) / 2) / math.sqrt(math.pi) / radius
    place *= (1 - (h / radius) ** 2) ** ((d - 3) / 2)
    cosine = math.gamma(d / 2) / math.gamma((d + 1) / 2) / math.sqrt(math.pi)
    assert float(found["density"][0]) == pytest.approx(n * place * cosine, rel=0.03)
    if radius >= 1:  # nearer to h, random places may miss the part of the sphere that lies behind a hyperplane
        assert float(found["reached"][0]) == 1
    inside = around(nets, torch.zeros(1, 64, d), h - 0.05, 0.02, torch.Generator().manual_seed(1))
    assert float(inside["density"][0]) == float(inside["reached"][0]) == 0


def test_the_shells_ratios_are_those_of_its_curve() -> None:
    found = shell(Settings(**{**QUICK, "n_nets": 1, "train_steps": 20}))
    for state in ("trained", "untrained"):
        for row in found[state].values():
            k = found["radii"].index(row["densest"])
            assert row["density"][k] == max(row["density"])
            assert row["outer"] == pytest.approx([row["density"][-1] / row["density"][k]])
            assert row["farthest"] == pytest.approx([row["reached"][-1] / max(row["reached"])])
