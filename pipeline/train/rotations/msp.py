"""The rotation whose coordinates have the largest fourth moments, by matching, stretching and projection.

Zhai, Yang, Liao, Wright, Ma 2020, "Complete dictionary learning via l4-norm maximization over the orthogonal group",
algorithm 2: R ← polar(Σ (R x)^{∘3} xᵀ). No learning rate; every step increases Σ |R x|_4^4 of the same rows.
"""

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import MethodConfig
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary, Spec
from stores.manifest import seed_of


class RotationConfig(MethodConfig):
    """n_iterations: MSP steps, each over its own equal part of the run's batches. init: of R."""

    n_iterations: int = Field(default=25, ge=1)
    init: str = Field(default="random", pattern="^(identity|random)$")
    seed: int = Field(default=0, ge=0)


def random_rotation(d: int, seed: int) -> Tensor:
    """(d, d) float64, uniform over the orthogonal group (QR of a Gaussian matrix, signs of R's diagonal removed)."""
    generator = torch.Generator().manual_seed(seed_of("rotation", seed, d))
    q, r = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def polar(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to a square one: U Vᵀ of its singular value decomposition."""
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


class RotationLearner:
    """MSP over a stream of batches. State: R (float64) and the sum of the current iteration."""

    def __init__(self, config: RotationConfig, source: Source, device: str) -> None:
        self.config, self.device = config, device
        self.scale, self.ranks = source.moments.scale, source.ranks
        self.mean = torch.from_numpy(source.moments.mean)
        d = len(self.mean)
        start = random_rotation(d, config.seed) if config.init == "random" else torch.eye(d, dtype=torch.float64)
        self._state = {
            "R": start.to(device),
            "stretched": torch.zeros(d, d, dtype=torch.float64, device=device),
        }

    def step(self, x: Tensor, step: int, n_steps: int) -> dict[str, Tensor]:
        """x: (batch, d_in) raw activations."""
        centred = (x - self.mean.to(x)) * self.scale
        y = centred @ self._state["R"].float().T
        self._state["stretched"] += self.ranks.row_total(y.pow(3).T @ centred)
        n = min(self.config.n_iterations, n_steps)
        if (step + 1) * n // n_steps > step * n // n_steps:
            self._state["R"] = polar(self._state["stretched"])
            self._state["stretched"].zero_()
        return {"l4": self.ranks.row_mean(y.pow(4).sum(-1).mean(), len(x))}

    def state(self) -> dict[str, Tensor]:
        return self._state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._state = {k: state[k].to(v.device) for k, v in self._state.items()}

    def to_dictionary(self, hook_point: str, provenance: dict) -> FeatureDictionary:
        """architecture "linear": z = R (x - mean), x_hat = Rᵀ z + mean."""
        R = self._state["R"].cpu()
        d = len(R)
        spec = Spec("linear", d, d, hook_point, provenance=provenance)
        return FeatureDictionary(spec, R.T, torch.zeros(d), R, self.mean)
