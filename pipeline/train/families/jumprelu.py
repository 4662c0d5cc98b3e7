"""JumpReLU (Rajamanoharan et al. 2024, arXiv:2407.14435): a learned threshold per feature, trained on L0 itself."""

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.train.families.base import Family, FamilyConfig, Loss
from pipeline.train.kernels import matmul
from pipeline.train.schedules import sparsity_factor
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


class JumpReLUConfig(FamilyConfig):
    """l0_target: active features a token to aim at, penalty l0_coefficient · d_out · (L0 / target - 1)² (appendix A of the
    source, with the squared error's scale taken out); None: penalty l0_coefficient · L0, with the squared error summed
    over d_out, on activations scaled to E|y - mean|² = d_out. threshold, bandwidth: the first threshold and the width of
    the kernel, on activations of norm 1 as in the source. A step moves a threshold by a factor of 1 ± lr at most, so a
    run of n steps reaches an L0 far from where it began only if n · lr is some units."""

    l0_target: float | None = Field(default=None, gt=0)
    l0_coefficient: float = Field(default=1.0, ge=0)
    l0_warmup: float = Field(default=0.1, ge=0, le=1)  # of the steps
    threshold: float = Field(default=0.001, gt=0)
    bandwidth: float = Field(default=0.001, gt=0)


class _Jump(torch.autograd.Function):
    """z = pre · H(pre - θ) and H(pre - θ), with the straight-through gradients to θ of equations 11 and 12."""

    generate_vmap_rule = True

    @staticmethod
    def forward(pre: Tensor, theta: Tensor, bandwidth: float):  # type: ignore[override]
        active = pre > theta
        return pre * active, active.to(pre.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Any) -> None:  # type: ignore[override]
        pre, theta, ctx.bandwidth = inputs
        ctx.save_for_backward(pre, theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        grad_z, grad_active = gradients
        pre, theta = ctx.saved_tensors
        near = ((pre - theta).abs() < ctx.bandwidth / 2).to(pre.dtype)  # the rectangle kernel
        grad_theta = -(near * (theta * grad_z + grad_active)).sum(0) / ctx.bandwidth
        return grad_z * (pre > theta), grad_theta, None


class JumpReLU(Family):
    """z = pre · H(pre - θ), pre = (x - b_dec) W_encᵀ + b_enc; loss = |x - x_hat|² + penalty on L0. θ = exp(log_threshold)."""

    def __init__(self, config: JumpReLUConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.config = config
        self.log_threshold = nn.Parameter(torch.full((self.d_sae,), math.log(config.threshold * math.sqrt(self.d_in))))

        self.register_buffer("coefficient", torch.tensor(config.l0_coefficient), persistent=False)
        self.coefficient: Tensor

    def loss(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Loss:
        config, (read, target) = self.config, self.centred(x, y)
        z, active = _Jump.apply(  # type: ignore[misc]
            self.pre(read).float(), self.log_threshold.exp(), config.bandwidth * math.sqrt(self.d_in)
        )
        out = matmul(z, self.W_dec, self.matmul_dtype).float()
        mse = (target - out).square().sum(-1).mean()
        l0 = active.sum() / len(x)
        everyones = self.ranks.row_mean(l0, len(x))  # the penalty is not linear in it
        penalty = l0 if config.l0_target is None else self.d_out * (everyones / config.l0_target - 1).square()
        coefficient = self.coefficient * sparsity_factor(step, n_steps, config.l0_warmup)
        self.activity(z)
        return Loss(mse + coefficient * penalty, {"mse": mse, "l0": l0})

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        threshold = self.log_threshold.exp() / self.common_scale
        return self.dictionary("jumprelu", provenance, self.raw_weights(), threshold=threshold)
