"""What rotations do to many small nets: chains from both ends, layers alone, few inputs, and kinds of training.

Numbers are lists over nets unless their docstring says otherwise. Sparsity is measured on held-out inputs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.toy.images import Images, load_images
from pipeline.toy.mnist_rotation.net import Net, accuracy, layer_jacobians, rotated_forward
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.training import Regime, regimes, small, train_nets, training_loss
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement, agreement_null, compare, measure
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import Side, SolverConfig, chain, rotated, solve
from stores.manifest import seed_of

LAYERS = ("first", "middle", "last")
EPSILON = 0.1  # of measure(), in units of an input's root mean square
FEW = (1, 8)  # "a particular input, or only a few"


@dataclass(frozen=True)
class Subject:
    """A net and its layers' Jacobians: at the inputs that rotations are fitted to, and at held-out ones."""

    net: Net
    fit: list[Dense]
    held: list[Dense]


def subjects(settings: Settings, n: int, regime: Regime | None = None) -> tuple[Images, list[Subject]]:
    """n nets of a kind, the small one by default."""
    images = load_images(settings.data, settings.seed)
    found = []
    for net in train_nets(settings, regime or small(settings), images, n):
        fit = layer_jacobians(net, images.train_x[: settings.small_fit])
        found.append(Subject(net, fit, layer_jacobians(net, images.test_x[: settings.n_heldout])))
    return images, found


def solver(settings: Settings, side: Side = "out", objective: str | None = None) -> SolverConfig:
    """Of the small nets."""
    return SolverConfig(
        objective=objective or settings.objective, n_iterations=settings.small_iterations, equal_inputs=True, side=side
    )


def eye(d: int) -> Tensor:
    return torch.eye(d, dtype=torch.float64)


def solved(
    settings: Settings,
    J: Dense,
    side: Side,
    R_in: Tensor | None = None,
    R_out: Tensor | None = None,
    objective: str | None = None,
) -> tuple[Tensor, Tensor]:
    """R_in, R_out; what is not given begins as the identity."""
    R_in, R_out = eye(J.shape[2]) if R_in is None else R_in, eye(J.shape[1]) if R_out is None else R_out
    return solve(J, solver(settings, side, objective), R_in, R_out, settings.small_polish)[:2]


def gains(settings: Settings, J: Dense, R_in: Tensor, R_out: Tensor) -> dict[str, float]:
    """before, after, random: the objective of neurons, of these rotations, of random ones in their places; gain, the share
    by which the objective falls; mass_*, the share of J² in the largest 1% of the entries."""
    found = compare(J, R_in, R_out, n_random=1)
    three = {"before": found["before"], "after": found["after"], "random": found["random"][0]}
    values = {name: m[settings.objective] for name, m in three.items()}
    masses = {f"mass_{name}": m["mass_in_1%"] for name, m in three.items()}
    # against |before|: an objective may be negative
    return {**values, **masses, "gain": (values["before"] - values["after"]) / abs(values["before"])}


def by_input(settings: Settings, J: Dense, R_in: Tensor, R_out: Tensor) -> Tensor:
    """The objective of each input's Jacobian by itself, (n_inputs,)."""
    G = rotated(J, R_in, R_out)
    G = G / G.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-30)
    return torch.stack([OBJECTIVES[settings.objective].of(g[None], EPSILON) for g in G])


def density(settings: Settings, R: Tensor) -> float:
    """The objective of a rotation's own entries over that of a random rotation's: 1 for a rotation as dense as any."""
    one = eye(len(R))
    own, other = (measure(Dense(M[None]), one, one)[settings.objective] for M in (R, random_rotation(len(R), 0)))
    return own / other


def _by_net(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """A list of dicts as a dict of lists."""
    return {name: [float(f"{row[name]:.6g}") for row in rows] for name in rows[0]}


def chains(settings: Settings) -> dict[str, Any]:
    """From the pixels on, from the logits back, and each layer for itself.

    turn, back, own: by layer, gains() of the chain from the pixels, of that from the logits, and of each layer rotated for
    itself, both sides free but pixels and logits. alone: the last layer, its outputs rotated, its inputs the neurons.
    identity: agreement with it of the logits' rotation, in turn and alone, and of random bases. hidden: agreement of
    the basis in which a layer writes with that in which the next one reads, each rotated for itself; null: random bases.
    unchanged: largest |difference| of a logit over the largest logit; same: share of predictions that stay. inputs: share
    of held-out inputs at which the middle layer is sparser than in neurons. shuffled: |difference| of the objective by a
    permutation. density: of R_1 and R_2.
    """
    images, nets = subjects(settings, settings.n_nets)
    x = images.test_x
    table: dict[str, list[dict[str, float]]] = {
        f"{way}_{layer}": [] for way in ("turn", "back", "own") for layer in LAYERS
    }
    table["alone"], rows = [], []
    for k, s in enumerate(nets):
        R = chain(s.fit, solver(settings), n_polish=settings.small_polish)
        back = chain(s.fit, solver(settings), backward=True, n_polish=settings.small_polish)
        sides: list[Side] = ["out", "both", "in"]
        own = [solved(settings, J, side) for J, side in zip(s.fit, sides, strict=True)]
        _, last = solved(settings, s.fit[2], "out")
        for i, layer in enumerate(LAYERS):
            table[f"turn_{layer}"].append(gains(settings, s.held[i], R[i], R[i + 1]))
            table[f"back_{layer}"].append(gains(settings, s.held[i], back[i], back[i + 1]))
            table[f"own_{layer}"].append(gains(settings, s.held[i], *own[i]))
        table["alone"].append(gains(settings, s.held[2], eye(s.fit[2].shape[2]), last))
        logits, rotated = s.net(x), rotated_forward(s.net, R, x)
        one = eye(len(R[1])), eye(len(R[2]))
        each = torch.stack([by_input(settings, s.held[1], *bases) for bases in ((R[1], R[2]), one)])
        order = torch.randperm(len(R[2]), generator=torch.Generator().manual_seed(seed_of("shuffle", k)))
        plain, shuffled = (measure(s.held[1], one[0], P) for P in (one[1], one[1][order]))
        rows.append(
            {
                "unchanged": float((rotated - logits).abs().max() / logits.abs().max()),
                "same": float((rotated.argmax(1) == logits.argmax(1)).double().mean()),
                "accuracy": accuracy(s.net, x, images.test_y),
                "identity_turn": agreement(R[3], eye(10)),
                "identity_alone": agreement(last, eye(10)),
                "inputs": float((each[0] < each[1]).double().mean()),
                "shuffled": abs(shuffled[settings.objective] - plain[settings.objective]),
                "hidden_1": agreement(own[0][1], own[1][0]),
                "hidden_2": agreement(own[1][1], own[2][0]),
                "density_1": density(settings, R[1]),
                "density_2": density(settings, R[2]),
            }
        )
    return {
        **{name: _by_net(found) for name, found in table.items()},
        **_by_net(rows),
        "null": agreement_null(settings.small_width),
        "null_10": agreement_null(10),
    }


def few_inputs(settings: Settings) -> dict[str, Any]:
    """The middle layer's gain, fitted to FEW inputs and to all: of those inputs and of held-out ones."""
    _, nets = subjects(settings, settings.n_nets)
    counts = sorted({min(n, settings.small_fit) for n in (*FEW, settings.small_fit)})
    rows = []
    for n in counts:
        found = []
        for s in nets:
            part = [J.rows(0, n) for J in s.fit[:2]]
            R = chain(part, solver(settings), n_polish=settings.small_polish)
            found.append([gains(settings, J, R[1], R[2])["gain"] for J in (part[1], s.held[1])])
        rows.append({"n": n, "fitted": [f for f, _ in found], "heldout": [h for _, h in found]})
    return {"rows": rows}


def regime(settings: Settings, name: str) -> dict[str, Any]:
    """The hidden layers of nets of one kind in the chain from the pixels: gains(), mean over layers between two hidden ones.

    loss: of training, nats. mean_gain: the share by which the objective falls from random rotations.
    """
    kind = regimes(settings)[name]
    images, nets = subjects(settings, settings.regime_nets, kind)
    rows = []
    for s in nets:
        R = chain(s.fit[:-1], solver(settings), n_polish=settings.small_polish)
        found = [gains(settings, s.held[i], R[i], R[i + 1]) for i in range(1, s.net.n_layers - 1)]
        rows.append(
            {key: sum(f[key] for f in found) / len(found) for key in found[0]}
            | {"loss": training_loss(s.net, images), "accuracy": accuracy(s.net, images.test_x, images.test_y)}
        )
    return {"kind": vars(kind), **_by_net(rows)}
