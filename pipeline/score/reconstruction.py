"""How much of the activations a dictionary keeps: sums in float64 over all rows, never means of batches' means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor


class Target:
    """Rows of a hook point that is written, and what they add to the sums of every dictionary. mean: (d,) float64, of the
    store's rows: what FVU compares with."""

    def __init__(self, y: Num[Tensor, "n d"], mean: Float[Tensor, " d"]) -> None:
        self.y = y.double()
        self.norms = torch.linalg.vector_norm(self.y, dim=-1)
        self.power = float(self.norms.square().sum())
        self.variance = float(torch.linalg.vector_norm(self.y - mean.to(y.device), dim=-1).square().sum())


@dataclass
class Reconstruction:
    """Streaming sums."""

    error: float = 0.0
    variance: float = 0.0
    power: float = 0.0
    cosines: float = 0.0
    ratios: float = 0.0
    n_rows: float = 0

    def add(self, target: Target, y_hat: Num[Tensor, "n d"]) -> None:
        """y_hat: of the target's rows."""
        made = y_hat.to(torch.float64, copy=True)
        own = torch.linalg.vector_norm(made, dim=-1)
        errors = torch.linalg.vector_norm(made.sub_(target.y), dim=-1).square()
        self.error += float(errors.sum())
        self.variance += target.variance
        self.power += target.power
        products = (target.norms.square() + own.square() - errors) / 2  # y · y_hat, without another pass
        self.cosines += float((products / (target.norms * own).clamp_min(_TINY)).sum())
        self.ratios += float((own / target.norms.clamp_min(_TINY)).sum())
        self.n_rows += len(made)

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

        fvu = Σ |y - y_hat|² / Σ |y - mean|². Dimensionless; explained variance = 1 - fvu.

        Raises ValueError: y has no variance.
        """
        if self.variance == 0:
            raise ValueError(f"the {self.n_rows:.0f} rows are all the same: FVU is not defined")
        return self.error / self.variance

    @property
    def normalized_mse(self) -> float:
        """Σ |y - y_hat|² / Σ |y|², as OpenAI's normalised MSE: smaller than FVU where the mean is large."""
        return self.error / self.power

    @property
    def cosine(self) -> float:
        """The mean over rows of the cosine between y and y_hat; a row or a reconstruction of zeros counts 0."""
        return self.cosines / self.n_rows

    @property
    def norm_ratio(self) -> float:
        """The mean over rows of |y_hat| / |y|: below 1 where reconstructions shrink."""
        return self.ratios / self.n_rows


_SUMS = ("error", "variance", "power", "cosines", "ratios", "n_rows")
_TINY = 1e-150


class ByHookPoint:
    """A Reconstruction of each hook point that is written, by its name."""

    def __init__(self, writes: Sequence[str]) -> None:
        self.of = {hook_point: Reconstruction() for hook_point in writes}

    def add(self, targets: Mapping[str, Target], y_hat: Float[Tensor, "n d_out"]) -> None:
        """y_hat: (n, d_out), concatenated in the hook points' order."""
        parts = y_hat.split([targets[hook_point].y.shape[-1] for hook_point in self.of], dim=-1)
        for (hook_point, one), part in zip(self.of.items(), parts, strict=True):
            one.add(targets[hook_point], part)

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
