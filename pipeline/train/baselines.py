"""Dictionaries that need no training: what a learned one has to beat."""

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import normalize

from pipeline.config import MethodConfig
from pipeline.train.initialisation import centred, gaussian, principal
from pipeline.train.linear import linear
from pipeline.train.rotations.msp import random_rotation
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
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


class CovarianceConfig(MethodConfig):
    """Directions drawn from a Gaussian with the rows' covariance, of which the k that fit a row best make it."""

    d_sae: int = Field(ge=1, description="Number of directions.")
    k: int = Field(default=32, ge=1, description="Active features a token.")
    seed: int = Field(default=0, ge=0, description="Of the draw.")
    n_rows: int = Field(default=65_536, ge=2, description="How many training rows the covariance is taken of.")

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.k > self.d_sae:
            raise ValueError(f"k = {self.k} is more than d_sae = {self.d_sae}")


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


_ROWS_OF_FACTOR, _BLOCK = 4096, 256


def covariance(config: CovarianceConfig, source: Source, provenance: dict) -> FeatureDictionary:
    """z = c ReLU(TopK((x - mean) Dᵀ)), x_hat = z D + mean: rows of D are of unit length, in the directions of draws from
    N(0, C), on scaled activations.

    Directions overlap, so that the projections on k of them add up to too much: c = Σ |z|² / Σ |z D|² before it makes the
    squared error least, of the first 4,096 training rows. A control: nothing is learned but the mean, C and c.
    """
    generator = torch.Generator().manual_seed(seed_of("covariance", config.seed, config.d_sae))
    variance, components = principal(source.reads, config.n_rows)
    D = normalize(gaussian(config.d_sae, variance, components, generator), dim=-1).float()
    projected, made = 0.0, 0.0
    for x in centred(source.reads, _ROWS_OF_FACTOR).float().split(_BLOCK):
        values, indices = (x @ D.T).topk(config.k, dim=-1)
        z = torch.zeros(len(x), config.d_sae).scatter(-1, indices, values.relu())
        projected += float(z.double().square().sum())
        made += float((z @ D).double().square().sum())
    c = projected / made if made else 1.0
    # Codes are in units of the activations; where hook points have scales of their own, of one that all have in common.
    ratio = torch.as_tensor(source.reads.scale / source.reads.common_scale, dtype=torch.float32).expand(source.reads.d)
    spec = source.spec("topk", config.d_sae, provenance, config.k)
    mean = torch.from_numpy(source.reads.mean)
    return FeatureDictionary(spec, c * (D * ratio).T, torch.zeros(config.d_sae), D / ratio, mean)
