"""Known features in superposition: how much of them dictionaries recover, and what that turns on.

    x = (active ∘ strength) F        F (G, d) unit rows, strength ~ U[0, 1), the i-th feature less often by decay^i

Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders"; the rest answers its
discussion: more features a dimension, features that a trained model put into superposition, beginnings, undertraining.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipeline.models.files import ModelFiles
from pipeline.toy.synthetic import real_activations
from pipeline.toy.synthetic.beginnings import begin
from pipeline.toy.synthetic.data import CHUNK, HOOK_POINT, SOURCE, Data, DataConfig
from pipeline.toy.synthetic.generator import changed, n_draws
from pipeline.toy.synthetic.natural import natural
from pipeline.toy.synthetic.scored import experiment, stored
from pipeline.toy.synthetic.table import table
from stores.activations import ActivationStore


class Settings(DataConfig):
    """grid_*: the ordinary train and score stages on a store, size × α, α as in the source, of means over d and d_sae.

    Of the source's own autoencoder: table_*, size × α, the known answers; changed_*: cells (d_sae, α) with the source's
    generator; begin_*: other beginnings, on features in random directions and on such near the axes; original_*: the
    source's own size and generator. natural_*: families of the train stage on features that a trained encoder put into
    superposition, ratios of them a dimension. *_seeds: each with other features. *_rows: that are learned from. model,
    layer, n_real_rows: whose activations the toy's are put beside.
    """

    lr: float = Field(default=1e-3, gt=0)
    grid_d_sae: tuple[int, ...] = (128, 256)
    grid_alpha: tuple[float, ...] = (0.3, 1.0)
    grid_steps: int = Field(default=4000, ge=1)
    table_d_sae: tuple[int, ...] = (64, 128, 256, 512)
    table_alpha: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    table_steps: int = Field(default=4000, ge=20)
    table_rows: int = Field(default=140_000, ge=256)
    table_seeds: int = Field(default=3, ge=2)
    changed_cells: tuple[tuple[int, float], ...] = ((128, 0.3), (128, 1.0))
    changed_steps: int = Field(default=2500, ge=1)
    changed_rows: int = Field(default=70_000, ge=256)
    changed_seeds: int = Field(default=4, ge=2)
    begin_d_sae: int = Field(default=128, ge=1)
    begin_alpha: float = Field(default=0.3, ge=0)
    begin_noise: float = Field(default=0.3, ge=0)
    begin_steps: int = Field(default=2400, ge=20)
    begin_seeds: int = Field(default=4, ge=2)
    original_d: int = Field(default=256, ge=1)
    original_G: int = Field(default=512, ge=1)
    original_d_sae: tuple[int, ...] = (512,)
    original_alpha: tuple[float, ...] = (0.3,)
    original_steps: int = Field(default=1500, ge=20)
    ratios: tuple[int, ...] = Field(default=(2, 4, 8, 16), min_length=2)
    natural_d: int = Field(default=16, ge=2)
    natural_k: float = Field(default=2.0, gt=0)
    natural_rows: int = Field(default=40_000, ge=256)
    natural_seeds: int = Field(default=3, ge=2)
    encoder_steps: int = Field(default=1500, ge=1)
    families: tuple[str, ...] = (
        "topk", "batch_topk", "matryoshka", "relu_l1", "tied", "gated", "p_anneal", "jumprelu",
    )  # fmt: skip
    family_steps: int = Field(default=800, ge=1)
    model: str = "demo"
    layer: int = Field(default=1, ge=0)
    n_real_rows: int = Field(default=16_384, ge=512)

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        if min(self.ratios) < 1:
            raise ValueError(f"ratios has {min(self.ratios)}: fewer features than dimensions are in no superposition")
        if self.natural_k > min(self.ratios) * self.natural_d:
            raise ValueError(
                f"natural_k = {self.natural_k:g} of {min(self.ratios) * self.natural_d}: a probability above 1"
            )
        for name in ("grid_d_sae", "table_d_sae"):
            if list(getattr(self, name)) != sorted(set(getattr(self, name))):
                raise ValueError(f"{name} has to rise")
        return self


QUICK: dict[str, Any] = {
    "d": 32, "G": 64, "k": 3.0, "n_rows": 5 * CHUNK, "grid_d_sae": (64,), "grid_alpha": (0.3, 1.0), "grid_steps": 50,
    "table_d_sae": (32, 64), "table_alpha": (0.1, 0.3, 1.0), "table_steps": 150, "table_rows": 8192, "table_seeds": 2,
    "changed_cells": ((64, 0.3), (64, 1.0)), "changed_steps": 100, "changed_rows": 4096, "changed_seeds": 2,
    "begin_d_sae": 64, "begin_steps": 160, "begin_seeds": 2, "original_d": 32, "original_G": 64, "original_d_sae": (64,),
    "original_steps": 100, "ratios": (2, 4), "natural_d": 8, "natural_rows": 4096, "natural_seeds": 2,
    "encoder_steps": 200, "families": ("topk", "relu_l1"), "family_steps": 100, "n_real_rows": 512,
}  # fmt: skip


def l1_coefficient(alpha: float, d_sae: int, store: ActivationStore) -> float:
    """α, of means over d and d_sae on activations as they are → relu_l1's λ, of sums on scaled ones: α s d / d_sae."""
    return float(f"{alpha * store.stats(HOOK_POINT).scale * store.d(HOOK_POINT) / d_sae:.4g}")


def _config(settings: Settings, **changes: Any) -> DataConfig:
    return DataConfig(**{**{k: getattr(settings, k) for k in DataConfig.model_fields}, **changes})


def grid(settings: Settings, folder: Path) -> dict[str, Any]:
    """d_sae × α through the ordinary stages: MMCS with the truth both ways, dead features, FVU; PCA, ICA, random beside."""
    data, path = Data(_config(settings)), folder / "activations.zarr"
    store = stored(data, path)
    tables, names = [], []
    for d_sae in settings.grid_d_sae:
        weights = [l1_coefficient(alpha, d_sae, store) for alpha in settings.grid_alpha]
        tables.append({"d_sae": d_sae, "l1_coefficient": weights, "lr": settings.lr})
        names.append([f"relu_l1-d{d_sae}-l1_{weight}-s0" for weight in weights])
    found = experiment(data, folder, {"relu_l1": tables}, settings.grid_steps, path, floors=True)
    return {
        "d_sae": list(settings.grid_d_sae),
        "alpha": list(settings.grid_alpha),
        "cells": [[found.summary(name) for name in row] for row in names],
        "floors": {name: found.summary(name) for name in ("pca", "ica", "random-s0")},
        "truth": {key: found.row("truth")[key] for key in ("l0", "fvu")},
        "n_rows": store.n_rows,
        "data": data.config.model_dump(),
        "n_steps": settings.grid_steps,
    }


def original(settings: Settings, folder: Path) -> dict[str, Any]:
    """The source's autoencoder on the source's own generator and size."""
    data = Data(_config(settings, d=settings.original_d, G=settings.original_G, **SOURCE))
    found = table(
        data,
        settings.original_d_sae,
        settings.original_alpha,
        settings.original_steps,
        settings.changed_rows,
        in_blocks=True,
    )
    return {**found, "d": settings.original_d, "G": settings.original_G, "n_draws": n_draws(settings.changed_rows)}


def real(settings: Settings, folder: Path) -> dict[str, Any]:
    """How the toy's rows are distributed, and a language model's."""
    data = Data(_config(settings))
    return real_activations.compare(data, settings.model, settings.layer, settings.n_real_rows, folder)


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: a family that there is not, no such model or layer."""
    from pipeline.config import UserError, nearest
    from pipeline.toy.synthetic.natural import FAMILIES

    for name in settings.families:
        if name not in FAMILIES:
            raise UserError(f"synthetic.families: unknown {name!r}{nearest(name, list(FAMILIES))}")
    files = ModelFiles.find(settings.model)
    for hook_point in real_activations.hook_points(settings.layer):
        files.d(hook_point)
    return {"model_digest": files.digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Those of the train and score stages each in a run folder of its own, where they go on from wherever they were."""
    s = settings
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(s.table_seeds):
        data = Data(_config(s, seed=s.seed + seed))
        found[f"table_{seed}"] = partial(table, data, s.table_d_sae, s.table_alpha, s.table_steps, s.table_rows)
    for part in (grid, original, real):
        found[part.__name__] = partial(part, s, folder / part.__name__)
    for ratio in sorted(set(s.ratios), reverse=True):
        found[f"natural_{ratio}"] = partial(
            natural, ratio, s.natural_d, s.natural_k, s.natural_seeds, s.encoder_steps, s.families, s.family_steps,
            s.natural_rows,
        )  # fmt: skip
    for seed in range(s.changed_seeds):
        config = _config(s, seed=s.seed + seed)
        found[f"changed_{seed}"] = partial(changed, config, s.changed_cells, s.changed_steps, s.changed_rows)
    for features in ("random", "axes"):
        for seed in range(s.begin_seeds):
            data = Data(_config(s, seed=s.seed + seed, features=features))
            found[f"begin_{features}_{seed}"] = partial(
                begin, data, s.begin_d_sae, s.begin_alpha, s.begin_steps, s.changed_rows, s.begin_noise
            )
    return found
