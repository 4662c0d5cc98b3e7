"""What a method can know of the activations at a hook point before it learns from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from pipeline.models.mlp import MLP
from pipeline.train.ranks import ALONE, Ranks
from stores.moments import Moments


class Weights(Protocol):
    """The language model's weights, as far as training looks at them."""

    def writer(self, hook_point: str) -> Tensor:
        """(d, d_read): the matrix whose product with what a layer reads is written to the hook point."""
        ...

    def mlp(self, layer: int) -> MLP:
        """The MLP of a layer and the layer norm before it."""
        ...


@dataclass(frozen=True)
class Source:
    """moments: of all training rows. rows(n): (n, d) float32, the first n training rows in the order of learning, or all
    that there are. heldout(n): (n, d) float32 rows that no learning sees, for measures; as many as there are. weights(): of
    the model that the store was made from. ranks: who learns together. precision: of the matrix products; "auto" is
    bfloat16 where the hardware multiplies it.
    """

    hook_point: str
    moments: Moments
    rows: Callable[[int], np.ndarray]
    heldout: Callable[[int], np.ndarray]
    weights: Callable[[], Weights]
    ranks: Ranks = ALONE
    precision: str = "auto"
