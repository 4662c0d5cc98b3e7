"""Sparse dictionaries of the known layer's input, one for each of many layers, trained side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.score.similarity import mcs
from pipeline.toy.known_layer.layer import Layer, strength_moments, strengths
from pipeline.toy.known_layer.recovery import means, recovery
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.source import Source
from pipeline.train.stack import Stack
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.moments import Moments

# Settings that were tried on other layers than the ones that are measured.
FAMILIES: dict[str, dict[str, Any]] = {
    "topk": {"k": 2, "lr": 4e-3},
    "relu_l1": {"l1_coefficient": 3.0, "lr": 4e-3},
    "jumprelu": {"l0_coefficient": 4.0, "lr": 4e-3, "threshold": 0.85, "bandwidth": 0.85},
}
N_HELDOUT = 4096
_HOOK_POINT = "known-layer"


def moments(mean: np.ndarray, total_variance: float) -> Moments:
    """Of a distribution that is known: the mean (d,) and E|x - mean|²; each coordinate is given the same part of it."""
    d = len(mean)
    second = np.full(d, total_variance / d) + mean**2
    return Moments(1, mean, second, np.zeros(d), 0.0, 0.0)


def source(F: Tensor, p: float, x: Tensor | None = None) -> Source:
    """What a method may know of the rows s F: their exact moments, and rows x (n, d) where it asks for some."""
    mean, variance = strength_moments(p)
    total = variance * float(F.double().square().sum())
    rows = _rows(np.empty((0, F.shape[1]), np.float32) if x is None else x.numpy())
    return Source.at(
        _HOOK_POINT, moments(mean * F.double().sum(0).numpy(), total), rows, rows, _no_model, precision="float32"
    )


def _rows(x: np.ndarray):
    return lambda n: x[:n]


def _no_model() -> Any:
    raise ValueError("no language model made these rows")


def train(
    name: str, config: dict[str, Any], sources: Sequence[Source], draw: Any, n_steps: int
) -> list[FeatureDictionary]:
    """One dictionary for each source, which all have the same scale. draw(step): (n, batch, d) rows, a batch for each."""
    method = METHODS[name]
    learners: list[FamilyLearner] = []
    for seed, own in enumerate(sources):
        settings = method.config.model_validate({"seed": seed, **config})
        learner = method.learner(settings, own, "cpu") if method.learner else None
        if not isinstance(learner, FamilyLearner):
            raise ValueError(f"{name} is no family of dictionaries")
        learners.append(learner)
    stack = Stack(learners)
    for step in range(n_steps):
        stack.step(draw(step), step, n_steps)
    return [learner.to_dictionary({}) for learner in learners]


def compare(
    layers: Sequence[Layer], name: str, d_sae: int, n_steps: int, batch_size: int, seed: int = 0
) -> dict[str, Any]:
    """recovery() of one family's dictionaries, on rows that no training has seen; dead latents are left out.

    live: how many latents are left; l0, true_l0: mean number of active latents and of active features in rows where a
    feature is active; fvu: fraction of variance unexplained. example: of the first layer. mcs: of all features.
    """
    F, p, n = torch.stack([layer.F for layer in layers]).float(), layers[0].p, len(layers[0].F)
    generator = torch.Generator().manual_seed(seed_of("known-layer batches", name, seed))

    def draw(n_rows: int) -> Tensor:
        return strengths((len(layers), n_rows), n, p, generator)

    config = {"d_sae": d_sae, **FAMILIES[name]}
    sources = [source(layer.F, p) for layer in layers]
    trained = train(name, config, sources, lambda step: draw(batch_size) @ F, n_steps)
    s, rows, nearest = draw(N_HELDOUT), [], []
    example: list[list[float]] = []
    for i, (layer, dictionary) in enumerate(zip(layers, trained, strict=True)):
        x = s[i] @ F[i]
        with torch.no_grad():
            code, x_hat = dictionary.encode(x), dictionary(x)
        some, live = (s[i] > 0).any(1), (code != 0).any(0)
        directions = dictionary.directions[live]
        nearest += mcs(layer.F, directions, signed=False).tolist()
        error, spread = (v.double().square().sum() for v in (x - x_hat, x - x.mean(0)))
        rows.append(
            {
                **recovery(layer.F, directions, seed_of("floor", name, seed, i), signed=False),
                "live": int(live.sum()),
                "l0": round(float((code[some] != 0).sum(1).double().mean()), 4),
                "true_l0": round(float((s[i][some] > 0).sum(1).double().mean()), 4),
                "fvu": round(float(error / spread), 4),
            }
        )
        if not i:
            cosine = directions.double() @ layer.F.T
            example = np.round(cosine[cosine.argmax(1).sort().indices].numpy(), 3).tolist()
    return {
        "d_sae": d_sae,
        "n_steps": n_steps,
        "config": FAMILIES[name],
        "rows": means(rows),
        "example": example,
        "mcs": np.round(nearest, 3).tolist(),
    }
