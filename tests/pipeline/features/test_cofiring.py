import numpy as np
import pytest
from scipy import sparse

from pipeline.features import cofiring as module
from pipeline.features.cofiring import cofiring


def test_phi_is_the_correlation_of_being_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    generator = np.random.default_rng(0)
    z = generator.normal(size=(400, 10)) * (generator.random((400, 10)) < 0.3)
    z[:, 9] = z[:, 2] * 2  # always together
    z[:, 4] = 0
    features, phi = cofiring(sparse.csc_array(z.astype(np.float32)), 3)
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef((z != 0).T)
    np.fill_diagonal(expected, np.nan)
    assert (features[2, 0], features[9, 0]) == (9, 2)
    assert phi[2, 0] == pytest.approx(1)
    for i in (0, 1, 2, 3, 5, 6, 7, 8, 9):
        best = np.sort(np.delete(expected[i], [4, i]))[::-1][:3]
        np.testing.assert_allclose(phi[i], best, atol=1e-6)
        np.testing.assert_allclose(phi[i], expected[i, features[i]], atol=1e-6)


def test_a_dead_feature_and_one_that_is_alone_have_none() -> None:
    z = sparse.csc_array(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32))
    features, phi = cofiring(z, 2)
    assert (features == -1).all()
    assert np.isnan(phi).all()
