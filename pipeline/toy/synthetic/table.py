"""The source's autoencoder at each size and penalty, with other features for each seed; and how it got there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.score.similarity import mcs, mmcs
from pipeline.toy.synthetic import source_autoencoder
from pipeline.toy.synthetic.coefficients import FOUND, pca, recovered
from pipeline.toy.synthetic.data import CHUNK, Data
from pipeline.toy.synthetic.source_autoencoder import Weights

HELD = 1_000_000  # the block of rows that nothing learns from
N_LOOKS = 80
WINDOW = 0.05  # of training, in which a change counts as a jump
_SHOWN = 12  # features whose cosines are drawn


def rows(data: Data, n_rows: int) -> Tensor:
    """(n, d), n_rows or a few more."""
    return torch.cat([data.rows(block) for block in range(-(-n_rows // CHUNK))])


def looks(n_steps: int) -> list[int]:
    """The steps before which a training is looked at, the first and the end among them."""
    return sorted({round(i * n_steps / N_LOOKS) for i in range(N_LOOKS + 1)})


class Watch:
    """The largest cosine of each true feature over training: mcs (n_looks, n, G)."""

    def __init__(self, truth: Tensor) -> None:
        self.truth, self.seen = truth, []

    def __call__(self, step: int, weights: Weights) -> None:
        self.seen.append(torch.stack([mcs(self.truth, W, signed=False) for W in weights.W_dec]))

    @property
    def mcs(self) -> np.ndarray:
        return torch.stack(self.seen).double().numpy()


def jumps(mcs: np.ndarray, window: int) -> dict[str, list[float]]:
    """Of the features that end above FOUND and rose by .3 or more: share, the largest part of the rise that falls in a
    window of `window` looks (1 and above: all of it); half, the part of training after which half of the rise is done.

    mcs: (n_looks, G). An even rise has share = window / (n_looks - 1).
    """
    rise = mcs[-1] - mcs[0]
    found = mcs[:, (mcs[-1] > FOUND) & (rise >= 0.3)]
    rise = found[-1] - found[0]
    share = (found[window:] - found[:-window]).max(0) / rise
    half = (found >= found[0] + rise / 2).argmax(0) / (len(mcs) - 1)
    return {"share": share.round(3).tolist(), "half": half.round(4).tolist()}


def table(
    data: Data, d_saes: Sequence[int], alphas: Sequence[float], n_steps: int, n_rows: int, in_blocks: bool = False
) -> dict[str, Any]:
    """Each cell: what is recovered, MMCS with the next larger dictionary, MMCS over training, and jumps."""
    x, held, seed = rows(data, n_rows), data.rows(HELD), data.config.seed
    strengths = data.codes(HELD)
    cells, live, shown = [], [], {}
    for d_sae in d_saes:
        watch = Watch(data.F)
        start = source_autoencoder.begin(len(alphas), data.config.d, d_sae, seed)
        weights = source_autoencoder.train(x, start, alphas, n_steps, seed, in_blocks, looks(n_steps), watch)
        row, alive = [], []
        for i, dictionary in enumerate(weights.dictionaries()):
            seen = watch.mcs[:, i]
            row.append(recovered(dictionary, data.F, held, strengths))
            row[-1]["curve"] = seen.mean(1).round(4).tolist()
            row[-1]["jumps"] = jumps(seen, max(1, round(WINDOW * N_LOOKS)))
            alive.append(dictionary.directions[(dictionary.encode(held) != 0).any(0)])
            shown[f"{d_sae}, {alphas[i]:g}"] = seen[:, :: max(1, seen.shape[1] // _SHOWN)].T.round(3).tolist()
        cells.append(row)
        live.append(alive)
    for before, after, row in zip(live[:-1], live[1:], cells[:-1], strict=True):
        for a, b, cell in zip(before, after, row, strict=True):
            cell["larger"] = mmcs(a, b, signed=False) if len(a) and len(b) else 0.0
    return {
        "d_sae": list(d_saes),
        "alpha": list(alphas),
        "steps": looks(n_steps),
        "cells": cells,
        "pca": {k: v for k, v in recovered(pca(x), data.F, held, strengths).items() if k != "mcs"},
        "features": shown,
    }
