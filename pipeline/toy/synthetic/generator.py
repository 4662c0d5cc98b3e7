"""The source's own generator of rows beside ours, one change at a time, and all of them.

The source draws anew for each step of training. Here a number of draws is made once, and each is seen several times.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.toy.synthetic import source_autoencoder
from pipeline.toy.synthetic.coefficients import recovered
from pipeline.toy.synthetic.data import CHUNK, SOURCE, Data, DataConfig
from pipeline.toy.synthetic.source_autoencoder import BATCH
from pipeline.toy.synthetic.table import HELD, rows

# name → changes of the DataConfig, whether a step of training sees the rows of one draw
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({}, False),
    "covariance (A + Aᵀ) / 2": ({"covariance": "averaged"}, False),
    "mean activity rescaled in each draw": ({"rescale": "draw"}, False),
    "a draw for 256 rows": ({"correlation": "batch"}, False),
    "a draw for each step of training": ({"correlation": "batch"}, True),
    "strengths a product of two uniforms": ({"strength": "product"}, False),
    "all of these": (SOURCE, True),
}


def n_draws(n_rows: int) -> int:
    """How many batches the rows of a training are, made once in whole chunks: the draws, where one draw serves a batch."""
    return -(-n_rows // CHUNK) * CHUNK // BATCH


def changed(config: DataConfig, cells: Sequence[tuple[int, float]], n_steps: int, n_rows: int) -> dict[str, Any]:
    """{change: what each cell (d_sae, α) recovers}. The true features are the same throughout; the rows are drawn anew."""
    found: dict[str, Any] = {}
    for name, (change, in_blocks) in CHANGES.items():
        data = Data(DataConfig(**{**config.model_dump(), **change}))
        x, held, strengths = rows(data, n_rows), data.rows(HELD), data.codes(HELD)
        by_cell = {}
        for d_sae in sorted({d for d, _ in cells}):
            alphas = [a for d, a in cells if d == d_sae]
            start = source_autoencoder.begin(len(alphas), config.d, d_sae, config.seed)
            weights = source_autoencoder.train(x, start, alphas, n_steps, config.seed, in_blocks)
            for alpha, dictionary in zip(alphas, weights.dictionaries(), strict=True):
                by_cell[d_sae, alpha] = recovered(dictionary, data.F, held, strengths)
        found[name] = {
            "active": float((strengths > 0).sum(1).double().mean()),
            "strength": float(strengths[strengths > 0].mean()),
            "cells": [{k: by_cell[cell][k] for k in ("mmcs", "found", "dead", "l0", "correlation")} for cell in cells],
        }
    return {"at": [list(cell) for cell in cells], "n_steps": n_steps, "n_draws": n_draws(n_rows), "changes": found}
