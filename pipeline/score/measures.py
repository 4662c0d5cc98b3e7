"""What is measured of a dictionary on held-out rows, in one protocol: how much it keeps, and how sparsely."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.score.config import ScoreConfig
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.reconstruction import ByHookPoint, keep_first, keep_largest
from stores.dictionary import FeatureDictionary
from stores.site import Site

Truncation = Callable[[Tensor], Tensor]
_DENSE = 0.1  # a density above it is called dense


@dataclass(frozen=True)
class Rows:
    """What a dictionary makes of some rows. y: what is to be made, (n, d) at each hook point written; z: the code of what
    is read."""

    dictionary: FeatureDictionary
    x: Float[Tensor, "n d_in"]
    y: Mapping[str, Tensor]
    z: Float[Tensor, "n d_sae"]

    @classmethod
    def of(cls, dictionary: FeatureDictionary, site: Site, values: Mapping[str, Tensor]) -> "Rows":
        """values: (n, d) float32 at each hook point of the site."""
        x = torch.cat([values[h] for h in site.reads], dim=-1)
        return cls(dictionary, x, {h: values[h] for h in site.writes}, dictionary.encode(x))

    def made_of(self, z: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_out"]:
        """What the dictionary makes of a code, with what its W_skip adds."""
        y_hat = self.dictionary.decode(z)
        return y_hat + self.x @ self.dictionary.W_skip if self.dictionary.spec.skip else y_hat


class Measure(ABC):
    """Sums over rows. What is merged in the order of the rows is the same, to the bit, whoever added which of them."""

    @abstractmethod
    def add(self, rows: Rows) -> None: ...

    @abstractmethod
    def merge(self, later: Self) -> None:
        """later: of rows that come after these."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def load(self, state: Mapping[str, np.ndarray]) -> None: ...


class Sparsity(Measure):
    """How often, and how strongly, each feature is active."""

    def __init__(self, d_sae: int) -> None:
        self.histogram = ActivationHistogram.empty(d_sae)

    def add(self, rows: Rows) -> None:
        self.histogram.add(rows.z)

    def merge(self, later: Self) -> None:
        self.histogram.merge(later.histogram)

    def state(self) -> dict[str, np.ndarray]:
        return self.histogram.arrays()

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.histogram = ActivationHistogram.of(state)

    def columns(self, config: ScoreConfig) -> dict[str, Any]:
        histogram = self.histogram
        density, n_rows = histogram.density, histogram.n_rows
        return {
            "l0": histogram.mean_l0,
            "l0_p10": histogram.l0_quantile(0.1),
            "l0_p90": histogram.l0_quantile(0.9),
            "dead": int((density == 0).sum()),
            "ultra_low_density": _rare(density, config.ultra_low_density, n_rows),
            "dense": int((density > _DENSE).sum()),
            "n_rows": n_rows,
        }


class Kept(Measure):
    """How much of what is written a dictionary makes, of its code or of a part of it."""

    def __init__(self, means: Mapping[str, Tensor], truncate: Truncation | None = None) -> None:
        self.sums, self.truncate = ByHookPoint(means), truncate

    def add(self, rows: Rows) -> None:
        self.sums.add(rows.y, rows.made_of(self.truncate(rows.z) if self.truncate else rows.z))

    def merge(self, later: Self) -> None:
        self.sums.merge(later.sums)

    def state(self) -> dict[str, np.ndarray]:
        return self.sums.arrays()

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.sums.load(state)


def measures_of(
    dictionary: FeatureDictionary, means: Mapping[str, Tensor], kept: Mapping[str, Truncation]
) -> dict[str, Measure]:
    """By name; "fvu" and the names of kept are columns. means: of the store's rows, (d,) float64 by hook point."""
    parts = {column: Kept(means, truncate) for column, truncate in kept.items()}
    return {"sparsity": Sparsity(dictionary.d_sae), "fvu": Kept(means), **parts}


def columns_of(config: ScoreConfig, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """What measures_of has found."""
    sparsity, whole = measures["sparsity"], measures["fvu"]
    assert isinstance(sparsity, Sparsity)
    assert isinstance(whole, Kept)
    kept = {column: one.sums for column, one in measures.items() if isinstance(one, Kept)}
    by_hook_point = whole.sums.of
    return {
        **sparsity.columns(config),
        "normalized_mse": whole.sums.normalized_mse,
        "cosine": whole.sums.cosine,
        "norm_ratio": whole.sums.norm_ratio,
        **{column: sums.fvu for column, sums in kept.items()},
        **({f"fvu[{h}]": one.fvu for h, one in by_hook_point.items()} if len(by_hook_point) > 1 else {}),
    }


def histogram_of(measures: Mapping[str, Measure]) -> ActivationHistogram:
    """Of what measures_of has found."""
    sparsity = measures["sparsity"]
    assert isinstance(sparsity, Sparsity)
    return sparsity.histogram


def _rare(density: Tensor, below: float, n_rows: int) -> int | None:
    return int(((density > 0) & (density < below)).sum()) if below * n_rows >= 1 else None


def truncations(dictionary: FeatureDictionary, config: ScoreConfig, ordered: bool) -> dict[str, Truncation]:
    """Of a dense dictionary: columns, and what of its code they keep. ordered: its first features are the largest."""
    if dictionary.sparse:
        return {}
    kept: dict[str, Truncation] = {}
    for k in config.at_l0:
        if k < dictionary.d_sae:
            kept[f"fvu_at_l0_{k}"] = lambda z, k=k: keep_largest(z, k)
            if ordered:
                kept[f"fvu_first_{k}"] = lambda z, k=k: keep_first(z, k)
    return kept
