"""ReLU with an L1 penalty weighted by the decoder's norms (Anthropic, "Circuits updates, April 2024")."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Loss
from pipeline.train.kernels import matmul, select_positive, sparse_autoencode
from pipeline.train.schedules import sparsity_factor
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

_SPARSE_BELOW = (
    0.05  # of the code; below it the sparse products are faster on a CPU (measured: equal at 0.065 for d_in = 768)
)


class ReluL1Config(FamilyConfig):
    """l1_coefficient: on activations scaled to E|x - mean|² = d_in, with the squared error summed over d_in."""

    l1_coefficient: float = Field(default=5.0, ge=0)
    l1_warmup: float = Field(default=0.1, ge=0, le=1)  # of the steps


class ReluL1(Family):
    """z = ReLU((x - b_dec) W_encᵀ + b_enc); loss = |y - y_hat|² + λ Σ_i z_i |W_dec,i|, averaged over tokens, |W_dec,i| the sum
    of a row's norms by hook point (Lindsey et al. 2024, "Sparse crosscoders").

    The dictionary that comes out has decoder rows of norm 1, of scaled activations; their norms move into the code.
    """

    unit_decoder = False

    def __init__(self, config: ReluL1Config, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.config = config
        self.register_buffer("density", torch.ones(()))  # of the last batch's code; part of the state
        self.density: Tensor
        self.sparse = False
        self.register_buffer("coefficient", torch.tensor(config.l1_coefficient), persistent=False)
        self.coefficient: Tensor

    def look(self, state: Mapping[str, Tensor]) -> None:
        density = state["density"]
        self.sparse = not self.small and density.device.type == "cpu" and float(density) < _SPARSE_BELOW

    def loss(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Loss:
        read, target = self.centred(x, y)
        norm = self.norms(self.W_dec)
        if self.sparse:
            out, code = sparse_autoencode(read, self.W_enc, self.b_enc, self.W_dec, select_positive, self.matmul_dtype)
            l1 = (code.values * norm[code.indices]).sum() / len(x)
            fired = torch.zeros(self.d_sae, dtype=torch.bool)
            fired[code.indices] = True
            self.count(fired, len(x))
            l0 = torch.tensor(len(code.values) / len(x))
        else:
            z = self.pre(read).relu()
            out = matmul(z, self.W_dec, self.matmul_dtype).float()
            l1 = (z.sum(0, dtype=torch.float32) * norm).sum() / len(x)
            l0 = self.activity(z)
        mse = (target - out).square().sum(-1).mean()
        self.density.copy_(self.ranks.row_mean(l0, len(x)) / self.d_sae)
        coefficient = self.coefficient * sparsity_factor(step, n_steps, self.config.l1_warmup)
        return Loss(mse + coefficient * l1, {"mse": mse, "l1": l1, "l0": l0})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        weights, norm = self.raw_weights(), self.norms(self.W_dec).clamp_min(1e-12)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norm, weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
        return self.dictionary("standard", provenance, weights)
