"""Recovery by coefficients, against closed forms and NumPy."""

import numpy as np
import pytest
import torch

from pipeline.toy.synthetic.coefficients import correlations, of_codes, pca, recovered
from pipeline.toy.synthetic.data import Data, DataConfig
from stores.dictionary import FeatureDictionary
from stores.spec import Spec


def strengths(G: int = 6, n: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, G, generator=generator) * (torch.rand(n, G, generator=generator) < 0.3)


def test_correlations_are_numpys() -> None:
    s = strengths()
    codes = s @ torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    expected = np.corrcoef(s.T.numpy(), codes.T.numpy())[:6, 6:]
    assert np.allclose(correlations(codes, s).numpy(), expected, atol=1e-6)
    assert (correlations(torch.zeros(4000, 2), s) == 0).all()


def test_the_truth_has_no_error_in_whatever_order() -> None:
    s = strengths()
    found = of_codes(s[:, torch.randperm(6, generator=torch.Generator().manual_seed(2))], s)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    assert found["error"] == pytest.approx(0, abs=1e-9)
    assert found["error_scaled"] == pytest.approx(0, abs=1e-6)


def test_scale_is_an_error_unless_the_best_scale_is_taken() -> None:
    s = strengths()
    found = of_codes(0.5 * s, s)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    assert found["error"] == pytest.approx(0.25, abs=1e-6)
    assert found["error_scaled"] == pytest.approx(0, abs=1e-6)


def test_features_without_a_code_count_as_not_found() -> None:
    s = strengths()
    found = of_codes(s[:, :3], s)
    assert found["correlation"] == pytest.approx(0.5, abs=1e-6)
    assert found["error"] == found["error_scaled"] == pytest.approx(0.5, abs=1e-6)


def test_one_code_is_matched_once() -> None:
    """One good code and a worse copy of it: two features cannot both have the good one."""
    s = strengths(2)
    both = s.sum(1, keepdim=True)
    found = of_codes(torch.cat([both, both + 0.5 * torch.rand(4000, 1)], 1), s)
    r = correlations(both, s)
    assert found["correlation"] < float(r.mean())


def test_both_measures_of_a_perfect_dictionary_and_of_a_dead_one() -> None:
    data = Data(DataConfig(d=16, G=16, k=2))
    F, _ = torch.linalg.qr(data.F)
    s = data.codes(0)
    spec = Spec("standard", 16, 16)
    perfect = FeatureDictionary(spec, F.T, torch.zeros(16), F, torch.zeros(16))
    found = recovered(perfect, F, s @ F, s)
    assert (found["mmcs"], found["found"], found["absent"], found["dead"]) == (pytest.approx(1, abs=1e-5), 1, 0, 0)
    assert found["correlation"] == pytest.approx(1, abs=1e-4)
    assert found["fvu"] == pytest.approx(0, abs=1e-6)
    dead = recovered(FeatureDictionary(spec, F.T, torch.full((16,), -9.0), F, torch.zeros(16)), F, s @ F, s)
    assert (dead["mmcs"], dead["dead"], dead["correlation"], dead["error"]) == (0, 16, 0, 1)


def test_principal_components_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    x = Data(DataConfig(d=8, G=16, k=2)).rows(0)
    own = pca(x)
    expected = np.asarray(PCA().fit(x.double().numpy()).components_)[::-1]
    cosine = own.directions.double().numpy() @ expected.T
    assert np.allclose(abs(np.diag(cosine)), 1, atol=1e-3)
    assert torch.allclose(own(x), x, atol=1e-5)
