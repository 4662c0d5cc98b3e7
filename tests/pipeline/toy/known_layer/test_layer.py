"""The hand-made layer is what it says, and what its features are is known."""

import pytest
import torch

from pipeline.toy.known_layer.layer import LEAST, orthogonal, packing, strength_moments, strengths, superposed


def test_a_feature_that_is_alone_is_read_exactly() -> None:
    for layer in superposed(3, 20, 8, 0.03):
        assert layer.mu < 0.2 < LEAST  # so that no other reading is on, and its own is
        for s in (0.5, 0.77, 1.0):
            x = s * layer.F
            expected = torch.eye(20, dtype=torch.float64) * (s - layer.mu) / (1 - layer.mu)
            assert torch.allclose(layer.read(x), expected, atol=1e-12)
            assert torch.allclose(layer(x), expected @ layer.G, atol=1e-12)


def test_jacobians_are_those_of_autograd() -> None:
    layer = superposed(1, 12, 4, 0.2)[0]
    x = layer.active(50, 0)
    auto = torch.func.vmap(torch.func.jacrev(layer))(x)
    assert torch.allclose(layer.jacobians(x).J, auto, atol=1e-12)


def test_orthogonal_features_do_not_interfere() -> None:
    (layer,) = orthogonal(1, 6, 0.3)
    s = strengths((500,), 6, 0.3, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(layer.read(s @ layer.F), s, atol=1e-8)


def test_packings_reach_the_known_best() -> None:
    """d + 1 points: the simplex, cosine -1/d; 2 d points: the cross-polytope, cosine 0 (Rankin 1955)."""
    for n, d, best in ((5, 4, -1 / 4), (8, 4, 0.0)):
        cosine = packing(1, n, d, 0)[0]
        cosine = cosine @ cosine.T - 2 * torch.eye(n)
        assert float(cosine.max()) == pytest.approx(best, abs=1e-3)


def test_strengths_have_the_moments_of_the_closed_form() -> None:
    s = strengths((400_000,), 2, 0.1, torch.Generator().manual_seed(0)).double()
    mean, variance = strength_moments(0.1)
    assert float(s.mean()) == pytest.approx(mean, rel=0.01)
    assert float(s.var()) == pytest.approx(variance, rel=0.01)
    assert float(s[s > 0].min()) >= LEAST
    assert float((s > 0).double().mean()) == pytest.approx(0.1, abs=0.002)
