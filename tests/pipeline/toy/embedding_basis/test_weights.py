"""The matrices on the residual stream, and measures of sparsity, against closed forms and the library's own folding."""

import math

import pytest
import torch

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.toy.embedding_basis.weights import (
    MATRICES,
    embedding_axes,
    model_weights,
    sparsity,
    stream_matrices,
)
from pipeline.train.rotations.orthogonal import random_rotation


def test_folding_is_that_of_the_model_as_it_is_loaded_elsewhere() -> None:
    files = ModelFiles.find("demo")
    own = stream_matrices(model_weights(files), files.n_layers)
    folded = load_model(files, "folded")
    for layer, matrices in enumerate(own):
        mlp = folded.mlp(layer)
        writer = folded.writer(f"blocks.{layer}.hook_resid_mid").double()
        assert torch.allclose(matrices["W_in"], mlp.W_in.double(), atol=1e-6)
        assert torch.allclose(matrices["W_out"], mlp.W_out.double().T, atol=1e-6)
        assert torch.allclose(matrices["W_O"], writer, atol=1e-6)
        assert set(matrices) == set(MATRICES)
        assert all(len(W) == mlp.d_model for W in matrices.values())


def test_queries_and_keys_give_the_models_own_scores() -> None:
    """x̂ W_Q (x̂ W_K)ᵀ, in coordinates without mean, is what the attention module multiplies, less its biases."""
    files = ModelFiles.find("demo")
    weights = model_weights(files)
    matrices = stream_matrices(weights, files.n_layers)[1]
    x = torch.randn(7, files.sizes.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_hat = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    read = (x_hat * weights["h.1.ln_1.weight"]) @ weights["h.1.attn.c_attn.weight"]
    for part, name in zip(read.chunk(3, dim=1), ("W_Q", "W_K", "W_V"), strict=True):
        assert torch.allclose(x_hat @ matrices[name], part, atol=1e-9)


def test_sparsity_of_known_matrices() -> None:
    W = torch.randn(300, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sparsity(W)
    assert found["kurtosis"] == pytest.approx(3, abs=0.03)
    assert found["within"] == pytest.approx(3, abs=0.03)
    assert found["l2_l1"] == pytest.approx(math.sqrt(math.pi / 2), abs=0.002)
    one = torch.zeros(10, 10, dtype=torch.float64)
    one[3, 4] = -2.0
    assert sparsity(one)["kurtosis"] == pytest.approx(100)
    assert sparsity(one)["hoyer"] == pytest.approx(1)
    assert sparsity(one)["top1"] == pytest.approx(1)
    same = sparsity(torch.ones(10, 10, dtype=torch.float64))
    assert (same["kurtosis"], same["l2_l1"], same["top1"]) == pytest.approx((1, 1, 0.01))
    assert same["hoyer"] == pytest.approx(0, abs=1e-12)
    # rows of unequal lengths: a mixture of normals, whose kurtosis is 3 E σ⁴ / (E σ²)², each row alone is normal
    scale = torch.cat([torch.ones(150), 3 * torch.ones(150)]).double()[:, None]
    mixed = sparsity(W * scale)
    assert mixed["kurtosis"] == pytest.approx(3 * (1 + 81) / 2 / 25, abs=0.06)
    assert mixed["within"] == pytest.approx(found["within"], rel=1e-9)
    assert sparsity(7 * W) == pytest.approx(found)


def test_a_rotation_keeps_the_norm_and_can_be_undone() -> None:
    W = torch.randn(24, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 3
    R = random_rotation(24, 0)
    assert float((R @ W).square().sum()) == pytest.approx(float(W.square().sum()))
    assert sparsity(R.T @ (R @ W)) == pytest.approx(sparsity(W))
    assert sparsity(R @ W)["kurtosis"] < sparsity(W)["kurtosis"]


def test_planted_axes_are_found_and_make_weights_sparse() -> None:
    """An embedding whose singular vectors are Q, and a matrix that is sparse in Q's axes."""
    generator = torch.Generator().manual_seed(2)
    d, Q = 16, random_rotation(16, 3)
    scale = torch.linspace(5, 1, d, dtype=torch.float64)
    U = torch.linalg.qr(torch.randn(400, d, dtype=torch.float64, generator=generator)).Q
    U = torch.linalg.qr(U - U.mean(0)).Q
    R = embedding_axes(U * scale @ Q, centred=False)
    assert torch.allclose((R @ Q.T).abs(), torch.eye(d, dtype=torch.float64), atol=1e-9)
    shifted = U * scale @ Q + 10 * Q[5]
    assert torch.allclose((embedding_axes(shifted, centred=True) @ Q.T).abs(), torch.eye(d).double(), atol=1e-9)
    assert float((embedding_axes(shifted, centred=False)[0] @ Q[5]).abs()) > 0.999
    sparse = (torch.rand(d, 50, generator=generator) < 0.05).double()
    W = Q.T @ sparse
    assert sparsity(R @ W)["kurtosis"] == pytest.approx(sparsity(sparse)["kurtosis"])
    assert sparsity(R @ W)["kurtosis"] > 2 * sparsity(W)["kurtosis"]
