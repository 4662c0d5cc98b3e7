"""Rows of known features in superposition, in two settings.

correlated: 128 unit features in 64 dimensions, five active on average, which of them come together follows a random
covariance (Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders"). hierarchy: 512
in 64 dimensions, 128 such parents, three active on average, and three children of each that fire only with it, each in a
third of its rows: six are active on average.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.toy.synthetic.data import CHUNK, Data, DataConfig
from pipeline.train.source import Source
from stores.manifest import seed_of
from stores.moments import moments_from, row_sums

D = 64
HELD = 10**6  # the first block of rows that no learning sees


class Truth(Protocol):
    """F: (G, d) unit rows, what each feature adds to a row at strength 1. codes(block, n): (n, G) strengths, 0 where a
    feature is not active; a function of the truth, block and n alone."""

    F: cached_property[Tensor]

    def codes(self, block: int, n: int = CHUNK) -> Tensor: ...


@dataclass(frozen=True)
class Hierarchy:
    """Features 0 to n_parents - 1 are the parents; child j of parent i is the feature n_parents + n_children i + j. Each
    child is active in a part p_child of its parent's rows; strengths are U[0, 1), each its own."""

    seed: int
    n_parents: int = 128
    n_children: int = 3
    k_parents: float = 3.0
    p_child: float = 1 / 3

    @cached_property
    def parents(self) -> Data:
        return Data(DataConfig(d=D, G=self.n_parents, k=self.k_parents, seed=self.seed))

    @cached_property
    def F(self) -> Tensor:
        G = self.n_parents * (1 + self.n_children)
        return Data(DataConfig(d=D, G=G, k=self.k_parents, seed=self.seed)).F

    def codes(self, block: int, n: int = CHUNK) -> Tensor:
        parents = self.parents.codes(block, n)
        generator = torch.Generator().manual_seed(seed_of("children", self.seed, block, n))
        shape = (n, self.n_parents * self.n_children)
        fires = torch.rand(shape, generator=generator) < self.p_child
        active = fires & (parents > 0).repeat_interleave(self.n_children, 1)
        return torch.cat([parents, active * torch.rand(shape, generator=generator)], 1)


SETTINGS = ("correlated", "hierarchy")


def truth_of(setting: str, seed: int) -> Truth:
    """seed: of the features and of the rows."""
    return Data(DataConfig(d=D, seed=seed)) if setting == "correlated" else Hierarchy(seed)


def training_rows(truth: Truth, n: int) -> Tensor:
    """(n, d): each seen once."""
    return torch.cat([truth.codes(block) @ truth.F for block in range(-(-n // CHUNK))])[:n]


def heldout_codes(truth: Truth, n: int) -> Tensor:
    """(n, G) strengths of rows that are not among the training rows."""
    return torch.cat([truth.codes(HELD + block) for block in range(-(-n // CHUNK))])[:n]


def source_of(x: Tensor) -> Source:
    """What a method may know of training rows x (n, d) that lie in memory."""
    rows = x.numpy()
    moments = moments_from(row_sums(rows, "float32")[0])
    return Source.at("synthetic", moments, lambda n: rows[:n], lambda n: rows[-n:], _no_model)


def _no_model() -> Any:
    raise ValueError("known features come of no model")
