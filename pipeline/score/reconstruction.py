"""How much of the activations a dictionary keeps: sums in float64 over all rows, never means of batches' means."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
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
    cosines: float = 0.0
    ratios: float = 0.0
    n_rows: float = 0

    def add(self, x: Num[Tensor, "n d"], x_hat: Num[Tensor, "n d"]) -> None:
        """x, x_hat: (n, d)."""
        x, x_hat = x.double(), x_hat.double()
        squares, own = x.square().sum(-1), x_hat.square().sum(-1)
        errors = (x - x_hat).square().sum(-1)
        self.error += float(errors.sum())
        self.variance += float((x - self.mean.to(x.device)).square().sum())
        self.power += float(squares.sum())
        products = (squares + own - errors) / 2  # x · x_hat, without another pass
        self.cosines += float((products / (squares * own).sqrt().clamp_min(_TINY)).sum())
        self.ratios += float((own / squares.clamp_min(_TINY)).sqrt().sum())
        self.n_rows += len(x)

    def merge(self, later: "Reconstruction") -> None:
        """later: of rows that come after these."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(later, name))

    def array(self) -> np.ndarray:
        return np.array([getattr(self, name) for name in _SUMS], np.float64)

    def load(self, array: np.ndarray) -> None:
        for name, value in zip(_SUMS, array.tolist(), strict=True):
            setattr(self, name, value)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: 0 is perfect, 1 is what predicting the mean gives.

        fvu = Σ |x - x_hat|² / Σ |x - mean|². Dimensionless; explained variance = 1 - fvu.

        Raises ValueError: x has no variance.
        """
        if self.variance == 0:
            raise ValueError(f"the {self.n_rows:.0f} rows are all the same: FVU is not defined")
        return self.error / self.variance

    @property
    def normalized_mse(self) -> float:
        """Σ |x - x_hat|² / Σ |x|², as OpenAI's normalised MSE: smaller than FVU where the mean is large."""
        return self.error / self.power

    @property
    def cosine(self) -> float:
        """The mean over rows of the cosine between x and x_hat; a row or a reconstruction of zeros counts 0."""
        return self.cosines / self.n_rows

    @property
    def norm_ratio(self) -> float:
        """The mean over rows of |x_hat| / |x|: below 1 where reconstructions shrink."""
        return self.ratios / self.n_rows


_SUMS = ("error", "variance", "power", "cosines", "ratios", "n_rows")
_TINY = 1e-300


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
        return self._mean("fvu")

    @property
    def normalized_mse(self) -> float:
        return self._mean("normalized_mse")

    @property
    def cosine(self) -> float:
        return self._mean("cosine")

    @property
    def norm_ratio(self) -> float:
        return self._mean("norm_ratio")

    def _mean(self, name: str) -> float:
        return sum(getattr(one, name) for one in self.of.values()) / len(self.of)

    def merge(self, later: "ByHookPoint") -> None:
        """later: of rows that come after these."""
        for hook_point, one in self.of.items():
            one.merge(later.of[hook_point])

    def arrays(self) -> dict[str, np.ndarray]:
        return {hook_point: one.array() for hook_point, one in self.of.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        for hook_point, one in self.of.items():
            one.load(arrays[hook_point])


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
