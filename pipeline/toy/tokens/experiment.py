"""The eight tokens: which latents a small autoencoder has for them, and how much of the reading is the seed's.

Two parts. The source's data and autoencoder, over many seeds, penalties and widths (eight.py, families.py); and eight
tokens that are sums of four known features (binary.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from pipeline.config import Config
from pipeline.toy.tokens import binary, families
from pipeline.toy.tokens.eight import ALL, READINGS, Code, agreement, around, begin, maps, readings, train
from stores.manifest import seed_of

Penalty = Annotated[float, Field(ge=0)]


class Settings(Config):
    """The source states neither w, the steps, the rate nor how many latents its picture has; it speaks of 20 in an example.

    d_sae, w, n_steps: of the runs that decide on the claims, at torch's default rate of Adam. grid_*: what else is tried.
    around_*: draws about each token, and their standard deviation. family_*: of the dictionaries of the train stage.
    binary_*: of the tokens that are sums of features; its penalty is on Σ z, the squared error summed over coordinates.
    """

    d_sae: int = Field(default=20, ge=1)
    w: Penalty = 0.1
    lr: float = Field(default=1e-3, gt=0)
    n_steps: int = Field(default=5000, ge=1)
    n_seeds: int = Field(default=200, ge=1)
    grid_d_sae: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(4, 8, 20), min_length=1)
    grid_w: tuple[Penalty, ...] = Field(default=(0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), min_length=1)
    grid_steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 500, 2000, 5000), min_length=1)
    grid_seeds: int = Field(default=100, ge=1)
    around_n: int = Field(default=8, ge=1)
    around_noise: float = Field(default=0.05, ge=0)
    family_steps: int = Field(default=1500, ge=1)
    family_lr: float = Field(default=3e-3, gt=0)
    family_seeds: int = Field(default=100, ge=1)
    binary_d_sae: int = Field(default=8, ge=1)
    binary_l1: float = Field(default=0.1, ge=0)
    binary_lr: float = Field(default=3e-3, gt=0)
    binary_steps: int = Field(default=6000, ge=1)
    binary_seeds: int = Field(default=200, ge=1)


QUICK: dict[str, Any] = {
    "n_steps": 500, "n_seeds": 20, "grid_d_sae": (4, 20), "grid_w": (0.0, 0.1, 1.0), "grid_steps": (0, 200),
    "grid_seeds": 10, "family_steps": 100, "family_seeds": 10, "binary_steps": 800, "binary_seeds": 20,
}  # fmt: skip

NO_PENALTY, PENALTY, UNTRAINED = "no penalty", "penalty", "untrained"


def source(settings: Settings) -> dict[str, Any]:
    """The source's autoencoder without and with the penalty, from the same beginnings, and these beginnings themselves.

    share: how many runs have each reading with the penalty, by the share of a latent's largest value above which it counts
    as on. agreement: of pairs of runs with the penalty, and of pairs of their beginnings.
    """
    n = settings.n_seeds
    networks = begin(n, 2, settings.d_sae)
    penalty = torch.tensor([0.0, settings.w]).repeat_interleave(n)
    untrained = _of(Code.of(networks), slice(n))
    train(networks, penalty, settings.n_steps, settings.lr)
    code = Code.of(networks)
    dense, sparse = _of(code, slice(n)), _of(code, slice(n, None))
    loss = sparse.error + settings.w * sparse.z.mean((1, 2))
    shares = {f"{s:g}": readings(sparse, s) for s in (0.01, 0.02, 0.05, 0.1, 0.2)}
    return {
        "w": settings.w,
        "d_sae": settings.d_sae,
        "n_steps": settings.n_steps,
        UNTRAINED: readings(untrained),
        NO_PENALTY: readings(dense),
        PENALTY: readings(sparse),
        "share": {s: {name: sum(r[name]) for name in (*READINGS, ALL)} for s, r in shares.items()},
        "agreement": {UNTRAINED: agreement(untrained), PENALTY: agreement(sparse)},
        "maps": maps(sparse, loss, dense),
    }


def grid(settings: Settings, d_sae: int) -> dict[str, Any]:
    """Counts of the readings, of grid_seeds runs: steps → w → reading → count, and means of what else is measured.

    again: the trained cell with a penalty that has all three readings most often, with its count there and its count from
    other beginnings, as many: the largest of many counts is above what it is the count of.
    """
    n = settings.grid_seeds
    networks = begin(n, len(settings.grid_w), d_sae)
    penalty = torch.tensor(settings.grid_w).repeat_interleave(n)
    cells: dict[str, Any] = {}

    def look(step: int) -> None:
        code = Code.of(networks)
        cells[str(step)] = {}
        for i, w in enumerate(settings.grid_w):
            found = readings(_of(code, slice(i * n, (i + 1) * n)))
            counts = {name: sum(found[name]) for name in (*READINGS, ALL)}
            means = {name: sum(found[name]) / n for name in ("live", "named", "error")}
            cells[str(step)][f"{w:g}"] = counts | means

    train(networks, penalty, max(settings.grid_steps), settings.lr, look=look, look_at=settings.grid_steps)
    return {"n": n, "d_sae": d_sae, "cells": cells, "again": _again(settings, d_sae, cells)}


def _again(settings: Settings, d_sae: int, cells: dict[str, Any]) -> dict[str, Any] | None:
    """None: no cell is trained and has a penalty."""
    penalised = [(step, w) for step in settings.grid_steps for w in settings.grid_w if step > 0 and w > 0]
    if not penalised:
        return None
    step, w = max(penalised, key=lambda cell: cells[str(cell[0])][f"{cell[1]:g}"][ALL])
    networks = begin(settings.grid_seeds, 1, d_sae, "again")
    train(networks, torch.full((settings.grid_seeds,), w), step, settings.lr)
    count = sum(readings(Code.of(networks))[ALL])
    return {"steps": step, "w": w, "chosen_by": cells[str(step)][f"{w:g}"][ALL], "count": count}


def variants(settings: Settings) -> dict[str, Any]:
    """What is changed of the source's autoencoder, one thing at a time, from the same beginnings."""
    n, w = settings.n_seeds, torch.full((settings.n_seeds,), settings.w)
    rows = {}
    networks = begin(n, 1, settings.d_sae)
    train(networks, w, settings.n_steps, settings.lr, unit_rows=True)
    rows["decoder rows of unit length"] = readings(Code.of(networks))
    networks = begin(n, 1, settings.d_sae)
    x = around(settings.around_n, settings.around_noise, torch.Generator().manual_seed(seed_of("around")))
    train(networks, w, settings.n_steps, settings.lr, x=x)
    rows["more data around the tokens"] = readings(Code.of(networks))
    return rows


def _of(code: Code, own: slice) -> Code:
    return Code(code.z[own], code.rows[own], code.x_hat[own])


def inputs(settings: Settings) -> dict[str, Any]:
    return {}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    s = settings
    how = (s.family_seeds, s.d_sae, s.family_steps, s.family_lr)
    of_binary = binary.Setup(s.binary_d_sae, s.binary_l1, s.binary_lr, s.binary_steps, s.binary_seeds)
    return {
        **{f"grid_{d_sae}": lambda d_sae=d_sae: grid(s, d_sae) for d_sae in s.grid_d_sae},
        "variants": lambda: variants(s),
        "relu_l1": lambda: families.relu_l1(*how),
        "topk": lambda: families.topk(*how),
        "source": lambda: source(s),
        "unit_norms": lambda: binary.measure(of_binary, True),
        "free_norms": lambda: binary.measure(of_binary, False),
    }
