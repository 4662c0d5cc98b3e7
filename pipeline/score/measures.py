"""What is measured of a dictionary on held-out rows, in one protocol: how much it keeps, and how sparsely."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.score.codes import Entries, decoded, unencoded
from pipeline.score.config import ScoreConfig
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.reconstruction import ByHookPoint, Target
from stores.dictionary import FeatureDictionary, largest
from stores.site import Site

_DENSE = 0.1  # a density above it is called dense


@dataclass(frozen=True)
class Rows:
    """What a dictionary makes of some rows. targets: what is to be made, by hook points written; z: the code of what is
    read."""

    dictionary: FeatureDictionary
    x: Float[Tensor, "n d_in"]
    targets: Mapping[str, Target]
    z: Float[Tensor, "n d_sae"]

    @classmethod
    def of(
        cls, dictionary: FeatureDictionary, site: Site, values: Mapping[str, Tensor], targets: Mapping[str, Target]
    ) -> "Rows":
        """values: (n, d) float32 at each hook point of the site."""
        x = torch.cat([values[h] for h in site.reads], dim=-1)
        return cls(dictionary, x, targets, dictionary.encode(x))

    @cached_property
    def entries(self) -> Entries:
        return Entries.of(self.z)

    @cached_property
    def unencoded(self) -> Tensor:
        """What of y_hat does not come from the code."""
        return unencoded(self.dictionary, self.x)

    def made(self) -> Iterator[Float[Tensor, "n d_out"]]:
        """What the dictionary makes."""
        W_dec = self.dictionary.W_dec
        yield (decoded(self.z, self.entries, W_dec) if self.dictionary.sparse else self.z @ W_dec) + self.unencoded

    def made_of_largest(self, ks: Sequence[int]) -> Iterator[Float[Tensor, "n d_out"]]:
        """What it makes of the k entries of largest magnitude of each row."""
        values, indices = largest(self.z, min(max(ks), self.z.shape[-1]))
        for k in ks:
            own = {"mode": "sum", "per_sample_weights": values[:, :k]}
            yield F.embedding_bag(indices[:, :k], self.dictionary.W_dec, **own) + self.unencoded

    def made_of_first(self, ks: Sequence[int]) -> Iterator[Float[Tensor, "n d_out"]]:
        """What it makes of each row's first k: for PCA, the k components of largest variance."""
        for k in ks:
            yield self.z[:, :k] @ self.dictionary.W_dec[:k] + self.unencoded


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
        self.histogram.add(rows.entries)

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
    """How much of what is written is made, by column. make: what is compared, for each of the columns."""

    def __init__(
        self, writes: Sequence[str], columns: Sequence[str], make: Callable[[Rows], Iterator[Tensor]] = Rows.made
    ) -> None:
        self.sums, self.make = {column: ByHookPoint(writes) for column in columns}, make

    def add(self, rows: Rows) -> None:
        for sums, y_hat in zip(self.sums.values(), self.make(rows), strict=True):
            sums.add(rows.targets, y_hat)

    def merge(self, later: Self) -> None:
        for column, sums in self.sums.items():
            sums.merge(later.sums[column])

    def state(self) -> dict[str, np.ndarray]:
        return {f"{c}/{h}": array for c, sums in self.sums.items() for h, array in sums.arrays().items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        for column, sums in self.sums.items():
            sums.load({h: state[f"{column}/{h}"] for h in sums.of})

    def columns(self) -> dict[str, float]:
        return {column: sums.fvu for column, sums in self.sums.items()}


def measures_of(dictionary: FeatureDictionary, config: ScoreConfig, ordered: bool) -> dict[str, Measure]:
    """By name. ordered: the first features are the largest."""
    writes = dictionary.site.writes
    found: dict[str, Measure] = {"sparsity": Sparsity(dictionary.d_sae), "whole": Kept(writes, ["fvu"])}
    ks = [] if dictionary.sparse else sorted({k for k in config.at_l0 if k < dictionary.d_sae})
    if ks:
        names = [f"fvu_at_l0_{k}" for k in ks]
        found["largest"] = Kept(writes, names, lambda rows: rows.made_of_largest(ks))
    if ks and ordered:
        found["first"] = Kept(writes, [f"fvu_first_{k}" for k in ks], lambda rows: rows.made_of_first(ks))
    return found


def columns_of(config: ScoreConfig, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """What measures_of has found."""
    sparsity, whole = measures["sparsity"], measures["whole"]
    assert isinstance(sparsity, Sparsity)
    assert isinstance(whole, Kept)
    sums = whole.sums["fvu"]
    return {
        **sparsity.columns(config),
        "normalized_mse": sums.normalized_mse,
        "cosine": sums.cosine,
        "norm_ratio": sums.norm_ratio,
        **{column: fvu for one in measures.values() if isinstance(one, Kept) for column, fvu in one.columns().items()},
        **({f"fvu[{h}]": one.fvu for h, one in sums.of.items()} if len(sums.of) > 1 else {}),
    }


def histogram_of(measures: Mapping[str, Measure]) -> ActivationHistogram:
    """Of what measures_of has found."""
    sparsity = measures["sparsity"]
    assert isinstance(sparsity, Sparsity)
    return sparsity.histogram


def _rare(density: Tensor, below: float, n_rows: int) -> int | None:
    return int(((density > 0) & (density < below)).sum()) if below * n_rows >= 1 else None
