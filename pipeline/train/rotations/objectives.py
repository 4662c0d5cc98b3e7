"""How sparse an array of numbers is: what rotations are chosen by. Lower is sparser.

Each takes x (n_inputs, d_out, n_columns), in units of its root mean square over all inputs and entries, and gives a mean
over entries: so they have the same size whatever the width, and sampled columns give what all columns give. A rotation
leaves the sum of squares as it is: L1 and L4 need no normaliser beyond that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """of: (x, epsilon) → scalar, and its slope, the derivative by x, of x's shape: autograd would take several passes over
    x for what are a few products. separable: a mean of one function of each entry, so that a sample of columns gives it
    without bias."""

    of: Callable[[Tensor, float], Tensor]
    slope: Callable[[Tensor, float], Tensor]
    separable: bool = True


def _hoyer(x: Float[Tensor, "n_inputs d_out n_columns"], epsilon: float) -> Float[Tensor, ""]:
    """Minus the mean over inputs of (√N - |x|_1 / |x|_2) / (√N - 1), N entries: -1 has one entry, 0 all the same.

    Source: Hoyer 2004, "Non-negative matrix factorization with sparseness constraints", eq. for sparseness.
    """
    flat = x.flatten(1)
    root = flat.shape[1] ** 0.5
    return -((root - flat.abs().sum(1) / flat.norm(dim=1).clamp_min(1e-30)) / (root - 1)).mean()


def _hoyer_slope(
    x: Float[Tensor, "n_inputs d_out n_columns"], epsilon: float
) -> Float[Tensor, "n_inputs d_out n_columns"]:
    l1, l2 = x.abs().sum((1, 2), keepdim=True), x.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-30)
    return (x.sign() - x * (l1 / l2.square())) / (l2 * len(x) * (x[0].numel() ** 0.5 - 1))


def _varimax(x: Float[Tensor, "n_inputs d_out n_columns"], epsilon: float) -> Float[Tensor, ""]:
    """Minus the mean over coordinates of the variance, over inputs, of their squares (Kaiser 1958, raw varimax)."""
    return -x.square().var(0, correction=0).mean()


def _varimax_slope(
    x: Float[Tensor, "n_inputs d_out n_columns"], epsilon: float
) -> Float[Tensor, "n_inputs d_out n_columns"]:
    squares = x.square()
    return (squares.mean(0) - squares).mul_(x).mul_(4 / x.numel())


OBJECTIVES: dict[str, Objective] = {
    # a smooth count of what is not zero
    "rational": Objective(
        lambda x, epsilon: (x.abs() / (x.abs() + epsilon)).mean(),
        lambda x, epsilon: x.sign().div_((x.abs() + epsilon).square_()).mul_(epsilon / x.numel()),
    ),
    "log": Objective(
        lambda x, epsilon: (x / epsilon).square_().log1p_().mean(),
        lambda x, epsilon: x / x.square().add_(epsilon * epsilon).mul_(x.numel() / 2),
    ),
    "l1": Objective(lambda x, epsilon: x.abs().mean(), lambda x, epsilon: x.sign().div_(x.numel())),
    # on activations: quartimax (Neuhaus and Wrigley 1954)
    "l4": Objective(
        lambda x, epsilon: -x.square().square_().mean(),
        lambda x, epsilon: x.square().mul_(x).mul_(-4 / x.numel()),
    ),
    "hoyer": Objective(_hoyer, _hoyer_slope, separable=False),
    "varimax": Objective(_varimax, _varimax_slope, separable=False),
}


@torch.no_grad()
def mass_in_largest(x: Float[Tensor, "n_inputs d_out n_columns"], fraction: float = 0.01) -> float:
    """Share of the sum of squares in the largest `fraction` of the entries of each input, mean over inputs."""
    squares = x.flatten(1).square()
    k = max(1, round(fraction * squares.shape[1]))
    return float((squares.topk(k, dim=1).values.sum(1) / squares.sum(1)).double().mean())


@torch.no_grad()
def kurtosis(x: Float[Tensor, "n d"]) -> float:
    """Mean over coordinates of their kurtosis over rows; 3 for normal ones. Constant coordinates are left out."""
    centred = x.double() - x.double().mean(0)
    variance = centred.square().mean(0)
    varies = variance > 1e-12 * variance.max()
    return float((centred.pow(4).mean(0)[varies] / variance[varies].square()).mean())
