"""Features that a trained encoder put into superposition, and families learned side by side."""

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.toy.synthetic.natural import FAMILIES, interference, natural
from pipeline.train.families.base import FamilyConfig
from pipeline.train.methods import METHODS


def test_interference_of_antipodal_pairs_and_of_an_orthogonal_basis() -> None:
    basis = torch.eye(4)
    pairs = interference(torch.cat([basis, -basis]))
    assert (pairs["nearest"], pairs["positive"], pairs["total"]) == (1, 0, 1)
    assert (torch.tensor(pairs["matrix"]).sort(1).values[:, 0] == -1).all()
    alone = interference(basis)
    assert (alone["nearest"], alone["total"]) == (0, 0)


def test_random_directions_interfere_as_chance_has_it() -> None:
    """The mean squared cosine of two random directions is 1 / d."""
    F = normalize(torch.randn(400, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    assert interference(F)["total"] == pytest.approx(399 / 32, rel=0.02)


def test_settings_of_families_are_of_families() -> None:
    for name, settings in FAMILIES.items():
        assert issubclass(METHODS[name].config, FamilyConfig)
        METHODS[name].config(**{"d_sae": 256, **settings})


def test_a_trained_encoder_makes_antipodal_pairs_and_both_kinds_are_recovered() -> None:
    found = natural(2, 6, 0.5, 2, 500, ("topk",), 250, 4096)
    assert found["kept"] == [12, 12]
    assert min(found["trained"]["nearest"]) > 0.99 > 0.9 > max(found["random"]["nearest"])
    for kind in ("trained", "random"):
        rows = found[kind]["families"]
        for topk, pca in zip(rows["topk"], rows["pca"], strict=True):
            assert topk["mmcs"] > topk["floor"] + 0.1
            assert topk["correlation"] > pca["correlation"] + 0.1
