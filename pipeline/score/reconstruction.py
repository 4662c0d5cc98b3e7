"""How much of the activations a dictionary keeps: sums in float64 over all rows, never means of batches' means."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor


@dataclass
class Reconstruction:
    """Streaming sums. mean: (d,), of the store's rows, float64: what FVU compares with."""

    mean: Tensor
    error: float = 0.0
    variance: float = 0.0
    power: float = 0.0
    n_rows: int = 0

    def add(self, x: Num[Tensor, "n d"], x_hat: Num[Tensor, "n d"]) -> None:
        """x, x_hat: (n, d)."""
        x = x.double()
        self.error += float((x - x_hat.double()).square().sum())
        self.variance += float((x - self.mean.to(x.device)).square().sum())
        self.power += float(x.square().sum())
        self.n_rows += len(x)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: 0 is perfect, 1 is what predicting the mean gives.

        fvu = Σ |x - x_hat|² / Σ |x - mean|². Dimensionless; explained variance = 1 - fvu.

        Raises ValueError: x has no variance.
        """
        if self.variance == 0:
            raise ValueError(f"the {self.n_rows} rows are all the same: FVU is not defined")
        return self.error / self.variance

    @property
    def normalized_mse(self) -> float:
        """Σ |x - x_hat|² / Σ |x|², as OpenAI's normalised MSE: smaller than FVU where the mean is large."""
        return self.error / self.power


class ByHookPoint:
    """A Reconstruction of each hook point that is written, by its name. means: (d,) each, as Reconstruction has them."""

    def __init__(self, means: Mapping[str, Tensor]) -> None:
        self.of = {hook_point: Reconstruction(mean) for hook_point, mean in means.items()}

    def add(self, y: Mapping[str, Float[Tensor, "n _"]], y_hat: Float[Tensor, "n d_out"]) -> None:
        """y: (n, d) each. y_hat: (n, d_out), concatenated in the order of means."""
        parts = y_hat.split([len(one.mean) for one in self.of.values()], dim=-1)
        for (hook_point, one), part in zip(self.of.items(), parts, strict=True):
            one.add(y[hook_point], part)

    @property
    def fvu(self) -> float:
        """The mean over hook points, each of which counts the same whatever its scale."""
        return sum(one.fvu for one in self.of.values()) / len(self.of)

    @property
    def normalized_mse(self) -> float:
        return sum(one.normalized_mse for one in self.of.values()) / len(self.of)


@torch.no_grad()
def keep_largest(z: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    """z (n, d_sae) with all but the k entries of largest magnitude of each row set to zero."""
    if k >= z.shape[-1]:
        return z
    indices = z.abs().topk(k, dim=-1).indices
    return torch.zeros_like(z).scatter(-1, indices, z.gather(-1, indices))


def keep_first(z: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    """z with all but its first k coordinates set to zero: for PCA, the k components of largest variance."""
    return torch.cat([z[..., :k], torch.zeros_like(z[..., k:])], dim=-1)
