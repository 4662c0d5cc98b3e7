"""How a language model's activations are distributed, beside a toy's: what a toy has to look like to stand for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.extract.config import ExtractConfig, PositionsConfig, TextConfig
from pipeline.models.files import ModelFiles
from pipeline.toy.extracted import extracted
from pipeline.toy.synthetic.data import CHUNK, Data
from pipeline.train.rotations.objectives import kurtosis
from pipeline.train.rotations.orthogonal import random_rotation

SITES = ("mlp.hook_post", "hook_mlp_out", "hook_resid_post")
VALUES = np.linspace(-6, 10, 161)  # edges, in standard deviations of a coordinate
NORMS = np.linspace(0, 3, 91)  # edges, in mean norms
_CONTEXT = 256


def hook_points(layer: int) -> tuple[str, ...]:
    return tuple(f"blocks.{layer}.{site}" for site in SITES)


def rows_of_model(model: str, layer: int, n_rows: int, folder: Path) -> dict[str, Tensor]:
    """{hook point: (n, d) float32}, n_rows or a few more: of the standard library's text, BOS left out."""
    context = min(_CONTEXT, ModelFiles.find(model).n_positions)
    config = ExtractConfig(
        model=model, hook_points=hook_points(layer), context=context, n_rows=n_rows, dtype="float32",
        positions=PositionsConfig(skip_first=1), text=TextConfig(split="all"),
    )  # fmt: skip
    store = extracted("real", config, folder)
    return {h: torch.from_numpy(store.rows(h, 0, store.n_rows)) for h in store.hook_points}


def describe(x: Tensor) -> dict[str, Any]:
    """x (n, d). Histograms of coordinates (each in its own standard deviations) and of norms about the mean; the spectrum of
    the covariance, from the largest eigenvalue, as shares; and figures that follow from the same.

    participation: (Σλ)² / Σλ² / d, the share of the dimensions that carry variance, 1 where all carry the same.
    cosine: mean |cosine| of two rows about the mean, times √(πd / 2): 1 for random directions.
    """
    n, d = x.shape
    x = x.double() - x.double().mean(0)
    share = torch.linalg.eigvalsh(x.T @ x).flip(0).clamp_min(0)
    share = share / share.sum()
    norms = x.norm(dim=1)
    standard = x / x.std(0).clamp_min(1e-12)
    unit = torch.nn.functional.normalize(x, dim=1)
    cosine = (unit[: n // 2] * unit[n // 2 : 2 * (n // 2)]).sum(1).abs().mean()
    return {
        "n": n,
        "d": d,
        "values": (np.histogram(standard.numpy(), VALUES)[0] / standard.numel()).round(7).tolist(),
        "norms": (np.histogram((norms / norms.mean()).numpy(), NORMS)[0] / n).round(6).tolist(),
        "spectrum": share.cumsum(0).numpy().round(5).tolist(),
        "kurtosis": kurtosis(x),
        "kurtosis_random": kurtosis(x @ random_rotation(d, 0).T),
        "participation": float(1 / share.square().sum() / d),
        "norm_spread": float(norms.std() / norms.mean()),
        "cosine": float(cosine * (torch.pi * d / 2) ** 0.5),
    }


def compare(data: Data, model: str, layer: int, n_rows: int, folder: Path) -> dict[str, Any]:
    """describe() of the toy's rows, and of a model's at SITES of a layer."""
    toy = torch.cat([data.rows(block) for block in range(-(-n_rows // CHUNK))])[:n_rows]
    rows = {"toy": toy, **rows_of_model(model, layer, n_rows, folder)}
    return {"model": model, "rows": {name: describe(x) for name, x in rows.items()}}
