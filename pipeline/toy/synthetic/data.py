"""Rows of known features in superposition, their store, and the dictionaries that are known without learning.

    x = (active ∘ strength) F        F (G, d) unit rows, strength ~ U[0, 1), the i-th feature less often by decay^i

Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders".
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
from pipeline.toy.superposition.experiment import Task, train
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

    correlation: "sample", which features come together follows a random correlation matrix; "batch", one draw of it for
    each 256 rows, as in the source's code, so that within these the features are independent; "none", independent, with
    p_i = decay^i k / G not scaled up to k. features: "random" directions, or those of a trained toy model.
    """

    d: int = Field(default=64, ge=1)
    G: int = Field(default=128, ge=1)
    k: float = Field(default=5.0, gt=0)
    decay: float = Field(default=0.99, gt=0, le=1)
    correlation: Correlation = "sample"
    features: Literal["random", "trained"] = "random"
    n_rows: int = Field(default=280_000, ge=4 * CHUNK)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> "DataConfig":
        if self.k > self.G:
            raise ValueError(f"k = {self.k:g} features active of G = {self.G}: a probability above 1")
        return self


@dataclass(frozen=True)
class Data:
    """The generator of a DataConfig's rows."""

    config: DataConfig

    @cached_property
    def F(self) -> Tensor:
        """(G, d): what each feature adds to a row at strength 1. Unit rows; of a trained model, as long as they are."""
        c = self.config
        generator = torch.Generator().manual_seed(seed_of("features", c.seed, c.G, c.d))
        if c.features == "random":
            return torch.nn.functional.normalize(torch.randn(c.G, c.d, generator=generator), dim=-1)
        task = Task(c.G, c.d, self.p[None])
        return train(task, 1500, 512, seed_of("encoder", c.seed)).W[0].T.contiguous()

    @cached_property
    def truth(self) -> Tensor:
        """Unit rows, of the features that are represented: those with norm above ½."""
        return torch.nn.functional.normalize(self.F[self.F.norm(dim=-1) > 0.5], dim=-1)

    @cached_property
    def p(self) -> Tensor:
        """(G,) probabilities of the uncorrelated form, with mean k / G in the correlated ones."""
        c = self.config
        falling = c.decay ** torch.arange(c.G)
        p = falling * (c.k / c.G)
        return p if c.correlation == "none" else (p / falling.mean()).clamp_max(1)

    @cached_property
    def _factor(self) -> Tensor:
        """(G, G): A = factor factorᵀ, a random symmetric matrix of U[0, 1) made positive."""
        G = self.config.G
        generator = torch.Generator().manual_seed(seed_of("correlation", self.config.seed, G))
        A = torch.rand(G, G, generator=generator, dtype=torch.double)
        A = A.triu() + A.triu(1).T
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
            p = (p * (c.k / c.G / p.mean())).repeat_interleave(rows, 0)[:n]
        active = torch.rand(n, c.G, generator=generator) < p
        strength = torch.rand(n, c.G, generator=generator)
        if c.correlation != "none":  # as in the source
            empty = (~active).all(1)
            one = torch.randint(0, c.G, (n,), generator=generator)
            active[empty, one[empty]], strength[empty, one[empty]] = True, 1.0
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
    codes = torch.cat([data.codes(block) for block in range(4)])
    x, z = codes @ data.F, codes[:, data.F.norm(dim=-1) > 0.5]
    found = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], dim=1).double(), z.double()).solution.float()
    norms = data.F.norm(dim=-1)[data.F.norm(dim=-1) > 0.5]
    spec = Spec("standard", data.config.d, len(data.truth), Site.at(HOOK_POINT), provenance={"method": "truth"})
    FeatureDictionary(spec, found[:-1] * norms, found[-1] * norms, data.truth, torch.zeros(data.config.d)).save(path)


def write_ica(data: Data, path: Path) -> None:
    """Independent components (FastICA, scikit-learn), a floor: as many as dimensions, codes signed."""
    from sklearn.decomposition import FastICA

    x = torch.cat([data.rows(block) for block in range(4)]).double().numpy()
    found = FastICA(whiten="unit-variance", max_iter=200, tol=1e-2, random_state=0).fit(x)
    W_enc, W_dec = torch.from_numpy(found.components_.T), torch.from_numpy(cast(Any, found.mixing_).T)
    spec = Spec("linear", data.config.d, len(W_dec), Site.at(HOOK_POINT), provenance={"method": "ica"})
    FeatureDictionary(spec, W_enc, torch.zeros(len(W_dec)), W_dec, torch.from_numpy(found.mean_)).save(path)
