"""TopK (Gao et al. 2024, arXiv:2406.04093): the k largest pre-activations, and an auxiliary loss that revives the dead."""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Loss, Now
from pipeline.train.schedules import k_at
from pipeline.train.selections import Largest, Selection
from stores.dictionary import FeatureDictionary
from stores.site import Site


class TopKConfig(FamilyConfig):
    # With 1 the first reconstructions are too large (scripts/study_init.py).
    init_norm: float = Field(default=0.5, gt=0)
    k: int = Field(default=32, ge=1, description="Active features a token.")
    k_start: int | None = Field(
        default=None, ge=1, description="What k falls from, in a line, while training begins. By default k stays."
    )
    k_anneal: float = Field(
        default=0.2, gt=0, le=1, description="First part of the steps (0 to 1), over which k falls from k_start."
    )
    aux_k: int | None = Field(
        default=None,
        ge=0,
        description="How many dead features predict the residual together, which revives them; 0: none. By default half of "
        "d_in, as in Gao et al. 2024.",
    )
    aux_rows: int = Field(
        default=1024,
        ge=1,
        description="On how many of a batch's rows that is measured, the first ones; a batch's rows are in random order.",
    )
    aux_coefficient: float = Field(
        default=1.0, ge=0, description="By what their squared error is multiplied (Gao et al. 2024: 1/32)."
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        for name, k in (("k", self.k), ("k_start", self.k_start or self.k)):
            if k > self.d_sae:
                raise ValueError(f"{name} = {k} is more than d_sae = {self.d_sae}")


class TopK(Family):
    """z = ReLU(TopK((x - b_dec) W_encᵀ + b_enc)); loss = |y - y_hat|² + α |e - e_hat|², e = y - y_hat as data, e_hat what the
    aux_k largest pre-activations of dead features make; summed over d_out, averaged over tokens, the
    second over the first aux_rows of a batch."""

    Config = TopKConfig
    label: ClassVar[dict[str, str]] = {"k": "k"}
    config: TopKConfig

    def selection(self, k: int) -> Selection:
        return Largest(k)

    def among_dead(self, k: int) -> Selection:
        return Largest(k)

    def prefixes(self) -> tuple[int, ...]:
        """Numbers of latents, rising up to d_sae, each of which reconstructs on its own; the loss is their mean."""
        return ()

    def schedule(self, step: int, n_steps: int) -> dict[str, float]:
        config = self.config
        k = k_at(step, n_steps, config.k_start or config.k, config.k, config.k_anneal)
        return {**super().schedule(step, n_steps), "k": k}  # an int: a code of k entries a row has their shape

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        config = self.config
        code = self.encode(x, self.selection(now["k"]))
        errors = y - self.products.decode(code, self.W_dec, self.prefixes())
        mse = errors.square().sum(-1).mean(-1)
        auxiliary = torch.zeros_like(mse[-1])
        aux_k = self.d_in // 2 if config.aux_k is None else config.aux_k
        if aux_k and now.any_dead:
            ranks, dead = self.products.ranks, now.dead
            n, n_batch = ranks.n_own(config.aux_rows), ranks.n_rows(len(x))
            revived = self.encode_among(dead, x, self.among_dead(aux_k), code, n)
            left = errors[-1, :n].detach() - self.decode(revived)
            # The learner weighs this process's loss by its part of the batch, which is not its part of these rows.
            over = min(config.aux_rows, n_batch) * len(x) / n_batch
            auxiliary = left.square().sum(-1).sum() / over * dead.any()
        return Loss(mse.mean() + config.aux_coefficient * auxiliary, code, {"mse": mse[-1], "aux": auxiliary})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        return self.dictionary("topk", provenance, self.raw_weights(), self.config.k)
