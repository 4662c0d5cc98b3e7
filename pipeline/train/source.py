"""What a method can know of the activations at a site before it learns from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.models.mlp import MLP
from pipeline.train.ranks import ALONE, Ranks
from stores.moments import Moments, moments_from, row_sums
from stores.site import Site
from stores.spec import Spec

Rows = Callable[[int], np.ndarray]


class Weights(Protocol):
    """The language model's weights, as far as training looks at them."""

    def writer(self, hook_point: str) -> Tensor:
        """(d, d_read): the matrix whose product with what a layer reads is written to the hook point."""
        ...

    def mlp(self, layer: int) -> MLP:
        """The MLP of a layer and the layer norm before it."""
        ...


@dataclass(frozen=True)
class Activations:
    """Rows at hook points, concatenated in their order.

    moments: of all training rows, one of each hook point. rows(n): (n, d) float32, the first n training rows in the order
    of learning, or all that there are. heldout(n): (n, d) float32 rows that no learning sees, for measures; as many as
    there are.
    """

    hook_points: tuple[str, ...]
    moments: tuple[Moments, ...]
    rows: Rows
    heldout: Rows

    @property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of each hook point."""
        return tuple(len(moments.mean) for moments in self.moments)

    @property
    def d(self) -> int:
        return sum(self.sizes)

    @cached_property
    def mean(self) -> np.ndarray:
        """(d,) float64."""
        return np.concatenate([moments.mean for moments in self.moments])

    @cached_property
    def scale(self) -> float | Tensor:
        """What rows are multiplied by so that each hook point's E|x - mean|² is its d: a number, or (d,) float32."""
        scales = [moments.scale for moments in self.moments]
        return scales[0] if len(scales) == 1 else torch.tensor(np.repeat(scales, self.sizes), dtype=torch.float32)

    @cached_property
    def common_scale(self) -> float:
        """One number in the scale's place: with it E|x - mean|² is d, of all hook points together."""
        variance = sum(moments.total_variance for moments in self.moments)
        return self.scale if isinstance(self.scale, float) else math.sqrt(self.d / variance) if variance > 0 else 1.0


@dataclass(frozen=True)
class Source:
    """reads, writes: what is known of both sides of a site; the same of an autoencoder. weights(): of the model that the
    store was made from. ranks: who learns together. precision: of the matrix products; "auto" is bfloat16 where the
    hardware multiplies it. Where the store does not hold what is written, writes is None: what only reads can learn there.
    """

    site: Site
    reads: Activations
    writes: Activations | None
    weights: Callable[[], Weights]
    ranks: Ranks = ALONE
    precision: str = "auto"

    @classmethod
    def at(
        cls,
        hook_point: str,
        moments: Moments,
        rows: Rows,
        heldout: Rows,
        weights: Callable[[], Weights],
        ranks: Ranks = ALONE,
        precision: str = "auto",
    ) -> "Source":
        """Of an autoencoder of one hook point."""
        own = Activations((hook_point,), (moments,), rows, heldout)
        return cls(Site.at(hook_point), own, own, weights, ranks, precision)

    @classmethod
    def of_rows(cls, site: Site, rows: Mapping[str, Tensor], ranks: Ranks = ALONE, precision: str = "auto") -> "Source":
        """Of rows at hand, {hook point: (n, d)}, from no model."""

        def weights() -> Weights:
            raise ValueError("these rows come from no model: its weights cannot be looked at")

        def known(hook_points: tuple[str, ...]) -> Activations:
            x = torch.cat([rows[hook_point].float() for hook_point in hook_points], dim=-1).cpu().numpy()
            moments = tuple(moments_from(row_sums(rows[h].float().cpu().numpy(), "float32")[0]) for h in hook_points)
            return Activations(hook_points, moments, lambda n: x[:n], lambda n: x[-n:])

        reads = known(site.reads)
        return cls(site, reads, reads if site.reads == site.writes else known(site.writes), weights, ranks, precision)

    @property
    def autoencodes(self) -> bool:
        """Whether a dictionary writes what it reads."""
        return self.site.reads == self.site.writes

    @property
    def targets(self) -> Activations:
        """What is written. Raises ValueError: the store does not hold it."""
        if self.writes is None:
            raise ValueError(f"the store does not hold {', '.join(self.site.writes)}")
        return self.writes

    def spec(self, architecture: str, d_sae: int, provenance: dict, k: int = 0, skip: bool = False) -> Spec:
        """Of a dictionary at this site. Raises ValueError: the store does not hold what is written."""
        sizes = self.targets.sizes
        d_out = None if self.autoencodes else self.targets.d
        d_writes = sizes if len(sizes) > 1 else ()
        return Spec(architecture, self.reads.d, d_sae, self.site, k, provenance, d_out, d_writes, skip)
