"""What a family's loss is told, and what it returns."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pipeline.train.codes import Code


@dataclass(frozen=True)
class Now:
    """Where training stands.

    now[NAME]: what Family.schedule says of this step. On a device a float of it is a tensor () float32, always in the same
    place, so that a CUDA graph of the step holds at every step.
    any_dead: whether some features are dead, of this dictionary or of one that is trained in the same product; on a device
    the host does not look, and it says whether some may be.
    tokens_since_fired, dead_after: of the dictionary.
    """

    at: int | None
    n_steps: int
    any_dead: bool
    scheduled: Mapping[str, Any]
    tokens_since_fired: Int64[Tensor, " d_sae"] | None = None
    dead_after: int = 1

    def __getitem__(self, name: str) -> Any:
        return self.scheduled[name]

    @property
    def lr(self) -> Any:
        """The rate of this step."""
        return self["lr"]

    @property
    def captured(self) -> bool:
        """Whether what is done now is kept for all steps of this kind."""
        return self.at is None

    @property
    def step(self) -> int:
        """Steps before this one. Raises ValueError: the step is being captured, and a number would hold at every step."""
        if self.at is None:  # captured
            raise ValueError("it reads now.step: what changes with the step belongs in Family.schedule")
        return self.at

    @property
    def dead(self) -> Bool[Tensor, " d_sae"]:
        """Features that were not active in dead_after_tokens."""
        assert self.tokens_since_fired is not None
        return self.tokens_since_fired > self.dead_after

    @property
    def kind(self) -> Hashable:
        """Steps of one kind differ in nothing that the host knows but in the step's number."""
        known = [(name, value) for name, value in self.scheduled.items() if not isinstance(value, Tensor)]
        return self.n_steps, self.any_dead, tuple(known)

    def of(self, tokens_since_fired: Int64[Tensor, " d_sae"], dead_after: int) -> "Now":
        """The same, for one dictionary."""
        return replace(self, tokens_since_fired=tokens_since_fired, dead_after=dead_after)

    def at_any(self) -> "Now":
        """Of all steps of this kind."""
        return replace(self, at=None)


@dataclass(frozen=True)
class Loss:
    """total: what is minimised. code: what the reconstruction was made of. parts: scalars for the log and for update, all
    means over rows; "mse" is |y - y_hat|² summed over d_out."""

    total: Float[Tensor, ""]
    code: Code
    parts: dict[str, Tensor]
