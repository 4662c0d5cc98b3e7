"""The rotation of activations whose coordinates are sparse, by matching, stretching and projection.

Zhai, Yang, Liao, Wright, Ma 2020, "Complete dictionary learning via l4-norm maximization over the orthogonal group",
algorithm 2: R ← polar(Σ (R x)^{∘3} xᵀ). No learning rate; every step increases Σ |R x|_4^4 of the same rows. Other
objectives are polished from there.
"""

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from pipeline.train.linear import linear
from pipeline.train.rotations.config import SearchConfig, SolverConfig
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import initial, random_rotation
from pipeline.train.rotations.solvers import Solver
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_N_ROWS = 4096  # to compare the end with the beginning

__all__ = ["RotationConfig", "RotationLearner", "random_rotation"]


class RotationConfig(SearchConfig):
    """The rotation in which activations are sparse, by L4 (Zhai et al. 2020, algorithm 2) or another objective."""

    objective: str = Field(default="l4", pattern=f"^({'|'.join(OBJECTIVES)})$")
    init: str = Field(
        default="random", pattern="^(identity|random)$", description="The rotation to begin with: identity or random."
    )


class RotationLearner:
    """Solver over a stream of batches: a row x is a Jacobian of one column, R x. State: the solver's."""

    def __init__(self, config: RotationConfig, source: Source, device: str) -> None:
        self.source, self.ranks = source, source.ranks
        self.mean = torch.from_numpy(source.reads.mean)
        d = len(self.mean)
        R = initial(config.init, d, config.seed).to(device)
        one = torch.ones(1, 1, dtype=torch.float64, device=device)
        self.solver = Solver(SolverConfig(side="out", **config.model_dump(exclude={"init"})), one, R)

    def step(
        self,
        x: Float[Tensor, "batch d_in"],
        step: int,
        n_steps: int,
        y: Float[Tensor, "batch d_out"] | None = None,
    ) -> dict[str, Float64[Tensor, ""]]:
        """x: raw activations. Returns the mean of the objective over coordinates, in units of their rms."""
        x = self.ranks.whole_batch(x)
        return self.solver.step(Dense((x - self.mean.to(x))[..., None]), step, n_steps)

    def state(self) -> dict[str, Float64[Tensor, "..."]]:
        return self.solver.state

    def load_state(self, state: dict[str, Float64[Tensor, "..."]]) -> None:
        self.solver.load_state(state)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        """architecture "linear": z = R (x - mean), x_hat = Rᵀ z + mean; the rows of R are the features. Its provenance says
        kept_start: whether the beginning was sparser than the end, at the first rows."""
        rows = torch.from_numpy(self.source.reads.rows(_N_ROWS)) - self.mean
        found, kept_start = self.solver.best(Dense(rows[..., None].to(self.solver.R["out"].device)))
        R = found["out"]
        return linear(self.source, R.T, R, {**provenance, "kept_start": kept_start})
