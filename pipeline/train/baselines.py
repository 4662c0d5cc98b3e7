"""Dictionaries that need no training: what a learned one has to beat."""

import numpy as np
import torch
from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.rotations.msp import random_rotation
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec


class NeuronBasisConfig(MethodConfig):
    """The coordinates as they are."""


class RandomConfig(MethodConfig):
    """A rotation drawn uniformly."""

    seed: int = Field(default=0, ge=0)


class PCAConfig(MethodConfig):
    """Principal components, in falling order of variance, of n_rows training rows. d_sae: how many, all by default."""

    n_rows: int = Field(default=65_536, ge=2)
    d_sae: int | None = Field(default=None, ge=1)

    def check(self, d_in: int, hook_point: str) -> None:
        if self.d_sae is not None and self.d_sae > d_in:
            raise ValueError(f"d_sae = {self.d_sae} is more than the {d_in} components there are")
        if self.n_rows < d_in:
            raise ValueError(f"n_rows = {self.n_rows} rows have fewer components than the {d_in} coordinates")


def _linear(basis: torch.Tensor, source: Source, provenance: dict) -> FeatureDictionary:
    """z = basis (x - mean); basis: (d_sae, d_in), orthonormal rows."""
    spec = Spec("linear", basis.shape[1], len(basis), Site.at(source.hook_point), provenance=provenance)
    mean = torch.from_numpy(source.moments.mean)
    return FeatureDictionary(spec, basis.T, torch.zeros(len(basis)), basis, mean)


def neuron_basis(config: NeuronBasisConfig, source: Source, provenance: dict) -> FeatureDictionary:
    return _linear(torch.eye(len(source.moments.mean)), source, provenance)


def random(config: RandomConfig, source: Source, provenance: dict) -> FeatureDictionary:
    return _linear(random_rotation(len(source.moments.mean), config.seed), source, provenance)


def pca(config: PCAConfig, source: Source, provenance: dict) -> FeatureDictionary:
    """Raises ValueError: fewer rows than coordinates."""
    x = source.rows(config.n_rows)
    if len(x) < x.shape[1]:
        raise ValueError(
            f"PCA at {source.hook_point}: {len(x)} training rows for {x.shape[1]} coordinates, extract more"
        )
    from sklearn.decomposition import PCA  # imported late: it takes a second

    # float64: in float32 the small eigenvalues of a residual stream drown in the large ones
    fitted = PCA(config.d_sae, svd_solver="covariance_eigh").fit(x.astype(np.float64))
    return _linear(torch.from_numpy(fitted.components_), source, provenance)
