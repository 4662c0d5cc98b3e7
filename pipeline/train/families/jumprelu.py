"""JumpReLU (Rajamanoharan et al. 2024, arXiv:2407.14435): a learned threshold per feature, trained on L0 itself."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.train.codes import Dense
from pipeline.train.families.base import Loss, Now
from pipeline.train.families.penalty import Penalised, PenaltyConfig
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary

# Of the kernel. Wider ones blur a reconstruction, with narrower ones rare features die (README.md).
_WIDEST, _OF_STRENGTH = 2.0, 0.8


class JumpReLUConfig(PenaltyConfig):
    coefficient_field: ClassVar[str] = "l0_coefficient"

    l0_coefficient: float | None = Field(
        default=None,
        ge=0,
        description="λ, with the squared error summed over d_out, on activations scaled to E|y - mean|² = d_out. By default "
        "d_out / 768.",
    )
    threshold: float = Field(
        default=0.4, gt=0, description="Every feature's first θ, on activations scaled to E|y - mean|² = d_out."
    )
    bandwidth: float | None = Field(
        default=None,
        gt=0,
        description="Width of the kernel, ε, on the same scale. By default 2, but no more than 0.8 √(d_out / l0_target).",
    )
    penalty: Literal["l0", "tanh"] = Field(
        default="l0",
        description='"l0", or "tanh": Σ tanh(tanh_scale · z_i |W_dec,i|) (Anthropic, "Circuits updates, January 2025").',
    )
    tanh_scale: float = Field(default=4.0, gt=0, description='How steep the penalty "tanh" is at 0.')
    pre_gradient: bool = Field(
        default=True,
        description='Whether the kernel passes gradients on to the pre-activations as well as to θ (Anthropic, "Circuits '
        'updates, January 2025").',
    )


class _Jump(torch.autograd.Function):
    """z = pre · H(pre - θ) and H(pre - θ), with the straight-through gradients to θ of equations 11 and 12."""

    generate_vmap_rule = True

    @staticmethod
    def forward(pre: Tensor, theta: Tensor, bandwidth: Tensor, pre_gradient: bool):  # type: ignore[override]
        active = pre > theta
        return pre * active, active.to(pre.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Any) -> None:  # type: ignore[override]
        pre, theta, bandwidth, ctx.pre_gradient = inputs
        ctx.save_for_backward(pre, theta, bandwidth)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        grad_z, grad_active = gradients
        pre, theta, bandwidth = ctx.saved_tensors
        near = ((pre - theta).abs() < bandwidth / 2).to(pre.dtype)  # the rectangle kernel
        across = near * (theta * grad_z + grad_active) / bandwidth
        grad_pre = grad_z * (pre > theta)
        return grad_pre + across if ctx.pre_gradient else grad_pre, -across.sum(0), None, None


class JumpReLU(Penalised):
    """z = pre · H(pre - θ), pre = (x - b_dec) W_encᵀ + b_enc, θ >= 0; loss = |y - y_hat|² + λ L0.

    θ is learned itself, not its logarithm, which hardly moves under Adam. pre is float32: bfloat16's spacing is wider than
    the kernel from a threshold of 4 on.
    """

    Config = JumpReLUConfig
    label: ClassVar[dict[str, str]] = {"l0_coefficient": "c", "l0_target": "l0_"}
    as_tensors: ClassVar[tuple[str, ...]] = ("l0_coefficient", "l0_target")
    config: JumpReLUConfig

    def __init__(self, config: JumpReLUConfig, source: Source) -> None:
        super().__init__(config, source)
        self.threshold = nn.Parameter(torch.full((self.d_sae,), config.threshold))

    def bandwidth(self) -> Tensor:
        """As in Anthropic's "Circuits updates, January 2025", but narrower than what so many active features are strong."""
        if self.config.bandwidth is not None:
            return torch.full_like(self.l0_target, self.config.bandwidth)
        strength = (self.d_out / self.l0_target).sqrt()  # nan without a target
        return torch.where(strength.isnan(), _WIDEST, (_OF_STRENGTH * strength).clamp_max(_WIDEST))

    @classmethod
    def default_coefficient(cls, d_out: int) -> float:
        """λ is the squared strength that a feature has to be worth."""
        return d_out / 768

    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        config, pre = self.config, x @ self.W_enc.T + self.b_enc
        z, active = _Jump.apply(pre, self.threshold, self.bandwidth(), config.pre_gradient)  # type: ignore[misc]
        code = Dense(z)
        mse = (y - self.decode(code)).square().sum(-1).mean()
        if config.penalty == "l0":
            penalty = self.total(Dense(active))
        else:
            norms = self.norms(self.W_dec)
            penalty = self.total(code, lambda z: (config.tanh_scale * z * norms).tanh())
        return Loss(mse + self.weight(now) * penalty, code, {"mse": mse, "penalty": penalty})

    @torch.no_grad()
    def constrain(self, parameters: Mapping[str, Tensor]) -> None:
        super().constrain(parameters)
        parameters["threshold"].clamp_min_(0.0)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        threshold = self.threshold / self.common_scale
        return self.dictionary("jumprelu", provenance, self.raw_weights(), threshold=threshold)
