"""Rotations of the known layer: of its Jacobians, of its activations, and the best one that there is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.toy.known_layer.dictionaries import source
from pipeline.toy.known_layer.layer import Layer, strengths
from pipeline.toy.known_layer.recovery import best_rotation, means, recovery
from pipeline.train.methods import METHODS
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement, mean_magnitude, measure
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import SolverConfig, solve
from stores.manifest import seed_of

N_ROWS = 4096  # of activations, for what looks at these
_KEPT = ("log", "mass_in_1%")  # of measure()


def rotated(layer: Layer, n_inputs: int, n_iterations: int, n_polish: int, seed: int) -> tuple[Tensor, Tensor]:
    """R_in, R_out in which the layer's Jacobians are sparse, both sides free, from a random start (Baker 2022)."""
    config = SolverConfig(objective="log", n_iterations=n_iterations, equal_inputs=True)
    d = layer.F.shape[1]
    J = layer.jacobians(layer.active(n_inputs, seed_of("fit", seed)))
    start_in, start_out = (random_rotation(d, seed_of(side, seed)) for side in ("in", "out"))
    R_in, R_out, _ = solve(J, config, start_in, start_out, n_polish)
    return R_in, R_out


def bases(layer: Layer, seed: int) -> dict[str, Tensor]:
    """name → directions (d, d) of the bases that are made of the layer's input alone."""
    n, d = layer.F.shape
    generator = torch.Generator().manual_seed(seed_of("rows", seed))
    x = strengths((N_ROWS,), n, layer.p, generator) @ layer.F.float()
    own = source(layer.F, layer.p, x)
    centred = (x - torch.from_numpy(own.reads.mean).float()).double()
    quartimax, _ = solve(
        Dense(centred[..., None]),
        SolverConfig(objective="l4", side="out"),
        torch.ones(1, 1, dtype=torch.float64),
        random_rotation(d, seed_of("quartimax", seed)),
    )[1:]
    fitted = {name: METHODS[name] for name in ("pca", "ica")}
    return {
        "neurons": torch.eye(d, dtype=torch.float64),
        "quartimax": quartimax,
        **{name: method.fit(method.config(), own, {}).directions for name, method in fitted.items() if method.fit},
    }


def compare(layers: Sequence[Layer], n_inputs: int, n_iterations: int, n_polish: int, seed: int = 0) -> dict[str, Any]:
    """recovery() of each basis for every layer, {basis: {figure: one a seed}}.

    jacobian, in and out: R_in with F, R_out with G. truth: best_rotation of F. bijective: mean |cosine| of the axes
    matched one to one with features; with_best: of two rotations' axes, with those of best_rotation. sparsity: measure()
    of held-out Jacobians. example: of the first layer.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    sparsity: dict[str, list[dict[str, float]]] = {"neurons": [], "rotated": [], "random": []}
    bijective: dict[str, list[float]] = {"jacobian": [], "truth": [], "random": []}
    with_best: dict[str, list[float]] = {"jacobian": [], "random": []}
    example: dict[str, Any] = {}
    for i, layer in enumerate(layers):
        own = seed_of("known-layer rotations", seed, i)
        d = layer.F.shape[1]
        R_in, R_out = rotated(layer, n_inputs, n_iterations, n_polish, own)
        truth = best_rotation(layer.F, own)
        found = {"jacobian, in": R_in, "truth": truth, **bases(layer, own)}
        for name, directions in found.items():
            rows.setdefault(name, []).append(recovery(layer.F, directions, own, signed=True))
        rows.setdefault("jacobian, out", []).append(recovery(layer.G, R_out, seed_of("out", own), signed=True))
        random = [random_rotation(d, seed_of("null", side, own)) for side in ("in", "out")]
        for name, R in (("jacobian", R_in), ("truth", truth), ("random", random[0])):
            bijective[name].append(round(agreement(R, layer.F), 4))
            if name in with_best:
                with_best[name].append(round(agreement(R, truth), 4))
        held = layer.jacobians(layer.active(n_inputs, seed_of("held", own)))
        eye = torch.eye(d, dtype=torch.float64)
        for name, sides in (("neurons", (eye, eye)), ("rotated", (R_in, R_out)), ("random", random)):
            values = measure(held, *sides)
            sparsity[name].append({key: round(values[key], 4) for key in _KEPT})
        if not i:
            example = _example(layer, held, R_in, R_out)
    return {
        "recovery": {name: means(each) for name, each in rows.items()},
        "bijective": bijective,
        "with_best": with_best,
        "sparsity": {name: means(each) for name, each in sparsity.items()},
        "example": example,
        "n_features": len(layers[0].F),
        "d": layers[0].F.shape[1],
        "mu": [round(layer.mu, 4) for layer in layers],
        "opposite": [round(float((layer.F @ layer.F.T).min()), 4) for layer in layers],
    }


def _example(layer: Layer, J: Dense, R_in: Tensor, R_out: Tensor) -> dict[str, Any]:
    """|J| before and after, and the cosines of the input's axes with the features."""
    eye = torch.eye(len(R_in), dtype=torch.float64)
    return {
        "before": _rounded(mean_magnitude(J, eye, eye)),
        "after": _rounded(mean_magnitude(J, R_in, R_out)),
        "cosine": _rounded(R_in @ layer.F.T),
    }


def _rounded(x: Tensor) -> list[list[float]]:
    return np.round(x.double().numpy(), 3).tolist()
