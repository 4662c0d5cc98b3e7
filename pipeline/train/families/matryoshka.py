"""Matryoshka BatchTopK (Bussmann, Nabeshima, Karvonen, Nanda 2025, arXiv:2503.17547): prefixes that reconstruct alone."""

from pydantic import Field

from pipeline.train.families.batch_topk import BatchTopK, BatchTopKConfig
from stores.site import Site


class MatryoshkaConfig(BatchTopKConfig):
    n_prefixes: int = Field(
        default=5, ge=1, description="How many dictionaries are nested, each half of the next, the last one whole."
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.d_sae >> (self.n_prefixes - 1) < 1:
            raise ValueError(f"n_prefixes = {self.n_prefixes} halves d_sae = {self.d_sae} to nothing")


class Matryoshka(BatchTopK):
    """loss = mean over the prefixes of |x - x_hat_prefix|². Early features must be of use without the late ones, so general
    features are not absorbed into special ones. One code: BatchTopK over all features."""

    Config = MatryoshkaConfig
    divisible = False  # a prefix lies with the first processes alone
    config: MatryoshkaConfig

    def prefixes(self) -> tuple[int, ...]:
        return tuple(self.d_sae >> i for i in reversed(range(self.config.n_prefixes)))
