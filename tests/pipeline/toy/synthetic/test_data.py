"""The rows of known features, and their store."""

from pathlib import Path

import pytest
import torch

from pipeline.toy.synthetic.data import CHUNK, HOOK_POINT, SOURCE, Data, DataConfig, write_store
from pipeline.toy.synthetic.generator import n_draws
from pipeline.toy.synthetic.source_autoencoder import BATCH
from pipeline.toy.synthetic.table import rows

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


def test_features_are_unit_rows_and_near_the_axes_if_asked() -> None:
    random, axes = (Data(DataConfig(d=8, G=16, k=1, features=how)).F for how in ("random", "axes"))
    for F in (random, axes):
        assert torch.allclose(F.norm(dim=1), torch.ones(len(F)), atol=1e-5)
    assert ((axes != 0).sum(1) == 2).all()
    assert (random != 0).all()


def test_the_sources_covariance_is_the_mean_of_a_matrix_and_its_transpose() -> None:
    """Off the diagonal U[0, 1) has variance 1/12, the mean of two of them 1/24."""
    for covariance, expected in (("mirrored", 1 / 12), ("averaged", 1 / 24)):
        factor = Data(DataConfig(d=8, G=200, covariance=covariance))._factor.double()
        A = factor @ factor.T
        assert torch.allclose(A, A.T, atol=1e-5)
        off = A[~torch.eye(200, dtype=torch.bool)]
        assert float(off.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(off.var()) == pytest.approx(expected, rel=0.05)


def test_the_sources_mean_activity_is_the_same_in_each_draw() -> None:
    spread = {}
    for rescale in ("block", "draw"):
        data = Data(DataConfig(correlation="batch", rescale=rescale))
        active = torch.cat([data.codes(block) for block in range(8)]) > 0
        spread[rescale] = float(active.sum(1).double().view(-1, 256).mean(1).var())
    # of 128 draws of 256 rows each; with equal means what is left is a sum of at most 5 Bernoulli variances over 256
    assert spread["draw"] < 5 / 256 * 1.4 < spread["block"]


def test_the_sources_strengths_are_products_of_two_uniforms() -> None:
    """Mean 1/4, mean square 1/9."""
    codes = Data(DataConfig(**SOURCE)).codes(0)
    strength = codes[codes > 0].double()
    assert float(strength.mean()) == pytest.approx(1 / 4, abs=0.01)
    assert float(strength.square().mean()) == pytest.approx(1 / 9, abs=0.01)


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


def test_draws_are_counted_as_the_rows_are_made() -> None:
    data = Data(DataConfig(d=4, G=8, k=1, correlation="batch"))
    for n_rows in (256, CHUNK, CHUNK + 1):
        assert n_draws(n_rows) * BATCH == len(rows(data, n_rows))
