"""The source's own search beside ours: R = exp(B - Bᵀ), plain gradient descent on B at a rate of 1e-4.

The source does not say how its objective is scaled; here it is the sum over entries of log(1 + (G/ε)²), mean over inputs,
each input's Jacobian in units of its root mean square. B begins at 0.
"""

import time
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import EPSILON, eye, solved, solver, subjects
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement, agreement_null, measure
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import equal_inputs, solve
from stores.manifest import seed_of

LR = 1e-4  # Baker 2022
WAYS: dict[str, tuple[Literal["sgd", "adam"], float]] = {
    "descent": ("sgd", LR), "adam": ("adam", LR), "adam_fast": ("adam", 1e-2),
}  # fmt: skip
N_POINTS = 23


def descend(
    J: Dense,
    R_in: Tensor,
    start: Tensor,
    way: Literal["sgd", "adam"],
    lr: float,
    n_steps: int,
    objective: str = "log",
    total: bool = True,
) -> tuple[Tensor, list[float], float]:
    """R_out = exp(B - Bᵀ) start, the mean of the objective over entries before each step and at the end, and CPU seconds.

    total: descend its sum over entries; otherwise its mean.
    """
    products = equal_inputs(J).product(None, R_in.T.to(J.dtype)).float()
    start = start.float()
    B = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.SGD([B], lr) if way == "sgd" else torch.optim.Adam([B], lr)
    values = torch.empty(n_steps + 1)
    n, d_out, d_in = products.shape
    began = time.process_time()
    for step in range(n_steps + 1):
        R = torch.linalg.matrix_exp(B - B.T) @ start
        G = (products.mT.reshape(-1, d_out) @ R.T).view(n, d_in, d_out)
        value = OBJECTIVES[objective].of(G, EPSILON)
        values[step] = value.detach()
        if step < n_steps:
            optimiser.zero_grad()
            (value * (d_out * d_in if total else 1)).backward()
            optimiser.step()
    found = torch.linalg.matrix_exp(B - B.T) @ start
    return found.detach().double(), values.tolist(), time.process_time() - began


def descent(settings: Settings) -> dict[str, Any]:
    """The middle layer's R_2, R_1 held, by each of WAYS and by our solver; by way, lists over nets.

    passes: over all fitted Jacobians, of our solver; points: passes at which curves are told. by: {curve: objective of the
    fitted inputs, (nets, points); heldout: at the end; seconds: of CPU time for all passes}. last: agreement with the
    identity of the last layer's rotation, its inputs the neurons: by plain descent from the identity (by_mean: of the mean
    over entries) and from a random rotation, and by our solver from a random one; null: of random bases.
    """
    _, nets = subjects(settings, settings.descent_nets)
    name, config = settings.objective, solver(settings)
    passes = settings.small_iterations + settings.small_polish
    points = sorted({round(i * settings.descent_steps / (N_POINTS - 1)) for i in range(N_POINTS)} | {passes})
    points = [p for p in points if p <= settings.descent_steps]
    by: dict[str, dict[str, list[Any]]] = {
        way: {"curve": [], "heldout": [], "seconds": []} for way in (*WAYS, "solver")
    }
    last: dict[str, list[float]] = {"from_identity": [], "by_mean": [], "from_random": [], "solver_from_random": []}
    before = []
    for k, s in enumerate(nets):
        R_1 = solved(settings, s.fit[0], "out")[1]
        one = eye(len(R_1))
        before.append(measure(s.held[1], R_1, one)[name])
        for way, (kind, lr) in WAYS.items():
            R, values, seconds = descend(s.fit[1], R_1, one, kind, lr, settings.descent_steps, name)
            _add(by[way], [values[p] for p in points], measure(s.held[1], R_1, R)[name], seconds)
        began = time.process_time()
        _, R, values = solve(s.fit[1], config, R_1, one, settings.small_polish)
        seconds = time.process_time() - began
        values.append(measure(s.fit[1], R_1, R)[name])
        _add(by["solver"], values, measure(s.held[1], R_1, R)[name], seconds)
        J, hidden, other = s.fit[2], eye(s.fit[2].shape[2]), random_rotation(10, seed_of("last", k))
        for key, begin, total in (
            ("from_identity", eye(10), True),
            ("by_mean", eye(10), False),
            ("from_random", other, True),
        ):
            R = descend(J, hidden, begin, "sgd", LR, settings.descent_steps, name, total)[0]
            last[key].append(agreement(R, eye(10)))
        last["solver_from_random"].append(agreement(solved(settings, J, "out", hidden, other)[1], eye(10)))
    return {"passes": passes, "points": points, "before": before, "by": by, "last": last, "null": agreement_null(10)}


def _add(to: dict[str, list[Any]], curve: list[float], heldout: float, seconds: float) -> None:
    to["curve"].append([round(v, 5) for v in curve])
    to["heldout"].append(heldout)
    to["seconds"].append(round(seconds, 3))
