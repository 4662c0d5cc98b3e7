import numpy as np
import pytest
import torch

from pipeline.train import baselines
from stores.moments import Moments


@pytest.fixture
def data() -> tuple[np.ndarray, Moments]:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(5000, 6)) * [10, 5, 2, 1, 0.1, 0.01] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 50).astype(
        np.float32
    )
    values = x.astype(np.float64)
    return x, Moments(len(x), values.mean(0), (values**2).mean(0), abs(values).max(0), 1.0, 3.0)


def test_pca_with_k_components_leaves_the_tail_of_the_spectrum(data) -> None:
    x, moments = data
    dictionary = baselines.pca(baselines.PCAConfig(), x, moments, "h", {})
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, bias=True)))[::-1]
    z = dictionary.encode(torch.from_numpy(x))
    for k in (1, 3, 5):
        kept = torch.cat([z[:, :k], torch.zeros(len(z), 6 - k)], 1)
        fvu = float(
            (torch.from_numpy(x) - dictionary.decode(kept)).double().square().sum() / ((x - moments.mean) ** 2).sum()
        )
        assert fvu == pytest.approx(eigenvalues[k:].sum() / eigenvalues.sum(), rel=1e-2)


@pytest.mark.parametrize("name", ["neuron_basis", "random", "pca"])
def test_a_basis_loses_nothing(data, name: str) -> None:
    x, moments = data
    config = {
        "neuron_basis": baselines.NeuronBasisConfig,
        "random": baselines.RandomConfig,
        "pca": baselines.PCAConfig,
    }[name]()
    dictionary = getattr(baselines, name)(config, x, moments, "h", {})
    torch.testing.assert_close(dictionary(torch.from_numpy(x)), torch.from_numpy(x), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(dictionary.directions @ dictionary.directions.T, torch.eye(6), atol=1e-5, rtol=0)
