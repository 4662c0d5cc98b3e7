"""One net, looked at closely: what one sees through rotations in which its layers' Jacobians are sparse.

R_0 = I, then R_1, R_2, R_3 … one after another: R_l J_l R_{l-1}ᵀ sparse on average over inputs. Source: Baker 2022; the
parts are the questions of its discussion. The second layer, both sides of which are rotated, is the one that is looked at:
the middle one of three.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.toy.images import Images, load_images
from pipeline.toy.mnist_rotation.net import Net, accuracy, layer_jacobians, rotated_forward, train_net
from pipeline.toy.mnist_rotation.saved import load_net
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.train.rotations.invertible import solve_invertible
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement, agreement_null, compare, mean_magnitude, mean_svd, measure
from pipeline.train.rotations.objectives import kurtosis
from pipeline.train.rotations.orthogonal import initial
from pipeline.train.rotations.solvers import Side, SolverConfig, chain, solve

STARTS = ("random", "qr", "svd", "eigen")  # beside the identity, from which the rotation that is looked at begins


@dataclass(frozen=True)
class Setting:
    """What every part begins with: the net, trained or saved, and its Jacobians, the same in each, a few seconds."""

    config: Settings

    @cached_property
    def images(self) -> Images:
        return load_images(self.config.data, self.config.seed)

    @cached_property
    def net(self) -> Net:
        if not self.config.model:
            return train_net(self.config, self.images)
        return load_net(Path(self.config.model), self.config.activation, self.images.train_x.shape[1])

    @property
    def widths(self) -> list[int]:
        """(d_0, …, d_L)."""
        return [self.net.W[0].shape[1], *map(len, self.net.W)]

    @cached_property
    def fit(self) -> list[Dense]:
        """Of each layer, at as many training inputs as any rotation is fitted to."""
        return layer_jacobians(self.net, self.images.train_x[: max(self.config.n_fit)])

    @cached_property
    def held(self) -> list[Dense]:
        """Of each layer, at inputs that no fit and no training has seen."""
        return layer_jacobians(self.net, self.images.test_x[: self.config.n_heldout])

    @property
    def solver(self) -> SolverConfig:
        return SolverConfig(objective=self.config.objective, n_iterations=self.config.n_iterations, equal_inputs=True)

    def chained(self, layers: list[Dense]) -> list[Tensor]:
        """R_0 … R_L of the first layers."""
        return chain(layers, self.solver, n_polish=self.config.n_polish)

    def solved(self, J: Dense, side: Side, R_in: Tensor, R_out: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        return solve(J, self.solver.model_copy(update={"side": side}), R_in, R_out, self.config.n_polish)


def _eye(d: int) -> Tensor:
    return torch.eye(d, dtype=torch.float64)


def rotation(config: Settings) -> dict[str, Any]:
    """The chain of rotations, each layer's measures, and what any invertible map reaches instead of the middle layer's R_2.

    unchanged: largest |difference| of a logit with the rotations spliced in. layers: {train, heldout} × {before, after,
    random}. kept: numbers of the layers, from 1, of which no rotation of what they write was sparser than none. last:
    agreement of R_L with the identity, and of random bases. magnitude: (d_2, d_1) mean |Jacobian| of the middle layer on
    held-out inputs.
    """
    setting = Setting(config)
    net, images, fit, held, widths = setting.net, setting.images, setting.fit, setting.held, setting.widths
    R = setting.chained(fit)
    history = setting.solved(fit[1], "out", R[1], _eye(widths[2]))[2]
    _, D = solve_invertible(fit[1], R[1], R[2], objective=config.objective, sides=("out",))
    h = net.hidden(images.test_x)
    hidden = range(1, net.n_layers)
    return {
        "config": config.model_dump(),
        "widths": widths,
        "accuracy": {
            "train": accuracy(net, images.train_x, images.train_y),
            "test": accuracy(net, images.test_x, images.test_y),
        },
        "unchanged": float((rotated_forward(net, R, images.test_x) - net(images.test_x)).abs().max()),
        "largest_logit": float(net(images.test_x).abs().max()),
        "layers": [
            {"train": compare(fit[i], R[i], R[i + 1]), "heldout": compare(held[i], R[i], R[i + 1])}
            for i in range(net.n_layers)
        ],
        "kept": [i for i, (found, d) in enumerate(zip(R, widths, strict=True)) if i and torch.equal(found, _eye(d))],
        "history": history,
        "invertible": {"heldout": measure(held[1], R[1], D), "condition": float(torch.linalg.cond(D))},
        "last": {"identity": agreement(R[-1], _eye(10)), "random": agreement_null(10)},
        "kurtosis": {f"hidden {i}": [kurtosis(h[i]), kurtosis(h[i] @ R[i].T.float())] for i in hidden},
        "magnitude": {
            "before": mean_magnitude(held[1], _eye(widths[1]), _eye(widths[2])).numpy().round(4).tolist(),
            "after": mean_magnitude(held[1], R[1], R[2]).numpy().round(4).tolist(),
        },
    }


def by_n_fit(config: Settings) -> dict[str, Any]:
    """The middle layer's measures on the inputs that its rotations were fitted to, and on held-out ones, by their number."""
    setting, rows = Setting(config), []
    for n in config.n_fit:
        part = [J.rows(0, n) for J in setting.fit[:2]]
        _, below, middle = setting.chained(part)
        rows.append(
            {"n": n, "train": measure(part[1], below, middle), "heldout": measure(setting.held[1], below, middle)}
        )
    return {"rows": rows}


def starts(config: Settings) -> dict[str, Any]:
    """Held-out measures of the middle layer's output rotation, from each of STARTS; and "beside", from the identity without
    leaving it first: no MSP, and no larger epsilon before the one that is meant."""
    setting, found = Setting(config), {}
    below = setting.chained(setting.fit[:1])[1]
    moment = setting.fit[1].second_moments()[1]
    for init in STARTS:
        start = initial(init, setting.widths[2], config.seed, weights=lambda: setting.net.W[1], moment=lambda: moment)
        _, middle, _ = setting.solved(setting.fit[1], "out", below, start)
        found[init] = measure(setting.held[1], below, middle)
    beside = setting.solver.model_copy(
        update={"side": "out", "epsilon_start": setting.solver.epsilon, "n_iterations": 0}
    )
    _, middle, _ = solve(setting.fit[1], beside, below, _eye(setting.widths[2]), config.n_polish)
    return {**found, "beside": measure(setting.held[1], below, middle)}


def agreements(config: Settings) -> dict[str, Any]:
    """Each layer rotated for itself, both sides free but pixels and logits: does the basis in which one writes agree with
    that in which the next reads? Of each hidden layer {output_input, random}; own: each layer's held-out measures;
    mean_svd: the middle layer's, by the singular vectors of its mean Jacobian, and its linear share."""
    setting = Setting(config)
    n = setting.net.n_layers
    sides: list[Side] = ["out", *["both"] * (n - 2), "in"]  # pyright: ignore[reportAssignmentType]
    own = [
        setting.solved(J, side, _eye(J.shape[2]), _eye(J.shape[1]))[:2]
        for J, side in zip(setting.fit, sides, strict=True)
    ]
    *by_mean, linear = mean_svd(setting.fit[1])
    return {
        "hidden": {
            f"hidden {i}": {
                "output_input": agreement(own[i - 1][1], own[i][0]),
                "random": agreement_null(setting.widths[i]),
            }
            for i in range(1, n)
        },
        "own": [measure(J, *R) for J, R in zip(setting.held, own, strict=True)],
        "mean_svd": {**measure(setting.held[1], *by_mean), "linear": linear},
    }
