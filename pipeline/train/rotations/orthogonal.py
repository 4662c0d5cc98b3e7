"""Orthogonal matrices: where to begin, and how to move among them without leaving them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stores.manifest import seed_of


def random_rotation(d: int, seed: int) -> Float64[Tensor, "{d} {d}"]:
    """Uniform over the orthogonal group (QR of a Gaussian matrix, signs of R's diagonal removed)."""
    generator = torch.Generator().manual_seed(seed_of("rotation", seed, d))
    return _qr(torch.randn(d, d, dtype=torch.float64, generator=generator))


def polar(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The orthogonal matrix nearest to a square one: U Vᵀ of its singular value decomposition M = U S Vᵀ.

    Where M is far from singular it is made as M (MᵀM)^{-1/2} by an eigendecomposition, in two thirds of the time, and a
    step of Newton and Schulz's iteration, R (3 - RᵀR)/2: R is as orthogonal, and at a condition of 9,000 within 3e-11.
    """
    values, V = torch.linalg.eigh(matrix.T @ matrix)
    if values[0] > 1e-8 * values[-1]:
        R = matrix @ (V * values.rsqrt() @ V.T)
        return torch.addmm(R, R, R.T @ R, beta=1.5, alpha=-0.5)
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


def _qr(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The orthogonal factor of the QR decomposition in which R's diagonal is positive: a continuous choice."""
    q, r = torch.linalg.qr(matrix)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


def _cayley(A: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
    return torch.linalg.solve(eye - A / 2, eye + A / 2)


def _plus_identity(A: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    return A + torch.eye(len(A), dtype=A.dtype, device=A.device)


# Antisymmetric A (d, d) → an orthogonal matrix that is I + A to first order, so that all have the same gradient at 0.
# exp and cayley keep the determinant wherever they start; so do polar and qr, for I + A has a positive one. Cayley is
# the cheapest by far where d is large: one linear system. Sources: Baker 2022 (exp(B - Bᵀ)); Lezcano-Casado 2019,
# "Trivializations for gradient-based optimization on manifolds"; Absil, Mahony, Sepulchre 2008, example 4.1.2.
RETRACTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.linalg.matrix_exp,
    "cayley": _cayley,
    "polar": lambda A: polar(_plus_identity(A)),
    "qr": lambda A: _qr(_plus_identity(A)),
}


def antisymmetric(gradient: Float[Tensor, "d d"], R: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Of a function f with the Euclidean gradient given at R: the gradient at A = 0 of f(exp(A) R).

    <∇f, A R> = <∇f Rᵀ, A>, of which only the antisymmetric part counts.
    """
    G = gradient @ R.T
    return (G - G.T) / 2


INITS = ("identity", "random", "qr", "svd", "eigen")


def initial(
    init: str,
    d: int,
    seed: int = 0,
    *,
    weights: Callable[[], Tensor] | None = None,
    moment: Callable[[], Tensor] | None = None,
    reflected: bool = False,
) -> Float64[Tensor, "{d} {d}"]:
    """Orthogonal; its rows are the axes.

    "qr" and "svd": of weights(), (d, k), the matrix by which the layer reads (or the transpose of the one by which it
    writes): its columns made orthogonal one after another, or its left singular vectors. "eigen": the eigenvectors of
    moment(), (d, d) E[JᵀJ] (or E[JJᵀ]), the largest first. reflected: the first axis turned round, so that the
    determinant changes sign.

    Raises ValueError: an init that is not known, or one that lacks what it needs.
    """
    if init == "identity":
        R = torch.eye(d, dtype=torch.float64)
    elif init == "random":
        R = random_rotation(d, seed)
    elif init in ("qr", "svd") and weights is not None:
        W = weights().double()
        R = torch.linalg.qr(W, mode="complete")[0].T if init == "qr" else torch.linalg.svd(W)[0].T
    elif init == "eigen" and moment is not None:
        R = torch.linalg.eigh(moment().double())[1].flip(1).T
    else:
        raise ValueError(f"init {init!r} is not one of {', '.join(INITS)}, or has nothing to be made from here")
    R = R.clone()
    if reflected:
        R[0].neg_()
    return R
