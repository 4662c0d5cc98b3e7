import numpy as np
import pytest
import torch

from pipeline.train import baselines
from tests.conftest import source_of


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
