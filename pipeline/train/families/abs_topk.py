"""AbsTopK (Zhu, Khalili, Zhu 2025, arXiv:2510.00404): codes with signs, so that a feature and its opposite are one."""

from pydantic import Field

from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.selections import LargestMagnitude, Selection
from stores.dictionary import FeatureDictionary


class AbsTopKConfig(TopKConfig):
    k: int = Field(default=32, ge=1, description="Active features a token, of either sign.")


class AbsTopK(TopK):
    """z = the k of (x - b_dec) W_encᵀ + b_enc that are of largest magnitude, with their signs; the loss is TopK's, and the
    dead predict the residual with signs too."""

    Config = AbsTopKConfig

    def selection(self, k: int) -> Selection:
        return LargestMagnitude(k)

    def among_dead(self, k: int) -> Selection:
        return LargestMagnitude(k)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        return self.dictionary("abs_topk", provenance, self.raw_weights(), self.config.k)
