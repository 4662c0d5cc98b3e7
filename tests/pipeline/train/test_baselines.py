import numpy as np
import pytest
import torch

from pipeline.train import baselines
from stores.dictionary import FeatureDictionary
from tests.conftest import source_of, source_of_site


@pytest.fixture
def data() -> torch.Tensor:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(5000, 6)) * [10, 5, 2, 1, 0.1, 0.01] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 50).astype(
        np.float32
    )
    return torch.from_numpy(x)


def test_pca_with_k_components_leaves_the_tail_of_the_spectrum(data) -> None:
    x = data.double()
    dictionary = baselines.pca(baselines.PCAConfig(), source_of(data), {})
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    z = dictionary.encode(data)
    for k in (1, 3, 5):
        kept = torch.cat([z[:, :k], torch.zeros(len(z), 6 - k)], 1)
        fvu = float((x - dictionary.decode(kept)).square().sum() / (x - x.mean(0)).square().sum())
        assert fvu == pytest.approx(float(eigenvalues[k:].sum() / eigenvalues.sum()), rel=1e-2)


@pytest.mark.parametrize("name", ["neuron_basis", "random", "pca"])
def test_a_basis_loses_nothing(data, name: str) -> None:
    config = {
        "neuron_basis": baselines.NeuronBasisConfig,
        "random": baselines.RandomConfig,
        "pca": baselines.PCAConfig,
    }[name]()
    dictionary = getattr(baselines, name)(config, source_of(data), {})
    torch.testing.assert_close(dictionary(data), data, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(dictionary.directions @ dictionary.directions.T, torch.eye(6), atol=1e-5, rtol=0)


def of_covariance(x: torch.Tensor, **settings) -> FeatureDictionary:
    return baselines.covariance(baselines.CovarianceConfig(**settings), source_of(x), {})


def test_directions_are_drawn_with_the_covariance() -> None:
    """In a plane the mean of cos² with the first principal axis is σ₁ / (σ₁ + σ₂) (angular central Gaussian)."""
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0]) + 7.0
    W = of_covariance(x, d_sae=50_000, k=1).W_dec
    torch.testing.assert_close(W.norm(dim=-1), torch.ones(len(W)))
    variance, axes = torch.linalg.eigh(torch.cov(x.double().T))
    along = (W.double() @ axes[:, 1]).square().mean()
    assert float(along) == pytest.approx(float(variance[1].sqrt() / variance.sqrt().sum()), abs=5e-3)


def test_directions_of_a_line_make_all_of_it() -> None:
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, -2.0, 2.0]]) + 5.0
    torch.testing.assert_close(of_covariance(x, d_sae=16, k=1)(x), x, atol=1e-4, rtol=1e-4)


def test_the_factor_of_overlapping_directions_makes_the_error_least(data) -> None:
    rows = data[:4096]
    found = of_covariance(data, d_sae=48, k=8)
    z = found.encode(rows)
    assert (z != 0).sum(-1).float().mean() > 7
    mean = torch.from_numpy(source_of(data).reads.mean).float()
    made, target = (z @ found.W_dec).double(), (rows - mean).double()
    assert float((made * target).sum() / made.square().sum()) == pytest.approx(1.0, abs=1e-4)


def test_other_seeds_and_sizes_draw_other_directions(data) -> None:
    first = of_covariance(data, d_sae=8, k=2).W_dec
    for settings in ({"d_sae": 8, "seed": 1}, {"d_sae": 16}):
        assert float((first @ of_covariance(data, k=2, **settings).W_dec[:8].T).diagonal().abs().max()) < 0.99999
    assert torch.equal(first, of_covariance(data, d_sae=8, k=2).W_dec)


def test_hook_points_of_other_scales_are_drawn_alike() -> None:
    """Of a crosscoder the share of each hook point is not that of its units."""
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    a, b = x[:, :3] + 1.0, 100 * x[:, 3:] - 40.0
    both = {"blocks.0.hook_resid_post": a, "blocks.1.hook_resid_post": b}
    source = source_of_site(both, both)
    found = baselines.covariance(baselines.CovarianceConfig(d_sae=4000, k=8), source, {})
    shares = (found.W_dec.split(3, dim=-1)[0] * source.reads.moments[0].scale).square().sum(-1)
    shares = shares / (shares + (found.W_dec.split(3, dim=-1)[1] * source.reads.moments[1].scale).square().sum(-1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    rows = torch.cat([a, b], dim=-1)
    for own, part in zip((a, b), found(rows).split(3, dim=-1), strict=True):
        assert float((own - part).square().sum() / (own - own.mean(0)).square().sum()) < 0.5
