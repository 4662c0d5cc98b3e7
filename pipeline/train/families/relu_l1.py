"""ReLU with an L1 penalty weighted by the decoder's norms (Anthropic, "Circuits updates, April 2024")."""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Loss, Now
from pipeline.train.families.penalty import Penalised, PenaltyConfig
from pipeline.train.selections import Positive
from stores.dictionary import FeatureDictionary


class ReluL1Config(PenaltyConfig):
    # Features that are rare die under a λ that rises as early as elsewhere (README.md, "Beginnings").
    penalty_warmup: float = Field(default=0.3, ge=0, le=1)
    l1_coefficient: float | None = Field(
        default=None,
        ge=0,
        description="λ, with the squared error summed over d_out, on activations scaled to E|x - mean|² = d_in. By default "
        "5 √(d_out / 768).",
    )


class ReluL1(Penalised):
    """z = ReLU((x - b_dec) W_encᵀ + b_enc); loss = |y - y_hat|² + λ Σ_i z_i |W_dec,i|, averaged over tokens, |W_dec,i| the sum
    of a row's norms by hook point (Lindsey et al. 2024, "Sparse crosscoders").

    The dictionary that comes out has decoder rows of norm 1, of scaled activations; their norms move into the code.
    """

    Config = ReluL1Config
    unit_decoder = False

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        code = self.encode(x, Positive())
        mse = (y - self.decode(code)).square().sum(-1).mean()
        l1 = self.total(code, weights=self.norms(self.W_dec))
        return Loss(mse + self.weight(now) * l1, code, {"mse": mse, "l1": l1})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        weights, norm = self.raw_weights(), self.norms(self.W_dec).clamp_min(1e-12)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norm, weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
        return self.dictionary("standard", provenance, weights)
