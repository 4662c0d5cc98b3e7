"""One net, looked at closely: what one sees through rotations in which its layers' Jacobians are sparse.

R_0 = I, then R_1, R_2, R_3 one after another: R_l J_l R_{l-1}ᵀ sparse on average over inputs. Source: Baker 2022; the parts
are the questions of its discussion. The middle layer, both sides of which are rotated, is the one that is looked at.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.toy.images import Images, load_images
from pipeline.toy.mnist_rotation.net import Net, accuracy, layer_jacobians, rotated_forward, train_net
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
    """What every part begins with: the trained net and its Jacobians, the same in each, a few seconds."""

    config: Settings

    @cached_property
    def images(self) -> Images:
        return load_images(self.config.data, self.config.seed)

    @cached_property
    def net(self) -> Net:
        return train_net(self.config, self.images)

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
    random}. last: agreement of R_3 with the identity, and of random bases. magnitude: (d, d) mean |Jacobian| of the
    middle layer on held-out inputs.
    """
    setting = Setting(config)
    net, images, fit, held = setting.net, setting.images, setting.fit, setting.held
    R = setting.chained(fit[:1])
    _, middle, history = setting.solved(fit[1], "out", R[1], _eye(config.width))
    _, last, _ = setting.solved(fit[2], "out", middle, _eye(10))
    R += [middle, last]
    _, D = solve_invertible(fit[1], R[1], middle, objective=config.objective, sides=("out",))
    h = net.hidden(images.test_x)
    eye = _eye(config.width)
    return {
        "config": config.model_dump(),
        "widths": [images.train_x.shape[1], config.width, config.width, 10],
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
        "history": history,
        "invertible": {"heldout": measure(held[1], R[1], D), "condition": float(torch.linalg.cond(D))},
        "last": {"identity": agreement(last, _eye(10)), "random": agreement_null(10)},
        "kurtosis": {f"hidden {i}": [kurtosis(h[i]), kurtosis(h[i] @ R[i].T.float())] for i in (1, 2)},
        "magnitude": {
            "before": mean_magnitude(held[1], eye, eye).numpy().round(4).tolist(),
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
        start = initial(init, config.width, config.seed, weights=lambda: setting.net.W[1], moment=lambda: moment)
        _, middle, _ = setting.solved(setting.fit[1], "out", below, start)
        found[init] = measure(setting.held[1], below, middle)
    beside = setting.solver.model_copy(
        update={"side": "out", "epsilon_start": setting.solver.epsilon, "n_iterations": 0}
    )
    _, middle, _ = solve(setting.fit[1], beside, below, _eye(config.width), config.n_polish)
    return {**found, "beside": measure(setting.held[1], below, middle)}


def agreements(config: Settings) -> dict[str, Any]:
    """Each layer rotated for itself, both sides free but pixels and logits: does the basis in which one writes agree with
    that in which the next reads? Of hidden layer 1 and 2, each {output_input, random}; own: each layer's held-out measures;
    mean_svd: the middle layer's, by the singular vectors of its mean Jacobian, and its linear share."""
    setting = Setting(config)
    sides: list[Side] = ["out", "both", "in"]
    own = [
        setting.solved(J, side, _eye(J.shape[2]), _eye(J.shape[1]))[:2]
        for J, side in zip(setting.fit, sides, strict=True)
    ]
    null = agreement_null(config.width)
    *by_mean, linear = mean_svd(setting.fit[1])
    return {
        "hidden": {
            f"hidden {i + 1}": {"output_input": agreement(own[i][1], own[i + 1][0]), "random": null} for i in range(2)
        },
        "own": [measure(J, *R) for J, R in zip(setting.held, own, strict=True)],
        "mean_svd": {**measure(setting.held[1], *by_mean), "linear": linear},
    }
