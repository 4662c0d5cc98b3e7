"""The MLP of a transformer's block as plain tensors, gated or not, with the norm that it reads through."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.activation_functions import ACTIVATIONS


def check_activation(model: str, name: str) -> None:
    """Raises UserError: the activation function of a model's MLPs has no closed form here."""
    if name not in ACTIVATIONS:
        raise UserError(f"{model}'s MLPs have the activation {name!r}, expected one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class MLP:
    """y = act(u W_in + b_in) W_out + b_out, with a gate (act(u W_gate + b_gate) ∘ (u W_in + b_in)) W_out + b_out.

    u = gain ∘ x̂ + offset. With norm "layer", x̂ is x less its mean, over σ, and σ² the variance of x over its coordinates,
    plus eps; with "rms", x̂ = x / σ, and σ² is the mean of x², plus eps. gate: (W_gate, b_gate); as TransformerLens
    has it, W_gate is what the activation function acts upon. What a model lacks is 0; Gemma's gain is 1 + its weight.
    activation: of ACTIVATIONS.

    A norm after the MLP (Gemma 2 and 3) is not part of it: y lies before that norm, and hook_mlp_out after it. So of such a
    model this is not what is written to the residual stream.
    """

    W_in: Float[Tensor, "d_model d_mlp"]
    b_in: Float[Tensor, " d_mlp"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, " d_model"]
    gain: Float[Tensor, " d_model"]
    offset: Float[Tensor, " d_model"]
    eps: float = 1e-5
    gate: tuple[Float[Tensor, "d_model d_mlp"], Float[Tensor, " d_mlp"]] | None = None
    activation: str = "gelu_new"
    norm: Literal["layer", "rms"] = "layer"

    @property
    def d_model(self) -> int:
        return len(self.W_in)

    @property
    def d_mlp(self) -> int:
        return len(self.W_out)

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "MLP":
        names = ("W_in", "b_in", "W_out", "b_out", "gain", "offset")
        gate = self.gate and (self.gate[0].to(device, dtype), self.gate[1].to(device, dtype))
        return replace(self, gate=gate, **{name: getattr(self, name).to(device, dtype) for name in names})

    def normalise(
        self, x: Float[Tensor, "*batch d_model"]
    ) -> tuple[Float[Tensor, "*batch d_model"], Float[Tensor, "*batch 1"]]:
        """x̂, σ."""
        if self.norm == "rms":
            sigma = (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
            return x / sigma, sigma
        sigma = (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / sigma, sigma

    def read(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """x on the residual stream → u, what the MLP reads."""
        return self.normalise(x)[0] * self.gain + self.offset

    def write(self, u: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """u → y, what the MLP adds to the residual stream."""
        act, pre = ACTIVATIONS[self.activation].value, u @ self.W_in + self.b_in
        post = act(u @ self.gate[0] + self.gate[1]) * pre if self.gate else act(pre)
        return post @ self.W_out + self.b_out

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        return self.write(self.read(x))

    def rotated(self, R_in: Float[Tensor, "d_model d_model"], R_out: Float[Tensor, "d_model d_model"]) -> "MLP":
        """The same function seen in other coordinates: write(R_in u) of it is R_out · write(u) of this one.

        Its read is not of use: a norm's gain does not commute with a rotation.
        """
        gate = self.gate and (R_in @ self.gate[0], self.gate[1])
        return replace(self, W_in=R_in @ self.W_in, W_out=self.W_out @ R_out.T, b_out=R_out @ self.b_out, gate=gate)
