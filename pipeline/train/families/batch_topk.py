"""BatchTopK (Bussmann, Leask, Nanda 2024, arXiv:2412.06410): the k · batch largest pre-activations of a whole batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.kernels import Code, Select, select_batch_topk
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_THRESHOLD_DECAY = 0.9  # about ten batches: enough entries for a steady minimum, and it follows a schedule


class BatchTopKConfig(TopKConfig):
    """k: active features a token on average."""


class BatchTopK(TopK):
    """TopK over the batch instead of each token, so that tokens share out what they need.

    A dictionary must not depend on what else is in a batch: it is saved as JumpReLU whose threshold is the running mean
    of the smallest activation that was kept (section 3.2 of the source).
    """

    def __init__(self, config: BatchTopKConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.register_buffer("threshold", torch.zeros(()))
        self.threshold: Tensor
        self.guess = 0.0

    def look(self, state: Mapping[str, Tensor]) -> None:
        super().look(state)
        self.guess = 0.0 if self.small else 0.5 * float(state["threshold"])

    def select(self) -> Select:
        return select_batch_topk(self.k, self.guess, self.ranks)

    def selected(self, code: Code) -> None:
        infinity = torch.full((1,), torch.inf, device=code.values.device)
        self._follow(self.ranks.smallest(torch.cat([code.values.detach(), infinity]).min()))

    def dense_code(self, pre: Tensor) -> Tensor:
        smallest = pre.detach().relu().flatten().topk(min(self.k * len(pre), pre.numel())).values[-1]
        z = pre.relu() * (pre >= smallest)
        self._follow(torch.where(z > 0, z.detach(), torch.inf).min())
        return z

    def _follow(self, smallest: Tensor) -> None:
        """The running mean of the smallest activation kept; a batch that keeps none (inf) leaves it as it is."""
        if torch.is_grad_enabled():
            mean = torch.lerp(smallest, self.threshold, _THRESHOLD_DECAY * (self.threshold != 0))
            self.threshold.copy_(torch.where(smallest.isfinite(), mean, self.threshold))

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        threshold = (self.threshold / self.common_scale).expand(self.d_sae)
        return self.dictionary("jumprelu", provenance, self.raw_weights(), threshold=threshold)
