"""Known features in superposition, as an ordinary store, for the ordinary train and score stages.

    x = (active ∘ strength) F        F (G, d) unit rows, strength ~ U[0, 1), the i-th feature less often by decay^i

Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders"; the variants
answer its discussion: more features a dimension, features put into superposition by a trained model, undertraining.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from pipeline.models.files import ModelFiles
from pipeline.score.pairs import MCS_BINS
from pipeline.score.similarity import mcs, mmcs
from pipeline.toy.synthetic import real_activations, source_autoencoder
from pipeline.toy.synthetic.data import CHUNK, HOOK_POINT, Correlation, Data, DataConfig
from pipeline.toy.synthetic.scored import experiment, stored
from pipeline.train.initialisation import Init
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary


class OriginalConfig(DataConfig):
    """The data as the source has them."""

    d: int = Field(default=256, ge=1)
    G: int = Field(default=512, ge=1)
    correlation: Correlation = "batch"
    n_rows: int = Field(default=140_000, ge=4 * CHUNK)


class Settings(DataConfig):
    """The grid: d_sae × alpha, α as in the source, of means over d and d_sae; and what is tried beside it.

    source_d_sae: sizes of the source's own autoencoder beside it. original: data of the source's own size and kind, on which
    that autoencoder is trained with original_d_sae and original_alpha. ratios: G / d of the interference part, at d =
    interference_d. families: any of train.METHOD. inits: where the directions of a relu_l1 begin. model, layer, n_real_rows:
    whose activations the toy's are put beside.
    """

    d_sae: tuple[int, ...] = (64, 128, 256, 512)
    alpha: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    n_steps: int = Field(default=4000, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    curve_steps: tuple[int, ...] = (125, 250, 500, 1000, 2000)
    curve_alpha: tuple[float, ...] = (0.3, 0.3, 1.0, 3.0)  # for each d_sae, the best of the grid
    variant_steps: int = Field(default=1500, ge=1)
    ratios: tuple[int, ...] = (2, 4, 8, 16)
    interference_d: int = Field(default=32, ge=1)
    source_d_sae: tuple[int, ...] = (128, 256)
    original: OriginalConfig = OriginalConfig()
    original_d_sae: tuple[int, ...] = (512, 1024)
    original_alpha: tuple[float, ...] = (0.3, 1.0)
    families: tuple[str, ...] = ("topk", "relu_l1", "jumprelu", "tied")
    inits: tuple[Init, ...] = ("random", "orthogonal", "data", "pca")
    model: str = "demo"
    layer: int = Field(default=1, ge=0)
    n_real_rows: int = Field(default=16_384, ge=512)

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        if len(self.curve_alpha) != len(self.d_sae):
            raise ValueError(f"curve_alpha has {len(self.curve_alpha)} values, one for each of {len(self.d_sae)} d_sae")
        if min(self.ratios) < 1:
            raise ValueError(f"ratios has {min(self.ratios)}: fewer features than dimensions are in no superposition")
        return self


QUICK: dict[str, Any] = {
    "n_rows": 5 * CHUNK, "d_sae": (64, 128), "alpha": (0.1, 0.3, 1.0), "n_steps": 300, "curve_steps": (100,),
    "curve_alpha": (0.3, 0.3), "variant_steps": 150, "source_d_sae": (128,), "original_d_sae": (128,),
    "original": {"d": 64, "G": 128, "n_rows": 5 * CHUNK}, "ratios": (2, 4), "families": ("topk",),
    "inits": ("random", "orthogonal"), "n_real_rows": 1024,
}  # fmt: skip

# Settings that recover the truth at 256 features, measured; l1_coefficient is of scaled activations.
FAMILIES: dict[str, dict[str, Any]] = {
    "topk": {"k": 5, "lr": 2e-3},
    "batch_topk": {"k": 5, "lr": 2e-3},
    "matryoshka": {"k": 5, "lr": 2e-3, "n_prefixes": 2},
    "relu_l1": {"l1_coefficient": 1.57, "lr": 1e-3},
    "tied": {"l1_coefficient": 1.57, "lr": 3e-3, "l1_warmup": 0.5},
    "gated": {"l1_coefficient": 2.5, "lr": 2e-3},
    "p_anneal": {"l1_coefficient": 1.5, "lr": 1e-3},
    "jumprelu": {"l0_coefficient": 1.0, "lr": 2e-3, "threshold": 0.03, "bandwidth": 0.03},
}


def l1_coefficient(alpha: float, d_sae: int, store: ActivationStore) -> float:
    """α, of means over d and d_sae on activations as they are → relu_l1's λ, of sums on scaled ones: α s d / d_sae."""
    return float(f"{alpha * store.stats(HOOK_POINT).scale * store.d(HOOK_POINT) / d_sae:.4g}")


def _grid_methods(settings: Settings, store: ActivationStore) -> tuple[dict[str, Any], list[list[str]]]:
    """The tables of the grid, and the dictionaries' names, [d_sae][alpha]."""
    tables, names = [], []
    for d_sae in settings.d_sae:
        weights = [l1_coefficient(alpha, d_sae, store) for alpha in settings.alpha]
        tables.append({"d_sae": d_sae, "l1_coefficient": weights, "lr": settings.lr})
        names.append([f"relu_l1-d{d_sae}-l1_{weight}-s0" for weight in weights])
    return {"relu_l1": tables}, names


def _data(settings: DataConfig, **changes: Any) -> Data:
    return Data(DataConfig(**{**{k: getattr(settings, k) for k in DataConfig.model_fields}, **changes}))


def _fewer(settings: Settings) -> int:
    """Rows for what is trained shorter."""
    return max(5 * CHUNK, settings.n_rows // 4)


def grid(settings: Settings, folder: Path) -> dict[str, Any]:
    """d_sae × α: MMCS with the truth and with the next larger dictionary, dead features, FVU, histograms of MCS."""
    data = _data(settings)
    path = folder / "activations.zarr"
    store = stored(data, path)
    methods, names = _grid_methods(settings, store)
    found = experiment(data, folder, methods, settings.n_steps, path, floors=True)
    cells = [[found.summary(name) for name in row] for row in names]
    live = [[found.live(name) for name in row] for row in names]
    larger, histograms = [], []
    for i, row in enumerate(live):
        nexts = live[i + 1] if i + 1 < len(live) else [None] * len(row)
        larger.append(
            [
                None if after is None or not len(a) or not len(after) else round(mmcs(a, after, signed=False), 4)
                for a, after in zip(row, nexts, strict=True)
            ]
        )
        histograms.append(
            [
                torch.histc(mcs(data.truth, a, signed=False), MCS_BINS, 0, 1).tolist() if len(a) else [0] * MCS_BINS
                for a in row
            ]
        )
    return {
        "d_sae": list(settings.d_sae),
        "alpha": list(settings.alpha),
        "names": names,
        "cells": cells,
        "larger": larger,
        "histograms": histograms,
        "floors": {name: found.summary(name) for name in ("pca", "ica", "random-s0")},
        "truth": {key: found.row("truth")[key] for key in ("l0", "fvu")},
        "n_rows": store.n_rows,
        "data": data.config.model_dump(),
        "n_steps": settings.n_steps,
        "kurtosis": float(store.stats(HOOK_POINT).kurtosis),
    }


def source(settings: Settings, folder: Path) -> dict[str, Any]:
    """The source's own autoencoder on the grid's data, by the same scores; and silent, the features that are active on none
    of the first 4,096 held-out rows, for how many are dead depends on how many rows one waits."""
    return _source(_data(settings), settings.source_d_sae, settings.alpha, settings.n_steps, folder)


def original(settings: Settings, folder: Path) -> dict[str, Any]:
    """The same at the source's own size, where its rows are correlated by batch."""
    found = _source(Data(settings.original), settings.original_d_sae, settings.original_alpha, settings.n_steps, folder)
    return {**found, "data": settings.original.model_dump(), "n_steps": settings.n_steps}


def _source(data: Data, d_saes: Sequence[int], alphas: Sequence[float], n_steps: int, folder: Path) -> dict[str, Any]:
    path = folder / "activations.zarr"
    store = stored(data, path)
    x, names, folders = None, [], []
    for d_sae in d_saes:
        own = [folder / "source" / f"source-d{d_sae}-alpha_{alpha:g}" for alpha in alphas]
        if not all((place / "provenance.json").exists() for place in own):
            x = torch.from_numpy(store.rows(HOOK_POINT, 0, store.n_train_rows, "train")) if x is None else x
            weights = source_autoencoder.train(x, d_sae, alphas, n_steps)
            for place, dictionary in zip(own, source_autoencoder.to_dictionaries(weights, HOOK_POINT), strict=True):
                dictionary.save(place)
        folders += own
        names.append([place.name for place in own])
    found = experiment(data, folder, {"random": [{}], "pca": [{"n_rows": 20_000}]}, 1, path, others=folders)
    cells = [[found.summary(name) for name in row] for row in names]
    held = torch.from_numpy(np.concatenate(list(store.heldout(HOOK_POINT, 4096))))
    for place, cell in zip(folders, [cell for row in cells for cell in row], strict=True):
        cell["silent"] = int((FeatureDictionary.load(place).encode(held) <= 0).all(0).sum())
    floors = {name: found.summary(name) for name in ("pca", "random-s0")}
    return {"d_sae": list(d_saes), "alpha": list(alphas), "cells": cells, "floors": floors}


def curve(settings: Settings, folder: Path) -> dict[str, Any]:
    """MMCS against the length of training, each length a run of its own, for every size at its best α."""
    data, path = _data(settings), folder / "activations.zarr"
    store = stored(data, path)
    weights = [l1_coefficient(a, d, store) for a, d in zip(settings.curve_alpha, settings.d_sae)]
    tables = [
        {"d_sae": d, "l1_coefficient": w, "lr": settings.lr} for d, w in zip(settings.d_sae, weights, strict=True)
    ]
    rows: dict[str, list] = {str(d): [] for d in settings.d_sae}
    for n_steps in settings.curve_steps:
        found = experiment(data, folder / f"steps-{n_steps}", {"relu_l1": tables}, n_steps, path)
        for d, w in zip(settings.d_sae, weights, strict=True):
            rows[str(d)].append(found.summary(f"relu_l1-d{d}-l1_{w}-s0"))
    return {"steps": list(settings.curve_steps), "alpha": list(settings.curve_alpha), "rows": rows}


def variants(settings: Settings, folder: Path) -> dict[str, Any]:
    """Other data: uncorrelated, correlated by batch, and features that a trained model put into superposition."""
    rows = {}
    for name, changes in {
        "correlated by sample": {},
        "correlated by batch": {"correlation": "batch"},
        "uncorrelated": {"correlation": "none"},
        "trained model's features": {"features": "trained"},
    }.items():
        data = _data(settings, n_rows=_fewer(settings), **changes)
        topk = {"d_sae": 2 * settings.G, "k": max(1, round(settings.k)), "lr": 2e-3}
        place = folder / name.replace(" ", "-").replace("'", "")
        found = experiment(data, place, {"topk": [topk]}, settings.variant_steps, floors=True)
        cosine = data.truth @ data.truth.T - torch.eye(len(data.truth))
        rows[name] = {
            "n_truth": len(data.truth),
            "nearest": round(float(cosine.abs().amax(1).mean()), 4),
            "active": round(float((data.codes(0) != 0).sum(1).double().mean()), 3),
            "rows": {n: found.summary(n) for n in found.names()},
        }
    return rows


def interference(settings: Settings, folder: Path) -> dict[str, Any]:
    """More and more features a dimension: what is found, beside PCA, ICA and random directions."""
    rows = {}
    d = settings.interference_d
    for ratio in settings.ratios:
        data = _data(settings, d=d, G=ratio * d, k=min(settings.k, 3.0), n_rows=_fewer(settings))
        topk = {"d_sae": 2 * ratio * d, "k": 3, "lr": 2e-3}
        found = experiment(data, folder / f"ratio-{ratio}", {"topk": [topk]}, settings.variant_steps, floors=True)
        histogram = torch.histc(mcs(data.truth, found.live(found.names()[0]), signed=False), MCS_BINS, 0, 1)
        rows[str(ratio)] = {"histogram": histogram.tolist(), "rows": {n: found.summary(n) for n in found.names()}}
    return {"d": d, "ratios": rows}


def families(settings: Settings, folder: Path) -> dict[str, Any]:
    """Other ways to learn a dictionary, on the grid's data, of twice as many features as there are."""
    data = _data(settings)
    methods = {name: [{"d_sae": 2 * settings.G, **FAMILIES.get(name, {})}] for name in settings.families}
    found = experiment(data, folder, methods, 2 * settings.variant_steps)
    rows = {found.row(n)["method"]: found.summary(n) for n in found.names()}
    return {"n_steps": 2 * settings.variant_steps, "rows": rows}


def inits(settings: Settings, folder: Path) -> dict[str, Any]:
    """One family from other beginnings of its directions, on the grid's data: trained too shortly, and longer."""
    data, path = _data(settings, n_rows=_fewer(settings)), folder / "activations.zarr"
    table = {"d_sae": 2 * settings.G, **FAMILIES["relu_l1"], "init": list(settings.inits)}
    rows: dict[str, list] = {init: [] for init in settings.inits}
    lengths = [max(1, settings.variant_steps // 3), settings.variant_steps]
    for n_steps in lengths:
        found = experiment(data, folder / f"steps-{n_steps}", {"relu_l1": [table]}, n_steps, path)
        for init in settings.inits:
            rows[init].append(found.summary(next(n for n in found.names() if n.endswith(f"init_{init}"))))
    return {"d_sae": 2 * settings.G, "steps": lengths, "rows": rows}


def real(settings: Settings, folder: Path) -> dict[str, Any]:
    """How the toy's rows are distributed, and a language model's."""
    return real_activations.compare(_data(settings), settings.model, settings.layer, settings.n_real_rows, folder)


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: a family that there is not, an init that takes a model, no such model or layer."""
    from pipeline.config import UserError, nearest
    from pipeline.train.methods import METHODS

    for name in settings.families:
        if name not in METHODS:
            raise UserError(f"synthetic.families: unknown {name!r}{nearest(name, list(METHODS))}")
    if "writer" in settings.inits:
        raise UserError("synthetic.inits: 'writer' is made of the matrix that writes the hook point, and no model does")
    files = ModelFiles.find(settings.model)
    for hook_point in real_activations.hook_points(settings.layer):
        files.d(hook_point)
    return {"model_digest": files.digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each in a run folder of its own, where the train and score stages go on from wherever they were."""
    return {
        part.__name__: lambda part=part: part(settings, folder / part.__name__)
        for part in (grid, original, source, interference, variants, curve, families, inits, real)
    }
