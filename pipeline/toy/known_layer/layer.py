"""A layer in superposition that is made by hand, so that its features are known.

    x = Σ_i s_i F_i,   a = ReLU(F x - μ) / (1 - μ),   y = Σ_i a_i G_i

F and G (n, d) have unit rows and n > d. μ is the largest cosine of two rows of F. A strength s_i is 0 or in [½, 1], so a
feature that is alone is read without interference: a_i = (s_i - μ) / (1 - μ), and every other a_j is 0. When several are
active they interfere. The strengths are independent, each active with probability p.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.orthogonal import random_rotation
from stores.manifest import seed_of

LEAST = 0.5  # strength of a feature that is active
_STEPS = 300


def packing(n_sets: int, n: int, d: int, seed: int) -> Tensor:
    """(n_sets, n, d) float64: sets of n unit vectors whose largest cosine is small.

    Each begins at random directions. Adam lowers a smooth maximum of the cosines, log Σ exp(β cos) / β, with β rising.
    """
    generator = torch.Generator().manual_seed(seed)
    F = torch.randn(n_sets, n, d, generator=generator, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([F], lr=0.05)
    others = 1 - torch.eye(n, dtype=torch.float64)
    for step in range(_STEPS):
        unit, beta = normalize(F, dim=-1), 4 * 10 ** (1.2 * step / _STEPS)
        largest = ((beta * (unit @ unit.mT - 1)).exp() * others).sum((1, 2)).log() / beta
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / _STEPS)
        optimiser.zero_grad()
        largest.sum().backward()
        optimiser.step()
    return normalize(F.detach(), dim=-1)


@dataclass(frozen=True)
class Layer:
    """F, G (n, d): what the features add to the layer's input and output at strength 1."""

    F: Tensor
    G: Tensor
    p: float

    @cached_property
    def mu(self) -> float:
        """The reading's threshold: the largest cosine of two features, and 0 for orthogonal ones."""
        cosine = self.F @ self.F.T - 2 * torch.eye(len(self.F), dtype=self.F.dtype)
        return max(0.0, float(cosine.max())) + 1e-9  # so that rounding does not switch a reading on

    def read(self, x: Tensor) -> Tensor:
        """x (…, d) → a (…, n), one neuron a feature: the expanded view of the layer."""
        return (x @ self.F.T - self.mu).relu() / (1 - self.mu)

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, d) → y (…, d)."""
        return self.read(x) @ self.G

    def jacobians(self, x: Tensor) -> Dense:
        """∂y/∂x (n_inputs, d, d) at the rows of x: the sum of G_i F_iᵀ / (1 - μ) over the readings that are on."""
        on = (x @ self.F.T > self.mu).to(x.dtype)
        return Dense(torch.einsum("bn,no,ni->boi", on, self.G, self.F) / (1 - self.mu))

    def active(self, n_rows: int, seed: int) -> Tensor:
        """(n_rows, d) float64: inputs in which something is active. Elsewhere the Jacobian is 0."""
        s = strengths((4 * n_rows,), len(self.F), self.p, torch.Generator().manual_seed(seed))
        while int((s > 0).any(1).sum()) < n_rows:
            seed = seed_of("more", seed)
            more = strengths((4 * n_rows,), len(self.F), self.p, torch.Generator().manual_seed(seed))
            s = torch.cat([s, more])
        return s[(s > 0).any(1)][:n_rows].double() @ self.F


def strengths(shape: tuple[int, ...], n: int, p: float, generator: torch.Generator) -> Tensor:
    """(…, n) float32: 0, or with probability p uniform in [½, 1]."""
    u = torch.rand(*shape, n, generator=generator)  # u / p is uniform where u < p: one draw serves both
    return torch.where(u < p, LEAST + (1 - LEAST) * u / p, 0.0)


def strength_moments(p: float) -> tuple[float, float]:
    """Mean and variance of a strength: p (½ + 1)/2 and p (1 + ½ + ¼)/3 - mean²."""
    mean = p * (1 + LEAST) / 2
    return mean, p * (1 + LEAST + LEAST**2) / 3 - mean**2


def superposed(n_seeds: int, n: int, d: int, p: float, seed: int = 0) -> list[Layer]:
    """Layers of n features in d dimensions, in and out packed on their own."""
    F, G = (packing(n_seeds, n, d, seed_of("known-layer", side, seed)) for side in ("in", "out"))
    return [Layer(f, g, p) for f, g in zip(F, G, strict=True)]


def orthogonal(n_seeds: int, d: int, p: float, seed: int = 0) -> list[Layer]:
    """The control: d features in d dimensions, at right angles, off the axes of the neurons."""
    sides = [
        [random_rotation(d, seed_of("known-layer orthogonal", side, seed, i)) for i in range(n_seeds)]
        for side in ("in", "out")
    ]
    return [Layer(f, g, p) for f, g in zip(*sides, strict=True)]
