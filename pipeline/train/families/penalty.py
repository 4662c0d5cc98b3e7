"""What families have in common whose sparsity comes from a penalty: its coefficient, given or steered to an L0."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Now
from pipeline.train.source import Source
from stores.site import Site


class PenaltyConfig(FamilyConfig):
    """penalty_warmup: part of the steps over which the coefficient rises from 0, in a line. l0_target: active features a
    token at the end of training; the coefficient is where the search for it begins. None: the coefficient stays."""

    coefficient_field: ClassVar[str] = "l1_coefficient"

    penalty_warmup: float = Field(default=0.1, ge=0, le=1)
    l0_target: float | None = Field(default=None, ge=1)

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.l0_target is not None and self.l0_target > self.d_sae:
            raise ValueError(f"l0_target = {self.l0_target:g} is more than d_sae = {self.d_sae}")


class Penalised(Family):
    """loss = |y - y_hat|² + λ · penalty. Buffer coefficient: λ before its warm-up factor.

    With l0_target, λ is multiplied at every step after its warm-up by exp(speed · log(L0 / l0_target)): an integral
    controller of log λ, slow beside the dictionary, whose speed is in units of the run.
    """

    label: ClassVar[dict[str, str]] = {"l1_coefficient": "l1_", "l0_target": "l0_"}
    as_tensors: ClassVar[tuple[str, ...]] = ("l1_coefficient", "l0_target")
    config: PenaltyConfig
    l0_target: Tensor

    def __init__(self, config: PenaltyConfig, source: Source) -> None:
        super().__init__(config, source)
        self.register_buffer("coefficient", torch.tensor(float(getattr(config, config.coefficient_field))))
        self.coefficient: Tensor

    def weight(self, now: Now) -> Tensor:
        """λ now."""
        return self.coefficient * min(1.0, now.step / max(1.0, self.config.penalty_warmup * now.n_steps))

    def update(self, parts: Mapping[str, Tensor], now: Now) -> dict[str, Tensor]:
        if now.step < self.config.penalty_warmup * now.n_steps:
            return {}
        error = (parts["l0"].clamp_min(1e-3) / self.l0_target).log().clamp(-_FARTHEST, _FARTHEST)
        steered = self.coefficient * (_SPEED / now.n_steps * error).exp()
        return {"coefficient": torch.where(error.isnan(), self.coefficient, steered)}


_SPEED = 16.0  # over a whole run, log λ moves by so many times the mean of log(L0 / target)
_FARTHEST = math.log(4.0)  # an L0 farther from its target than by this factor says no more than that
