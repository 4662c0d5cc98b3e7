"""Matching pursuit (Costa et al. 2025, arXiv:2506.03093; Mallat, Zhang 1993): one feature after another, each the one that
fits best what the others have left."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from pipeline.train.codes import Dense
from pipeline.train.families.base import Family, FamilyConfig, Loss, Now
from pipeline.train.families.tied import check_that_it_encodes_by_its_decoder
from stores.dictionary import FeatureDictionary
from stores.site import Site


class MatchingPursuitConfig(FamilyConfig):
    k: int = Field(default=32, ge=1, description="How many times a feature is selected, one of them perhaps twice.")
    residual_threshold: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="A row ends sooner when what is left of it has become shorter, on activations scaled to "
        "E|x - mean|² = d_in.",
    )
    stop_on_duplicate_support: bool = Field(
        default=True,
        description="A row ends after the step that selects a feature a second time, as in SAELens.",
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        check_that_it_encodes_by_its_decoder(self, site)


class MatchingPursuit(Family):
    """r_0 = x - b_dec; k times: i = argmax <r, W_dec,i>, v = ReLU <r, W_dec,i>, r ← r - v W_dec,i. z_i is the sum of i's v,
    rows of W_dec are of unit length; loss = |r|² at the end, which is |x - x_hat|². A row ends before its k steps when |r|
    is below residual_threshold, when v is 0, and, if stop_on_duplicate_support, after the step that selects a feature a
    second time.

    The gradient goes through every step, and past the choice of the features; b_dec learns through the values, too. Of
    W_dec the graph keeps the rows that were chosen, (batch, k, d). Nothing revives the dead but resample_every_tokens.
    """

    Config = MatchingPursuitConfig
    label: ClassVar[dict[str, str]] = {"k": "k"}
    tied = True
    biased = False
    divisible = False  # the next feature is chosen when all processes know what the last one has left
    config: MatchingPursuitConfig

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]
        return self.W_dec

    @torch.no_grad()
    def chosen(self, x: Float[Tensor, "batch d_in"]) -> Int64[Tensor, "batch k"]:
        """The features of each row, in their order."""
        found = []
        for _ in range(self.config.k):
            index = self.products.matmul(x, self.W_dec.T).argmax(-1)
            row = F.embedding(index, self.W_dec)
            x = x - (x * row).sum(-1, keepdim=True).relu() * row
            found.append(index)
        return torch.stack(found, dim=-1)

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        indices = self.chosen(x)
        again = (indices[:, :, None] == indices[:, None, :]).tril(-1).any(-1)  # selected at an earlier step
        ended = (again.cumsum(-1) - again.long() > 0) & self.config.stop_on_duplicate_support
        rows = F.embedding(indices, self.W_dec)  # not W_dec[indices]: on a CPU its gradient's sums are in any order
        residual, values = y, []
        for step, row in enumerate(rows.unbind(1)):
            value = (residual * row).sum(-1, keepdim=True).relu()
            if step:
                left = residual.detach().norm(dim=-1, keepdim=True) >= self.config.residual_threshold
                value = value * (left & ~ended[:, step, None])
            residual = residual - value * row
            values.append(value)
        z = torch.zeros(len(x), self.d_sae, device=x.device).scatter_add(1, indices, torch.cat(values, -1).detach())
        mse = residual.square().sum(-1).mean()
        return Loss(mse, Dense(z), {"mse": mse})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        threshold = self.config.residual_threshold / self.common_scale
        spec = self.source.spec("matching_pursuit", self.d_sae, provenance, self.config.k)
        duplicates = self.config.stop_on_duplicate_support
        spec = replace(spec, residual_threshold=threshold, stop_on_duplicate_support=duplicates)
        return FeatureDictionary(spec, None, None, self.W_dec, self.b_dec / self.scale_out)
