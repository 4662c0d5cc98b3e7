"""Rows of known features in superposition, their store, and the dictionaries that are known without learning.

    x = (active ∘ strength) F        F (G, d) unit rows, strength ~ U[0, 1), the i-th feature less often by decay^i

Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders". What its code does
otherwise is a setting each; SOURCE has them all.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from stores.activations import ActivationStore
from stores.description import Description
from stores.dictionary import FeatureDictionary
from stores.manifest import digest, seed_of
from stores.site import Site
from stores.spec import Spec
from stores.writer import StoreWriter

HOOK_POINT = "synthetic"
_SEQUENCE = 64  # rows that the store calls a sequence; they have no order
CHUNK = 4096

Correlation = Literal["none", "sample", "batch"]


class DataConfig(Config):
    """G features in d dimensions, k active on average.

    correlation: "sample", which features come together follows a random covariance for each row; "batch", one draw of it
    for each 256 rows, so that within these the features are independent; "none", independent, with p_i = decay^i k / G not
    scaled up to k. covariance: its entries are U[0, 1) above the diagonal and mirrored, or the averages (A + Aᵀ) / 2 of
    such a matrix A. rescale: mean p is k / G over a block of 4096 rows, or over each draw. strength: U[0, 1), or a product
    of two of them. features: directions drawn uniformly, or "axes", sums of two coordinates with random signs.
    """

    d: int = Field(default=64, ge=1)
    G: int = Field(default=128, ge=1)
    k: float = Field(default=5.0, gt=0)
    decay: float = Field(default=0.99, gt=0, le=1)
    correlation: Correlation = "sample"
    covariance: Literal["mirrored", "averaged"] = "mirrored"
    rescale: Literal["block", "draw"] = "block"
    strength: Literal["uniform", "product"] = "uniform"
    features: Literal["random", "axes"] = "random"
    n_rows: int = Field(default=280_000, ge=4 * CHUNK)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> "DataConfig":
        if self.k > self.G:
            raise ValueError(f"k = {self.k:g} features active of G = {self.G}: a probability above 1")
        return self


SOURCE: dict[str, Any] = {
    "correlation": "batch",
    "covariance": "averaged",
    "rescale": "draw",
    "strength": "product",
}  # besides, a step of training there sees the 256 rows of one draw


@dataclass(frozen=True)
class Data:
    """The generator of a DataConfig's rows."""

    config: DataConfig

    @cached_property
    def F(self) -> Tensor:
        """(G, d) unit rows: what each feature adds to a row at strength 1."""
        c = self.config
        generator = torch.Generator().manual_seed(seed_of("features", c.seed, c.G, c.d))
        if c.features == "random":
            return torch.nn.functional.normalize(torch.randn(c.G, c.d, generator=generator), dim=-1)
        pairs = torch.rand(c.G, c.d, generator=generator).topk(2).indices
        signs = 2.0 * torch.randint(0, 2, (c.G, 2), generator=generator) - 1
        return torch.zeros(c.G, c.d).scatter_(1, pairs, signs / 2**0.5)

    @cached_property
    def p(self) -> Tensor:
        """(G,) probabilities of the uncorrelated form, with mean k / G in the correlated ones."""
        c = self.config
        falling = c.decay ** torch.arange(c.G)
        p = falling * (c.k / c.G)
        return p if c.correlation == "none" else (p / falling.mean()).clamp_max(1)

    @cached_property
    def _factor(self) -> Tensor:
        """(G, G): A = factor factorᵀ, a random symmetric matrix made positive."""
        G = self.config.G
        generator = torch.Generator().manual_seed(seed_of("correlation", self.config.seed, G))
        A = torch.rand(G, G, generator=generator, dtype=torch.double)
        A = A.triu() + A.triu(1).T if self.config.covariance == "mirrored" else (A + A.T) / 2
        A = A - min(0.0, 1.001 * float(torch.linalg.eigvalsh(A)[0])) * torch.eye(G)
        return torch.linalg.cholesky(A + 1e-9 * torch.eye(G)).float()

    def codes(self, block: int, n: int = CHUNK) -> Tensor:
        """(n, G) strengths, 0 where not active: the block-th n rows. A function of the config, block and n alone."""
        c = self.config
        generator = torch.Generator().manual_seed(seed_of("codes", digest(c.model_dump()), block, n))
        p = self.p
        if c.correlation != "none":
            rows = 256 if c.correlation == "batch" else 1
            z = torch.randn(-(-n // rows), c.G, generator=generator) @ self._factor.T
            p = torch.special.ndtr(z) * c.decay ** torch.arange(c.G)
            mean = p.mean() if c.rescale == "block" else p.mean(1, keepdim=True)
            p = (p * (c.k / c.G / mean)).repeat_interleave(rows, 0)[:n]
        active = torch.rand(n, c.G, generator=generator) < p
        strength = torch.rand(n, c.G, generator=generator)
        if c.correlation != "none":  # as in the source
            empty = (~active).all(1)
            one = torch.randint(0, c.G, (n,), generator=generator)
            active[empty, one[empty]], strength[empty, one[empty]] = True, 1.0
        if c.strength == "product":
            strength = strength * torch.rand(n, c.G, generator=generator)
        return active * strength

    def rows(self, block: int, n: int = CHUNK) -> Tensor:
        """(n, d)"""
        return self.codes(block, n) @ self.F


def write_store(data: Data, path: Path) -> ActivationStore:
    """The rows as an ordinary store of float32, made by no model. Goes on where it was stopped."""
    c = data.config
    n_chunks = c.n_rows // CHUNK
    description = Description(
        model="none", model_revision=None, model_digest=digest(c.model_dump()), tokenizer_digest="none",
        weight_processing="none", precision="float32", text="none", text_digest=None, context=_SEQUENCE,
        positions=tuple(range(_SEQUENCE)), bos=False, hook_points=(HOOK_POINT,), d=(c.d,), dtype="float32",
        n_sequences=n_chunks * CHUNK // _SEQUENCE, heldout_fraction=0.1, chunk_sequences=CHUNK // _SEQUENCE,
        shard_chunks=16,
    )  # fmt: skip
    writer = StoreWriter.create(path, description)
    per_shard = description.shard_sequences // (CHUNK // _SEQUENCE)
    for shard in writer.missing():
        first, last = description.sequences(shard)
        chunks = range(shard * per_shard, shard * per_shard + (last - first) * _SEQUENCE // CHUNK)
        rows = torch.cat([data.rows(chunk) for chunk in chunks]).numpy()
        writer.write_shard(shard, np.zeros((last - first, _SEQUENCE), np.int32), {HOOK_POINT: rows})
    return writer.close()


def write_truth(data: Data, path: Path) -> None:
    """The features as a dictionary. Its encoder is the linear map of x with the least squared error on the strengths,
    then ReLU: in superposition no affine encoder reads them exactly."""
    z = torch.cat([data.codes(block) for block in range(4)])
    found = torch.linalg.lstsq(
        torch.cat([z @ data.F, torch.ones(len(z), 1)], dim=1).double(), z.double()
    ).solution.float()
    spec = Spec("standard", data.config.d, data.config.G, Site.at(HOOK_POINT), provenance={"method": "truth"})
    FeatureDictionary(spec, found[:-1], found[-1], data.F, torch.zeros(data.config.d)).save(path)


def write_ica(data: Data, path: Path) -> None:
    """Independent components (FastICA, scikit-learn), a floor: as many as dimensions, codes signed."""
    from sklearn.decomposition import FastICA

    x = torch.cat([data.rows(block) for block in range(4)]).double().numpy()
    found = FastICA(whiten="unit-variance", max_iter=200, tol=1e-2, random_state=0).fit(x)
    W_enc, W_dec = torch.from_numpy(found.components_.T), torch.from_numpy(cast(Any, found.mixing_).T)
    spec = Spec("linear", data.config.d, len(W_dec), Site.at(HOOK_POINT), provenance={"method": "ica"})
    FeatureDictionary(spec, W_enc, torch.zeros(len(W_dec)), W_dec, torch.from_numpy(found.mean_)).save(path)
