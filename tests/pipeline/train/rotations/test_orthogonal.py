import math

import pytest
import torch

from pipeline.train.rotations.orthogonal import INITS, RETRACTIONS, initial, polar, random_rotation

D = 12


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def is_orthogonal(R: torch.Tensor) -> bool:
    return float((R @ R.T - torch.eye(len(R), dtype=R.dtype)).abs().max()) < 1e-12


@pytest.mark.parametrize("name", RETRACTIONS)
def test_a_retraction_is_orthogonal_and_the_identity_to_first_order(name: str) -> None:
    B = drawn(D, D)
    A = B - B.T
    retract, eye = RETRACTIONS[name], torch.eye(D, dtype=torch.float64)
    assert is_orthogonal(retract(A))
    for t in (1e-2, 1e-3):
        assert (retract(t * A) - eye - t * A).abs().max() < 20 * t**2 * A.abs().max() ** 2


@pytest.mark.parametrize("name", RETRACTIONS)
@pytest.mark.parametrize("reflected", [False, True])
def test_the_determinant_is_what_was_asked_for_and_stays(name: str, reflected: bool) -> None:
    R = initial("identity", D, reflected=reflected)
    B = drawn(D, D, seed=1)
    for _ in range(5):
        R = RETRACTIONS[name](B - B.T) @ R
    assert torch.linalg.det(R) == pytest.approx(-1 if reflected else 1)


@pytest.mark.parametrize("init", INITS)
def test_every_start_is_orthogonal(init: str) -> None:
    M = drawn(D, D)
    R = initial(init, D, 0, weights=lambda: drawn(D, 30), moment=lambda: M @ M.T)
    assert is_orthogonal(R)


def test_starts_are_made_from_what_they_say() -> None:
    W = drawn(D, 30)
    by = {init: initial(init, D, weights=lambda: W, moment=lambda: W @ W.T) for init in ("qr", "svd", "eigen")}
    # the first axis of QR is the first column; SVD's axes turn W Wᵀ diagonal, and so do its eigenvectors
    assert abs(float(by["qr"][0] @ W[:, 0])) == pytest.approx(float(W[:, 0].norm()))
    for init in ("svd", "eigen"):
        turned = by[init] @ W @ W.T @ by[init].T
        assert (turned - turned.diagonal().diag()).abs().max() < 1e-10
        assert torch.equal(turned.diagonal().argsort(descending=True), torch.arange(D))


def test_a_start_that_lacks_its_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="'svd'"):
        initial("svd", D)


@pytest.mark.parametrize("condition", [1.0, 1e2, 9e3, 1.1e4, 1e8])
def test_polar_is_that_of_the_singular_value_decomposition(condition: float) -> None:
    U, V = random_rotation(D, 0), random_rotation(D, 1)
    found = polar(U @ torch.logspace(0, -math.log10(condition), D, dtype=torch.float64).diag() @ V)
    assert (found @ found.T - torch.eye(D)).abs().max() < 1e-14 * D
    assert (found - U @ V).abs().max() < 1e-14 * condition


def test_polar_of_a_singular_matrix_is_orthogonal() -> None:
    found = polar(drawn(D, 2) @ drawn(2, D))
    assert (found @ found.T - torch.eye(D)).abs().max() < 1e-14 * D


def test_polar_is_the_nearest_orthogonal_matrix() -> None:
    matrix = drawn(6, 6)
    for seed in range(20):
        assert (matrix - polar(matrix)).norm() <= (matrix - random_rotation(6, seed)).norm()
