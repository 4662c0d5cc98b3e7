"""Gated (Rajamanoharan et al. 2024, arXiv:2404.16014): one path says which features are active, another how strongly."""

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.train.families.base import Family, FamilyConfig, Loss
from pipeline.train.kernels import matmul
from pipeline.train.schedules import sparsity_factor
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


class GatedConfig(FamilyConfig):
    """l1_coefficient: of the gate's pre-activations, on activations scaled to E|x - mean|² = d_in."""

    l1_coefficient: float = Field(default=2.0, ge=0)
    l1_warmup: float = Field(default=0.1, ge=0, le=1)  # of the steps


class Gated(Family):
    """z = H(gate) · ReLU(magnitude), gate = (x - b_dec) W_encᵀ + b_enc, magnitude = (x - b_dec) W_encᵀ exp(r_mag) + b_mag.

    loss = |x - x_hat|² + λ Σ ReLU(gate) + |x - ReLU(gate) W_dec - b_dec|², in the last term W_dec and b_dec as constants
    (equation 8): the penalty that shrinks does not reach the magnitudes.
    """

    def __init__(self, config: GatedConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.config = config
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.register_buffer("coefficient", torch.tensor(config.l1_coefficient), persistent=False)
        self.coefficient: Tensor

    def loss(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Loss:
        read, target = self.centred(x, y)
        product = matmul(read, self.W_enc.T, self.matmul_dtype).float()
        gate = product + self.b_enc
        active = gate > 0
        z = active * (product * self.r_mag.exp() + self.b_mag).relu()
        mse = (target - matmul(z, self.W_dec, self.matmul_dtype).float()).square().sum(-1).mean()
        opened = gate.relu()
        alone = matmul(opened, self.W_dec.detach(), self.matmul_dtype).float()
        auxiliary = (target.detach() - alone).square().sum(-1).mean()
        l1 = opened.sum() / len(x)
        coefficient = self.coefficient * sparsity_factor(step, n_steps, self.config.l1_warmup)
        parts = {"mse": mse, "l1": l1, "l0": self.activity(z), "aux": auxiliary}
        return Loss(mse + coefficient * l1 + auxiliary, parts)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        b_mag = (self.b_mag - self.centring() * self.r_mag.exp()) / self.common_scale
        return self.dictionary("gated", provenance, self.raw_weights(), r_mag=self.r_mag, b_mag=b_mag)
