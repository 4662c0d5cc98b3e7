"""Dictionaries that need no training: what a learned one has to beat."""

import numpy as np
import torch
from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.linear import linear
from pipeline.train.rotations.msp import random_rotation
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.site import Site


class NeuronBasisConfig(MethodConfig):
    """The coordinates as they are."""


class RandomConfig(MethodConfig):
    """A rotation drawn uniformly."""

    seed: int = Field(default=0, ge=0, description="Of the rotation.")


class ComponentsConfig(MethodConfig):
    """Settings of what is found in some of the training rows at once."""

    n_rows: int = Field(default=65_536, ge=2, description="How many training rows are looked at.")
    d_sae: int | None = Field(
        default=None, ge=1, description="How many components there are. By default as many as coordinates."
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.d_sae is not None and self.d_sae > d_in:
            raise ValueError(f"d_sae = {self.d_sae} is more than the {d_in} components there are")
        if self.n_rows < d_in:
            raise ValueError(f"n_rows = {self.n_rows} rows have fewer components than the {d_in} coordinates")


class PCAConfig(ComponentsConfig):
    """Principal components, in falling order of variance."""


def _orthonormal(source: Source, rows: torch.Tensor, provenance: dict) -> FeatureDictionary:
    return linear(source, rows.T, rows, provenance)


def neuron_basis(config: NeuronBasisConfig, source: Source, provenance: dict) -> FeatureDictionary:
    return _orthonormal(source, torch.eye(source.reads.d), provenance)


def random(config: RandomConfig, source: Source, provenance: dict) -> FeatureDictionary:
    return _orthonormal(source, random_rotation(source.reads.d, config.seed), provenance)


def pca(config: PCAConfig, source: Source, provenance: dict) -> FeatureDictionary:
    """Raises ValueError: fewer rows than coordinates."""
    x = source.reads.rows(config.n_rows)
    if len(x) < x.shape[1]:
        raise ValueError(
            f"PCA at {source.site.name}: {len(x)} training rows for {x.shape[1]} coordinates, extract more"
        )
    from sklearn.decomposition import PCA  # imported late: it takes a second

    # float64: in float32 the small eigenvalues of a residual stream drown in the large ones
    fitted = PCA(config.d_sae, svd_solver="covariance_eigh").fit(x.astype(np.float64))
    return _orthonormal(source, torch.from_numpy(fitted.components_), provenance)
