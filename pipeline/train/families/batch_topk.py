"""BatchTopK (Bussmann, Leask, Nanda 2024, arXiv:2412.06410): the k · batch largest pre-activations of a whole batch."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Loss, Now
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.selections import LargestOfBatch, Selection
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_THRESHOLD_DECAY = 0.9  # about ten batches: enough entries for a steady minimum, and it follows a schedule


class BatchTopKConfig(TopKConfig):
    k: int = Field(default=32, ge=1, description="Active features a token, on average over a batch.")


class BatchTopK(TopK):
    """TopK over the batch instead of each token, so that tokens share out what they need.

    A dictionary must not depend on what else is in a batch: it is saved as JumpReLU whose threshold is the running mean
    of the smallest activation that was kept (section 3.2 of the source).
    """

    Config = BatchTopKConfig
    by_batch = True

    def __init__(self, config: BatchTopKConfig, source: Source) -> None:
        super().__init__(config, source)
        self.register_buffer("threshold", torch.zeros(()))
        self.threshold: Tensor

    def selection(self, k: int) -> Selection:
        return LargestOfBatch(k, guess=0.5 * self.threshold)

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        found = super().loss(x, y, now)
        smallest = self.products.smallest(found.code)
        found.parts["smallest"] = torch.where(smallest.isfinite(), smallest, 0.0)  # 0: nothing was kept
        return found

    def update(self, parts: Mapping[str, Tensor], now: Now) -> dict[str, Tensor]:
        smallest, before = parts["smallest"], self.threshold
        mean = torch.lerp(smallest, before, _THRESHOLD_DECAY * (before != 0))
        return {"threshold": torch.where(smallest > 0, mean, before)}

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        threshold = (self.threshold / self.common_scale).expand(self.d_sae)
        return self.dictionary("jumprelu", provenance, self.raw_weights(), threshold=threshold)
