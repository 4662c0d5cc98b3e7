"""What a rotation does to Jacobians: the same figures before and after, and for random rotations."""

from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pipeline.train.rotations.jacobians import Jacobians, split
from pipeline.train.rotations.objectives import OBJECTIVES, mass_in_largest
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import equal_inputs
from stores.manifest import seed_of

_BUDGET = 2**29


@torch.no_grad()
def measure(
    J: Jacobians, R_in: Float[Tensor, "a d_in"], R_out: Float[Tensor, "b d_out"], *, epsilon: float = 0.1
) -> dict[str, float]:
    """Of G = R_out J R_inᵀ, each input's in units of its own root mean square, means over inputs: every objective that is a
    mean over entries or inputs, and mass_in_1%, the share of Σ G² in the largest 1% of an input's entries.

    R_in, R_out: orthogonal, or any matrices with G = R_out J R_inᵀ. All of J's columns are looked at.
    """
    n = J.shape[0]
    totals: dict[str, float] = {}
    for _, part in split(J, R_in.shape[0], _BUDGET):
        G = part.product(R_out.to(J.dtype), R_in.T.to(J.dtype))
        G = G / torch.where((size := G.square().mean((1, 2), keepdim=True).sqrt()) > 0, size, 1.0)
        found = {name: float(o.of(G, epsilon)) for name, o in OBJECTIVES.items() if name != "varimax"}
        found["mass_in_1%"] = mass_in_largest(G)
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + value * part.shape[0] / n
    return totals


@torch.no_grad()
def mean_magnitude(
    J: Jacobians, R_in: Float[Tensor, "a d_in"], R_out: Float[Tensor, "b d_out"]
) -> Float64[Tensor, "b a"]:
    """Mean over inputs of |R_out J R_inᵀ|, each input in units of its root mean square."""
    n = J.shape[0]
    total = torch.zeros(R_out.shape[0], R_in.shape[0], dtype=torch.float64)
    for _, part in split(J, R_in.shape[0], _BUDGET):
        G = equal_inputs(part).product(R_out.to(J.dtype), R_in.T.to(J.dtype))
        total += G.abs().double().sum(0).cpu() / n
    return total


def random_null(J: Jacobians, n_draws: int, *, sides: tuple[bool, bool] = (True, True)) -> list[dict[str, float]]:
    """measure() of rotations drawn uniformly; sides: whether the input's and the output's are drawn, or the identity."""
    found = []
    for i in range(n_draws):
        R = [
            random_rotation(d, seed_of("null", side, i)) if drawn else torch.eye(d, dtype=torch.float64)
            for side, (d, drawn) in enumerate(zip((J.shape[2], J.shape[1]), sides))
        ]
        found.append(measure(J, R[0], R[1]))
    return found


def mean_svd(J: Jacobians) -> tuple[Float64[Tensor, "d_in d_in"], Float64[Tensor, "d_out d_out"], float]:
    """R_in, R_out of the singular vectors of the mean Jacobian, all that a linear layer would need to be diagonal; and how
    linear it is, |E J|² / E|J|². Each input's Jacobian in units of its root mean square."""
    J = equal_inputs(J)
    mean = J.mean().double()
    U, _, Vh = torch.linalg.svd(mean)
    return Vh, U.T, float(mean.square().sum() / J.squared_norms().double().mean())


def compare(
    J: Jacobians, R_in: Float[Tensor, "d_in d_in"], R_out: Float[Tensor, "d_out d_out"], n_random: int = 3
) -> dict[str, Any]:
    """measure() "before" and "after", and "random": as often for random rotations on those sides that are not the identity."""
    eye = [torch.eye(d, dtype=torch.float64) for d in (J.shape[2], J.shape[1])]
    sides = (not torch.equal(R_in.cpu(), eye[0]), not torch.equal(R_out.cpu(), eye[1]))
    return {
        "before": measure(J, eye[0], eye[1]),
        "after": measure(J, R_in, R_out),
        "random": random_null(J, n_random, sides=sides),
    }


def agreement(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b d"]) -> float:
    """Mean |cosine| of two bases' axes (rows), matched one to one: 1 for the same up to order and signs (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    cosine = (torch.nn.functional.normalize(a.double()) @ torch.nn.functional.normalize(b.double()).T).abs().numpy()
    return float(cosine[linear_sum_assignment(cosine, maximize=True)].mean())


def agreement_null(d: int, n_draws: int = 20) -> list[float]:
    """agreement() of pairs of random bases of d axes."""
    return [
        agreement(random_rotation(d, seed_of("null", "a", i)), random_rotation(d, seed_of("null", "b", i)))
        for i in range(n_draws)
    ]
