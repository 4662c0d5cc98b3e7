"""What families have in common whose sparsity comes from a penalty: its coefficient, given or steered to an L0."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Now
from pipeline.train.schedules import sparsity_factor
from pipeline.train.source import Source
from stores.site import Site


class PenaltyConfig(FamilyConfig):
    """Settings of families whose sparsity comes from a penalty.

    coefficient_field: the name of the setting that is λ; where that setting is None, λ is default_coefficient.
    """

    coefficient_field: ClassVar[str] = "l1_coefficient"

    # With 1 the penalty has to shrink what is learned at first, and FVU at equal L0 is larger by a third to two thirds
    # (scripts/study_defaults.py).
    init_norm: float = Field(default=0.25, gt=0)
    penalty_warmup: float = Field(
        default=0.1, ge=0, le=1, description="First part of the steps (0 to 1), over which λ rises from 0 in a line."
    )
    l0_target: float | None = Field(
        default=None,
        ge=1,
        description="Active features a token at the end of training: the coefficient is where the search for λ begins. By "
        "default λ stays where it is.",
    )

    def warnings(self, record: Mapping[str, float], d_in: int) -> list[str]:
        found = super().warnings(record, d_in)
        if self.l0_target and abs(math.log(max(record["l0"], 1e-3) / self.l0_target)) > _MISSED:
            found.append(
                f"L0 is {record['l0']:.4g}, l0_target = {self.l0_target:g} was not reached: it takes more steps or a larger lr"
            )
        return found

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.l0_target is None:
            return
        if self.l0_target > self.d_sae:
            raise ValueError(f"l0_target = {self.l0_target:g} is more than d_sae = {self.d_sae}")
        if getattr(self, self.coefficient_field) == 0:
            raise ValueError(f"l0_target is sought from {self.coefficient_field} on, which is 0: leave it out")
        if self.penalty_warmup >= 1:
            raise ValueError("l0_target is sought after the penalty's warm-up: penalty_warmup has to be less than 1")


class Penalised(Family):
    """loss = |y - y_hat|² + λ · penalty. Buffer coefficient: λ before its warm-up factor.

    With l0_target λ is steered after its warm-up so that log L0 goes to the target's, at a rate in proportion to its
    distance, slower than the dictionary can learn: at every step log λ changes by gain · (rate wanted - rate found). It is
    a controller of proportion and integral in its velocity form, so that nothing winds up while L0 is on its way.
    """

    label: ClassVar[dict[str, str]] = {"l1_coefficient": "l1_", "l0_target": "l0_"}
    as_tensors: ClassVar[tuple[str, ...]] = ("l1_coefficient", "l0_target")
    coefficient_at_768: ClassVar[float] = 5.0  # as in Anthropic's "Circuits updates, April 2024"
    config: PenaltyConfig
    l0_target: Tensor

    def __init__(self, config: PenaltyConfig, source: Source) -> None:
        super().__init__(config, source)
        given = getattr(config, config.coefficient_field)
        self.register_buffer(
            "coefficient", torch.tensor(self.default_coefficient(self.d_out) if given is None else given)
        )
        self.coefficient: Tensor
        self.register_buffer("l0_mean", torch.zeros(()))  # over the last batches
        self.l0_mean: Tensor

    @classmethod
    def default_coefficient(cls, d_out: int) -> float:
        """λ grows like the strengths that it weighs, by √d_out, since E|y - mean|² = d_out."""
        return cls.coefficient_at_768 * math.sqrt(d_out / 768)

    def schedule(self, step: int, n_steps: int) -> dict[str, float]:
        warmup = self.config.penalty_warmup
        factor = sparsity_factor(step, n_steps, warmup)
        return {**super().schedule(step, n_steps), "penalty": factor, "warm": step >= warmup * n_steps}

    def weight(self, now: Now) -> Tensor:
        """λ now."""
        return self.coefficient * now["penalty"]

    def update(self, parts: Mapping[str, Tensor], now: Now) -> dict[str, Tensor]:
        before = self.l0_mean
        l0 = torch.where(before > 0, torch.lerp(parts["l0"], before, _MEMORY), parts["l0"]).clamp_min(1e-3)
        if not now["warm"]:
            return {"l0_mean": l0}
        wanted = _APPROACH / now.n_steps * (self.l0_target / l0).log()
        wanted = wanted.clamp(-_FASTEST * now.lr, _FASTEST * now.lr)
        change = _GAIN * ((l0 / before).log() - wanted)
        change = change * ((l0 / self.l0_target).log().abs() / _NEAR).clamp(_CALM, 1.0)
        change = torch.where((before > 0) & self.l0_target.isfinite(), change, 0.0)
        return {"l0_mean": l0, "coefficient": self.coefficient * change.exp()}


_MISSED = 0.15  # of log L0; a single batch is some hundredths off
_GAIN = 4.0
_APPROACH = 16.0  # e-folds of the distance to the target, over a whole run
# e-folds of L0 in 1/lr steps: at ten times that ReLU features die before λ comes back (test_l0_target.py)
_FASTEST = 3.0
# So near its target in log L0 λ is steered by half: texts differ, and the next have another L0.
_NEAR, _CALM = 0.25, 0.5
_MEMORY = 0.9  # a batch's L0 is uncertain by some hundredths
