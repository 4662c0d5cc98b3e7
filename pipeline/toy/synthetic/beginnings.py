"""The source's autoencoder from other beginnings of its directions: which of them learn faster?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.mlp import MLP
from pipeline.toy.synthetic import source_autoencoder
from pipeline.toy.synthetic.coefficients import FOUND
from pipeline.toy.synthetic.data import Data
from pipeline.toy.synthetic.source_autoencoder import Weights
from pipeline.toy.synthetic.table import Watch, looks, rows
from pipeline.train.initialisation import Init, directions
from pipeline.train.source import Source
from stores.manifest import seed_of
from stores.moments import moments_from, row_sums

# "own encoder": the decoder alone begins so, and the encoder as torch's Linear, as in the source; else W_enc = W_decᵀ
OWN = " (own encoder)"
INITS: tuple[Init, ...] = ("random", "orthogonal", "data", "pca", "writer", "privileged")
# Features' directions → the starts that are tried on them: unit vectors are hoped to help where there is a privileged basis
STARTS: dict[str, tuple[str, ...]] = {
    "random": (f"random{OWN}", f"orthogonal{OWN}", *INITS),
    "axes": ("random", "orthogonal", "privileged"),
}


@dataclass(frozen=True)
class Writer:
    """The matrix that writes the rows of known features: its columns are the features."""

    F: Tensor

    def writer(self, hook_point: str) -> Tensor:
        return self.F.T

    def mlp(self, layer: int) -> MLP:
        raise ValueError("known features come of no MLP")


def source_of(x: Tensor, F: Tensor) -> Source:
    """Rows x (n, d) that lie in memory, as methods see them. F (G, d): what they are made of."""
    a = x.numpy()
    moments = moments_from(row_sums(a, "float32")[0])
    return Source.at("synthetic", moments, lambda n: a[:n], lambda n: a[:0], lambda: Writer(F))


def start(name: str, noise: float, d_sae: int, source: Source, seed: int) -> Weights:
    """One autoencoder that begins so."""
    d = source.reads.d
    whole = source_autoencoder.begin(1, d, d_sae, seed)
    if name == f"orthogonal{OWN}":
        return whole
    init: Any = name.removesuffix(OWN)
    W = directions(init, noise, d_sae, source, seed_of("begin", seed))[None]
    return whole._replace(W_dec=W) if name.endswith(OWN) else Weights(W.mT, torch.zeros(1, 1, d_sae), W)


def begin(data: Data, d_sae: int, alpha: float, n_steps: int, n_rows: int, noise: float) -> dict[str, Any]:
    """{start: MMCS over training, and the step from which it is above FOUND; n_steps where it never is}."""
    x, seed, starts = rows(data, n_rows), data.config.seed, STARTS[data.config.features]
    source, watch = source_of(x, data.F), Watch(data.F)
    single = [start(name, noise, d_sae, source, seed) for name in starts]
    stacked = Weights(*(torch.cat(w) for w in zip(*single, strict=True)))
    steps = looks(n_steps)
    source_autoencoder.train(x, stacked, [alpha] * len(starts), n_steps, seed, looks=steps, look=watch)
    curves = watch.mcs.mean(2)
    found: dict[str, Any] = {"steps": steps}
    for name, curve in zip(starts, curves.T, strict=True):
        above = np.flatnonzero(curve >= FOUND)
        first = steps[above[0]] if len(above) else n_steps
        found[name] = {"curve": curve.round(4).tolist(), "reached": first, "at_all": bool(len(above))}
    return found
