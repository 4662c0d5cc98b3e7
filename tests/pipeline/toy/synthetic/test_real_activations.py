"""What is said of how rows are distributed."""

from pathlib import Path

import pytest
import torch

from pipeline.toy.synthetic.real_activations import describe, hook_points, rows_of_model


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_normal_rows_have_the_known_figures() -> None:
    found = describe(normal(20_000, 16) + 5)
    assert found["kurtosis"] == pytest.approx(3, abs=0.1)
    assert found["kurtosis_random"] == pytest.approx(3, abs=0.1)
    assert found["participation"] == pytest.approx(1, abs=0.01)
    assert found["norm_spread"] == pytest.approx((1 / 32) ** 0.5, rel=0.05)  # of a chi distribution
    assert found["cosine"] == pytest.approx(1, abs=0.03)
    assert sum(found["values"]) == pytest.approx(1, abs=1e-4)
    assert sum(found["norms"]) == pytest.approx(1, abs=1e-4)
    assert found["spectrum"][7] == pytest.approx(0.5, abs=0.02)


def test_sparse_axes_and_few_dimensions_are_seen() -> None:
    sparse = normal(20_000, 16) * (torch.rand(20_000, 16, generator=torch.Generator().manual_seed(1)) < 0.1)
    found = describe(sparse)
    assert found["kurtosis"] > 20 > 2 * found["kurtosis_random"]
    few = describe(normal(20_000, 4) @ normal(4, 16))
    assert few["participation"] < 4.1 / 16
    assert few["spectrum"][3] == pytest.approx(1)


def test_rows_are_the_models_at_its_hook_points(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of_model(str(tiny_model), 1, 600, tmp_path)
    assert tuple(rows) == hook_points(1)
    assert [x.shape[1] for x in rows.values()] == [128, 32, 32]
    assert all(len(x) >= 600 for x in rows.values())
