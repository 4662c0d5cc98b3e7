"""How features share dimensions: what a W shows, and what is expected in closed form. Source: Elhage et al. 2022."""

import torch
from torch import Tensor

# D of the polytopes that features arrange themselves in: m / n of a polytope of n vertices in m dimensions
STICKY = {
    "one dimension each": 1.0,
    "tetrahedron": 3 / 4,
    "triangle": 2 / 3,
    "antipodal pair": 1 / 2,
    "pentagon": 2 / 5,
    "square antiprism": 3 / 8,
}


def dimensionality(W: Tensor) -> Tensor:
    """D_i = |W_i|² / Σ_j (Ŵ_i · W_j)², the part of a dimension that feature i has for itself; Σ_i D_i ≈ m.

    W: (n_instances, m, n) → (n_instances, n); 0 for a feature that is not represented.
    """
    norm = W.norm(dim=1)
    unit = W / norm.clamp_min(1e-12)[:, None]
    shared = (unit.transpose(1, 2) @ W).square().sum(-1)
    return norm.square() / shared.clamp_min(1e-12)


def per_feature(W: Tensor) -> Tensor:
    """D* = m / |W|_F², dimensions per feature: (n_instances,)."""
    return W.shape[1] / W.square().sum((1, 2))


def phase_losses(p: Tensor, importance: Tensor) -> Tensor:
    """Losses of the three ways to keep two features in one dimension, (3, …): the first feature alone (importance 1),
    the second alone, both as an antipodal pair without a bias.

    A feature that is left out is predicted by its mean: p/3 - p²/4 is its variance. An antipodal pair errs only when
    both are active, by the smaller: p² E[min²] = p²/6 for each.
    """
    left_out = p / 3 - p.square() / 4
    return torch.stack([importance * left_out, left_out, (1 + importance) * p.square() / 6])


def classify(W: Tensor) -> Tensor:
    """W: (n_instances, 1, 2) → 0: the first feature alone, 1: the second alone, 2: antipodal."""
    first, second = W[:, 0, 0], W[:, 0, 1]
    both = (first * second < 0) & (torch.minimum(first.abs(), second.abs()) > 0.5)
    return torch.where(both, 2, torch.where(first.abs() > second.abs(), 0, 1))
