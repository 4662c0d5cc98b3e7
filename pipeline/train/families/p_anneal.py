"""p-annealing (Karvonen et al. 2024, arXiv:2408.00113): an L_p penalty whose p falls from 1 towards L0 while it trains."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pipeline.train.codes import Code
from pipeline.train.families.base import Loss, Now
from pipeline.train.families.penalty import Penalised, PenaltyConfig
from pipeline.train.selections import Positive
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_REMEMBERED = 10  # batches that the coefficient's change is reckoned from, as in the source
_SMALLEST = 1e-3  # added to z: the gradient of z^p has no bound at 0


class PAnnealConfig(PenaltyConfig):
    # Features that are rare die under a λ that rises as early as elsewhere (README.md, "Beginnings").
    penalty_warmup: float = Field(default=0.3, ge=0, le=1)
    l1_coefficient: float | None = Field(
        default=None,
        ge=0,
        description="λ at p = 1, with the squared error summed over d_out, on activations scaled to E|x - mean|² = d_in. By "
        "default 3 √(d_out / 768).",
    )
    p_end: float = Field(default=0.2, gt=0, le=1, description="p at the end of training; it is 1 to begin with.")
    n_updates: int = Field(default=10, ge=1, description="In how many equal parts p falls.")
    anneal_from: float = Field(
        default=0.3, ge=0, le=1, description="First part of the steps (0 to 1), over which p stays at 1."
    )


class PAnneal(Penalised):
    """z = ReLU((x - b_dec) W_encᵀ + b_enc); loss = |x - x_hat|² + λ_p Σ z_i^p, decoder rows of unit length.

    When p changes, λ changes so that the penalty on the last batches stays what it was (section 3.2).
    """

    Config = PAnnealConfig
    coefficient_at_768 = 3.0
    whole: ClassVar[tuple[str, ...]] = (*Penalised.whole, "penalties")
    config: PAnnealConfig

    def __init__(self, config: PAnnealConfig, source: Source) -> None:
        super().__init__(config, source)
        self.register_buffer("penalties", torch.zeros(2, _REMEMBERED))  # of the last batches, at p and at the next p
        self.penalties: Tensor

    def p(self, step: int, n_steps: int) -> float:
        config = self.config
        progress = (step / n_steps - config.anneal_from) / max(1e-9, 1 - config.anneal_from)
        n = min(config.n_updates, max(0, int(progress * (config.n_updates + 1))))
        return 1 - (1 - config.p_end) * n / config.n_updates

    def schedule(self, step: int, n_steps: int) -> dict[str, float]:
        p, config = self.p(step, n_steps), self.config
        return {
            **super().schedule(step, n_steps),
            "p": p,
            "next_p": max(config.p_end, p - (1 - config.p_end) / config.n_updates),
            "linear": p == 1,
            "falls": self.p(step + 1, n_steps) != p,
            "falls_soon": self.p(step + _REMEMBERED, n_steps) != p,
        }

    def penalty(self, code: Code, p: float | Float[Tensor, ""]) -> Float[Tensor, ""]:
        return self.total(code, lambda z: (z + _SMALLEST).pow(p) - _SMALLEST**p)

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        code = self.encode(x, Positive())
        mse = (y - self.decode(code)).square().sum(-1).mean()
        later = penalty = self.total(code) if now["linear"] else self.penalty(code, now["p"])
        if now["falls_soon"]:  # what no change of p is reckoned from is not looked at
            with torch.no_grad():
                later = self.penalty(code, now["next_p"])
        p = torch.zeros_like(mse) + now["p"]
        parts = {"mse": mse, "p": p, "penalty": penalty, "penalty_at_next_p": later}
        return Loss(mse + self.weight(now) * penalty, code, parts)

    def update(self, parts: Mapping[str, Tensor], now: Now) -> dict[str, Tensor]:
        new = super().update(parts, now)
        pair = torch.stack([parts["penalty"], parts["penalty_at_next_p"]])
        penalties = torch.cat([self.penalties[:, 1:], pair[:, None]], 1)
        if now["falls"]:
            own, then = penalties.mean(1)
            new["coefficient"] = new.get("coefficient", self.coefficient) * own / then.clamp_min(1e-12)
        return {**new, "penalties": penalties}

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        return self.dictionary("standard", provenance, self.raw_weights())
