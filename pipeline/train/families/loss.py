"""What a family's loss is told, and what it returns."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.train.codes import Code


@dataclass(frozen=True)
class Now:
    """Where training stands. lr: the rate of this step. dead: features that were not active in dead_after_tokens.
    any_dead: whether some are, of this dictionary or of one that is trained in the same product; on a device the host does
    not look, and it says whether some may be."""

    step: int
    n_steps: int
    lr: float
    dead: Bool[Tensor, " d_sae"]
    any_dead: bool


@dataclass(frozen=True)
class Loss:
    """total: what is minimised. code: what the reconstruction was made of. parts: scalars for the log and for update, all
    means over rows; "mse" is |y - y_hat|² summed over d_out."""

    total: Float[Tensor, ""]
    code: Code
    parts: dict[str, Tensor]
