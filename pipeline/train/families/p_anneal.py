"""p-annealing (Karvonen et al. 2024, arXiv:2408.00113): an L_p penalty whose p falls from 1 towards L0 while it trains."""

import torch
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Loss
from pipeline.train.kernels import matmul
from pipeline.train.schedules import sparsity_factor
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_REMEMBERED = 10  # batches that the coefficient's change is reckoned from, as in the source
_SMALLEST = 1e-3  # added to z: the gradient of z^p has no bound at 0


class PAnnealConfig(FamilyConfig):
    """l1_coefficient: at p = 1, on activations scaled to E|x - mean|² = d_in. p falls from 1 to p_end in n_updates equal
    parts between the step anneal_from · n_steps and the end."""

    l1_coefficient: float = Field(default=3.0, ge=0)
    l1_warmup: float = Field(default=0.1, ge=0, le=1)  # of the steps
    p_end: float = Field(default=0.2, gt=0, le=1)
    n_updates: int = Field(default=10, ge=1)
    anneal_from: float = Field(default=0.3, ge=0, le=1)


class PAnneal(Family):
    """z = ReLU((x - b_dec) W_encᵀ + b_enc); loss = |x - x_hat|² + λ_p Σ z_i^p, decoder rows of unit length.

    When p changes, λ changes so that the penalty on the last batches stays what it was (section 3.2).
    """

    def __init__(self, config: PAnnealConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.config = config
        self.register_buffer("p", torch.ones(()))
        self.register_buffer("coefficient", torch.tensor(config.l1_coefficient))
        self.register_buffer("penalties", torch.zeros(2, _REMEMBERED))  # of the last batches, at p and at the next p
        self.p: Tensor
        self.coefficient: Tensor
        self.penalties: Tensor

    def _p(self, step: int, n_steps: int) -> float:
        config = self.config
        progress = (step / n_steps - config.anneal_from) / max(1e-9, 1 - config.anneal_from)
        n = min(config.n_updates, max(0, int(progress * (config.n_updates + 1))))
        return 1 - (1 - config.p_end) * n / config.n_updates

    def _penalty(self, z: Tensor, p: float) -> Tensor:
        return ((z + _SMALLEST).pow(p) - _SMALLEST**p).sum() / len(z)

    def loss(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Loss:
        p, config = self._p(step, n_steps), self.config
        next_p = max(config.p_end, p - (1 - config.p_end) / config.n_updates)
        if p != self._p(max(0, step - 1), n_steps):
            now, then = self.penalties.mean(1)
            self.coefficient.mul_(now / then.clamp_min(1e-12))
            self.p.fill_(p)
        read, target = self.centred(x, y)
        z = self.pre(read).relu().float()
        mse = (target - matmul(z, self.W_dec, self.matmul_dtype).float()).square().sum(-1).mean()
        penalty = self._penalty(z, p)
        with torch.no_grad():
            own = (penalty, self._penalty(z, next_p))
            pair = torch.stack([self.ranks.row_mean(value, len(x)) for value in own])
            self.penalties.copy_(torch.cat([self.penalties[:, 1:], pair[:, None]], 1))
        coefficient = self.coefficient * sparsity_factor(step, n_steps, config.l1_warmup)
        parts = {"mse": mse, "l0": self.activity(z), "p": self.p.clone(), "penalty": penalty}
        return Loss(mse + coefficient * penalty, parts)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        return self.dictionary("standard", provenance, self.raw_weights())
