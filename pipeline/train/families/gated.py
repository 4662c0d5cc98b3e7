"""Gated (Rajamanoharan et al. 2024, arXiv:2404.16014): one path says which features are active, another how strongly."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.train.codes import Dense
from pipeline.train.families.base import Loss, Now
from pipeline.train.families.penalty import Penalised, PenaltyConfig
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


class GatedConfig(PenaltyConfig):
    l1_coefficient: float | None = Field(
        default=None,
        ge=0,
        description="λ of the gate's pre-activations, with the squared error summed over d_out, on activations scaled to "
        "E|x - mean|² = d_in. By default 2 √(d_out / 768).",
    )


class Gated(Penalised):
    """z = H(gate) · ReLU(magnitude), gate = (x - b_dec) W_encᵀ + b_enc, magnitude = (x - b_dec) W_encᵀ exp(r_mag) + b_mag.

    loss = |x - x_hat|² + λ Σ ReLU(gate) + |x - ReLU(gate) W_dec - b_dec|², in the last term W_dec and b_dec as constants
    (equation 8): the penalty that shrinks does not reach the magnitudes.
    """

    Config = GatedConfig
    coefficient_at_768 = 2.0

    def __init__(self, config: GatedConfig, source: Source) -> None:
        super().__init__(config, source)
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        product = self.products.matmul(x, self.W_enc.T)
        gate = product + self.b_enc
        code = Dense((gate > 0) * (product * self.r_mag.exp() + self.b_mag).relu())
        opened = Dense(gate.relu())
        mse = (y - self.decode(code)).square().sum(-1).mean()
        alone = self.products.decode(opened, self.W_dec.detach())[0]
        auxiliary = (y.detach() - alone).square().sum(-1).mean()
        l1 = self.total(opened)
        return Loss(mse + self.weight(now) * l1 + auxiliary, code, {"mse": mse, "l1": l1, "aux": auxiliary})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        b_mag = (self.b_mag - self.centring() * self.r_mag.exp()) / self.common_scale
        return self.dictionary("gated", provenance, self.raw_weights(), r_mag=self.r_mag, b_mag=b_mag)
