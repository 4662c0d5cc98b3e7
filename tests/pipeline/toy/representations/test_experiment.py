"""Features as directions, and a code that has none."""

import pytest
import torch

from pipeline.config import UserError
from pipeline.toy.representations.experiment import (
    QUICK,
    Settings,
    auc,
    compression,
    decompose,
    decomposition,
    pack,
    plural_pairs,
    plurality,
    unpack,
)


def test_orthogonal_features_are_read_exactly_and_three_in_a_plane_are_not() -> None:
    errors = decomposition(Settings())["errors"]
    assert errors["orthogonal, p = 1"][0] < 1e-12
    assert errors["triangle, p = 1"][0] > 0.5
    # One active at strength 1 is read as -1/2 by the others.
    angles = torch.arange(3) * (2 * torch.pi / 3)
    F = torch.stack([angles.cos(), angles.sin()], 1)
    assert torch.allclose(decompose(F[0], F), torch.tensor([1.0, -0.5, -0.5]), atol=1e-6)


def test_all_hundred_pairs_come_back() -> None:
    tenths = torch.arange(10, dtype=torch.double) / 10
    xy = torch.cartesian_prod(tenths, tenths)
    assert torch.allclose(torch.stack(unpack(pack(xy[:, 0], xy[:, 1])), 1), xy, atol=1e-9)


def test_a_second_number_of_one_or_more_spills_over() -> None:
    x, y = unpack(pack(torch.tensor(0.3), torch.tensor(1.2)))
    assert float(x) == pytest.approx(0.4)
    assert float(y) == pytest.approx(0.2, abs=1e-5)


def test_a_relu_net_lies_between_the_linear_map_and_the_floor() -> None:
    found = compression(Settings(**QUICK))
    assert found["recovered"]["floor"] == 100
    assert found["mse"]["floor"] < 1e-12 < found["mse"]["ReLU net"] < found["mse"]["linear"]
    # Half of the variance of the 100 pairs, averaged over two coordinates: 0.0825 / 2.
    assert found["mse"]["linear"] == pytest.approx(0.04125, abs=1e-9)


def test_plural_pairs_are_words_that_are_there_with_an_s() -> None:
    vocabulary = {t: i for i, t in enumerate(["Ġdog", "Ġdogs", "cat", "cats", "pas", "pass", "Ġcat", "x1", "x1s"])}
    assert plural_pairs(vocabulary) == [("cat", "cats"), ("Ġdog", "Ġdogs")]


def test_plurality_is_a_direction_of_the_demo_model() -> None:
    found = plurality(Settings())
    assert found["auc"] > 0.85  # 0.943 measured; ½ by chance
    assert found["auc"] > found["auc_null_direction"] + 0.15
    first = [sum(rank == 1 for rank in found[key]) for key in ("rank_with_offset", "rank_without")]
    assert first[0] > 1.5 * first[1]


def test_auc_counts_pairs() -> None:
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])) == 0.75


def test_a_model_without_plurals_is_refused(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.toy.representations.plural_pairs", lambda vocabulary: [])
    with pytest.raises(UserError, match="0 plural pairs"):
        plurality(Settings(model=str(tiny_model)))
