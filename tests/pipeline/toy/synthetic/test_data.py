"""The rows of known features, and their store."""

from pathlib import Path

import pytest
import torch

from pipeline.toy.synthetic.data import HOOK_POINT, Data, DataConfig, write_store

TINY = DataConfig(d=16, G=32, k=2, n_rows=20_480)


def test_uncorrelated_features_are_as_rare_as_in_the_source() -> None:
    """d = 256, G = 512: about 0.97 active of k = 5, as p is not rescaled."""
    codes = Data(DataConfig(d=256, G=512, correlation="none")).codes(0)
    assert float((codes > 0).sum(1).double().mean()) == pytest.approx(0.97, abs=0.03)
    assert float(codes[codes > 0].mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("correlation", ["sample", "batch"])
def test_correlated_features_are_k_on_average_and_no_row_is_empty(correlation: str) -> None:
    data = Data(DataConfig(correlation=correlation))
    codes = torch.cat([data.codes(block) for block in range(4)])
    active = codes > 0
    assert float(active.sum(1).double().mean()) == pytest.approx(5, rel=0.1)
    assert bool(active.any(1).all())
    rate = active.double().mean(0)
    assert float(rate[:16].mean()) > 2 * float(rate[-16:].mean())  # 0.99^i
    # What is correlated: rows, or blocks of 256 rows of which each has its own probabilities.
    blocks = active.double().view(64, 256, -1).mean(1)
    spread = float((blocks.var(0) / (rate * (1 - rate) / 256)).mean())
    assert (spread > 4) is (correlation == "batch")


def test_features_are_unit_rows_and_a_trained_models_lie_apart() -> None:
    random, trained = (Data(DataConfig(d=8, G=16, k=1, features=how)).truth for how in ("random", "trained"))
    nearest = []
    for truth in (random, trained):
        assert torch.allclose(truth.norm(dim=1), torch.ones(len(truth)), atol=1e-5)
        nearest.append(float(((truth @ truth.T) - 2 * torch.eye(len(truth))).amax(1).mean()))
    assert nearest[1] < nearest[0]


def test_the_store_is_a_function_of_the_settings_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = Data(TINY)
    whole = write_store(data, tmp_path / "a.zarr")
    assert whole.description.model == "none"
    assert torch.equal(torch.from_numpy(whole.rows(HOOK_POINT, 4096, 4100)), data.rows(1)[:4])
    partial = tmp_path / "b.zarr"
    write_store(data, partial)
    for file in (*partial.glob("commits/00000.*"), partial / "manifest.json"):
        file.unlink()
    assert write_store(Data(TINY), partial).digest == whole.digest
    assert write_store(Data(DataConfig(**{**TINY.model_dump(), "seed": 1})), tmp_path / "c.zarr").digest != whole.digest
