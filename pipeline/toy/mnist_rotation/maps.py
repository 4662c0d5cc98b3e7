"""What is minimised, from where, and over which maps: other objectives, starts, and maps that are no rotations.

All of the middle layer's output side, R_1 held where the chain from the pixels put it. Numbers are lists over nets, measured
on held-out inputs.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.mnist_rotation.net import Net
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import EPSILON, Subject, eye, solved, subjects
from pipeline.train.rotations.invertible import solve_invertible
from pipeline.train.rotations.jacobians import Dense, of_module
from pipeline.train.rotations.measures import measure
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import initial
from pipeline.train.rotations.solvers import equal_inputs, rotated
from stores.manifest import seed_of

LOG_LIKE, NORMS = ("log", "rational"), ("l1", "l4", "hoyer")  # Hoyer's is L1 over L2
THRESHOLDS = (0.01, 0.1)  # in units of an input's root mean square
SCALES = (1.0, 0.1, 0.01)
BARRIERS = (1.0, 0.1)


def zeros(J: Dense, R_in: Tensor, R_out: Tensor) -> dict[str, float]:
    """Share of the entries of R_out J R_inᵀ below each threshold, each input's in units of its root mean square."""
    G = rotated(equal_inputs(J), R_in, R_out).abs()
    return {f"below_{t:g}": float((t > G).double().mean()) for t in THRESHOLDS}


def objectives(settings: Settings) -> dict[str, Any]:
    """by: objective, and "neurons" → the share of entries below each threshold, and what measure() has of them."""
    _, nets = subjects(settings, settings.n_nets)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ("neurons", *LOG_LIKE, *NORMS)}
    for s in nets:
        below = solved(settings, s.fit[0], "out")[1]
        for name in found:
            R_in = eye(len(below)) if name == "neurons" else below
            R_out = R_in if name == "neurons" else solved(settings, s.fit[1], "out", R_in, None, name)[1]
            values = {**zeros(s.held[1], R_in, R_out), **measure(s.held[1], R_in, R_out)}
            for key, value in values.items():
                found[name].setdefault(key, []).append(round(value, 6))
    return {"by": found}


def translated(net: Net, i: int, h: Tensor, seed: int) -> Tensor:
    """(n, d_out, d_in) Jacobians of a layer whose inputs and outputs are moved by constants, at the inputs that were h."""
    generator = torch.Generator().manual_seed(seed_of("translation", seed))
    t_in, t_out = (torch.randn(d, generator=generator) for d in (h.shape[1], len(net.W[i])))
    return of_module(lambda row: net.layer(i, row - t_in) + t_out, h + t_in).J


def maps(settings: Settings) -> dict[str, Any]:
    """The objective before, and with R_2 from each start; with any invertible map in its place.

    from_*: of rotations from the identity, from random ones, from QR and the singular vectors of the weights.
    rows_*: of by_rows(). next_*: of the last layer, which reads these coordinates, its outputs the logits.
    invertible_*: of unit rows, kept apart by a penalty on log(1/|det|) of each weight in BARRIERS; condition_*: its
    condition number. translation: largest |difference| that it makes to a Jacobian, over the largest entry. scaled: by
    SCALES, the objective of a scaled rotated Jacobian without a normaliser.
    """
    images, nets = subjects(settings, settings.n_nets)
    rows = []
    for k, s in enumerate(nets):
        R_1 = solved(settings, s.fit[0], "out")[1]
        middle = _middle(settings, s, R_1, k)
        h = s.net.hidden(images.test_x[:16])[1]
        J = s.held[1].J[:16]
        size = J.square().mean().sqrt()
        rows.append(
            {
                **middle,
                "translation": float((translated(s.net, 1, h, k) - J).abs().max() / J.abs().max()),
                **{f"scaled_{c:g}": float(torch.log1p((c * J / size / 0.1) ** 2).mean()) for c in SCALES},
            }
        )
    return {key: [round(row[key], 9) for row in rows] for key in rows[0]}


def by_rows(settings: Settings, J: Dense, R_in: Tensor, R_out: Tensor) -> float:
    """The objective of R_out J R_inᵀ with each output axis in units of its own root mean square over inputs: no scale of an
    axis changes it. Axes on which nothing happens are left out."""
    G = rotated(equal_inputs(J), R_in, R_out)
    size = G.square().mean((0, 2)).sqrt()
    kept = size > 1e-6 * size.max()
    return float(OBJECTIVES[settings.objective].of(G[:, kept] / size[kept][:, None], EPSILON))


def _middle(settings: Settings, s: Subject, R_1: Tensor, k: int) -> dict[str, float]:
    name, d = settings.objective, settings.small_width
    found = {
        "before": measure(s.held[1], eye(d), eye(d))[name],
        "rows_before": by_rows(settings, s.held[1], eye(d), eye(d)),
    }
    starts = {"identity": eye(d)} | {
        init: initial(init, d, seed_of("start", k), weights=lambda: s.net.W[1]) for init in ("random", "qr", "svd")
    }
    last = s.held[2]
    found["next_before"] = measure(last, eye(d), eye(last.shape[1]))[name]
    for init, start in starts.items():
        R_2 = solved(settings, s.fit[1], "out", R_1, start)[1]
        found[f"from_{init}"] = measure(s.held[1], R_1, R_2)[name]
        starts[init] = R_2
        found[f"rows_from_{init}"] = by_rows(settings, s.held[1], R_1, R_2)
        found[f"next_from_{init}"] = measure(last, R_2, eye(last.shape[1]))[name]
    for barrier in BARRIERS:
        _, D = solve_invertible(
            s.fit[1],
            R_1,
            starts["identity"],
            objective=name,
            sides=("out",),
            barrier=barrier,
            n_steps=10 * settings.small_iterations,
        )
        found[f"invertible_{barrier:g}"] = measure(s.held[1], R_1, D)[name]
        # the next layer reads D⁻¹ of the new coordinates: its Jacobian is J D⁻¹
        found[f"next_invertible_{barrier:g}"] = measure(last, torch.linalg.inv(D).T, eye(last.shape[1]))[name]
        found[f"rows_invertible_{barrier:g}"] = by_rows(settings, s.held[1], R_1, D)
        found[f"condition_{barrier:g}"] = float(torch.linalg.cond(D))
    return found
