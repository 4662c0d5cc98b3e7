"""The activation functions of MLPs with their derivatives, under the names that Hugging Face's configurations have."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


class Activation(NamedTuple):
    """An elementwise function and its derivative."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def gelu_new(h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """½ h (1 + tanh(√(2/π) (h + .044715 h³))): GPT-2's and Gemma's (Hendrycks and Gimpel 2016)."""
    return functional.gelu(h, approximate="tanh")


def gelu_new_slope(h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Derivative of GPT-2's gelu, elementwise.

    With u = √(2/π) (h + .044715 h³), t = tanh u: ½(1 + t) + ½ h (1 - t²) √(2/π) (1 + 3 · .044715 h²).
    """
    root = math.sqrt(2 / math.pi)
    t = torch.tanh(root * (h + 0.044715 * h**3))
    return 0.5 * (1 + t) + 0.5 * h * (1 - t * t) * root * (1 + 3 * 0.044715 * h * h)


def gelu_slope(h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Derivative of h Φ(h): Φ(h) + h φ(h), with Φ and φ of the standard normal distribution."""
    return 0.5 * (1 + torch.erf(h / math.sqrt(2))) + h * torch.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)


def silu_slope(h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Derivative of h s(h), s the logistic function: s + h s (1 - s)."""
    s = torch.sigmoid(h)
    return s * (1 + h * (1 - s))


def relu_slope(h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Derivative of max(h, 0), 0 at 0 as PyTorch has it."""
    return (h > 0).to(h.dtype)


ACTIVATIONS = {
    "gelu_new": Activation(gelu_new, gelu_new_slope),
    "gelu_pytorch_tanh": Activation(gelu_new, gelu_new_slope),
    "gelu": Activation(functional.gelu, gelu_slope),
    "silu": Activation(functional.silu, silu_slope),
    "relu": Activation(torch.relu, relu_slope),
}
