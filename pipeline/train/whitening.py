"""Whitening: coordinates in which the activations are uncorrelated and of equal variance, and the way back.

    rows xA; A = c E (Λ + ε)^-1/2 ("pca"), c E (Λ + ε)^-1/2 Eᵀ ("zca"); cov(x) = E Λ Eᵀ, ε = SHRINKAGE · the mean of Λ

c makes E|xA - mean|² = d. ε bounds what whitening multiplies noise by: a direction without variance gets at most
1/√SHRINKAGE times the factor of one of average variance.

Source: Saraswatula, Klindt 2025, "Data whitening improves sparse autoencoder learning", arXiv:2511.13981 (pca); Bell,
Sejnowski 1997, "The independent components of natural scenes are edge filters" (zca).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.train.initialisation import N_ROWS, centred
from pipeline.train.source import Activations

Whiten = Literal["pca", "zca"]

SHRINKAGE = 0.01


def whitening(kind: Whiten, activations: Activations) -> Float[Tensor, "d d"]:
    """A, by what raw rows are multiplied, from the covariance of the first N_ROWS training rows, in float64."""
    rows = centred(activations, N_ROWS).double()
    variance, E = torch.linalg.eigh(rows.T @ rows / len(rows))
    variance = variance.clamp_min(0)
    shrunk = variance + SHRINKAGE * variance.mean().clamp_min(1e-12)
    c = (len(variance) / (variance / shrunk).sum().clamp_min(1e-12)).sqrt()
    A = c * activations.scale * E / shrunk.sqrt()
    return A @ E.T if kind == "zca" else A


def scaled_by(scale: Tensor, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """x times a scale: a number, one of each coordinate, or a matrix; x of several dictionaries has one of each."""
    return x @ scale.to(x.dtype) if scale.ndim > 1 else x * scale


def unwhitened(weights: dict[str, Tensor], A_in: Float[Tensor, "d_in d_in"], A_out: Tensor) -> dict[str, Tensor]:
    """The weights of a dictionary on raw activations from those of one on whitened ones: x A_in is read, y A_out is
    made."""
    back = torch.linalg.inv(A_out.double())

    def made(W: Tensor) -> Tensor:
        return (W.double() @ back).float()

    found = {**weights, "W_dec": made(weights["W_dec"]), "b_dec": made(weights["b_dec"])}
    found["W_enc"] = A_in @ weights["W_enc"]
    if "W_skip" in weights:
        found["W_skip"] = A_in @ made(weights["W_skip"])
    return found


def with_unit_rows(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same dictionary with decoder rows of unit length: their lengths move into the code, by feature. The activation
    takes the pre-activations, biases and thresholds of a feature together, so that it is not changed by a factor."""
    lengths = weights["W_dec"].norm(dim=-1).clamp_min(1e-12)
    moved = {name: W * lengths for name, W in weights.items() if name in ("W_enc", "b_enc", "b_mag", "threshold")}
    return {**weights, **moved, "W_dec": weights["W_dec"] / lengths[:, None]}
