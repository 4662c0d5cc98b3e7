"""min(a, b) with two hidden ReLUs: its family of exact forms, and the one that training finds.

    λ (a - ReLU(a - b)) + (1 - λ) (b - ReLU(b - a)) = min(a, b) for every λ

λ = 1 is a - ReLU(a - b), λ = 0 its mirror, λ = 1/2 is ½ (a + b - ReLU(a - b) - ReLU(b - a)). On numbers that are not
limited no other form of two hidden ReLUs and a linear output of them and (a, b) is exact but for terms that cancel: the
slope has to jump across a = b by the vector (1, -1), and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.toy.networks import Networks, Optimiser, adam, fit
from stores.manifest import seed_of

N_PAIRS, BATCH = 1000, 32
CORNERS = torch.tensor([[-50.0, -50.0], [-50.0, 49.0], [49.0, -50.0], [49.0, 49.0]])
NEAR = 0.05  # of λ to a form's
FORMS = ("short", "mirror", "symmetric", "between", "beyond")
USED = 0.05  # a unit that moves the output by less, of -50 … 49, is not in use
SOLVED = 0.5  # the largest error of a network whose answers are all right when rounded


def wired(lam: float) -> Networks:
    """The form λ as a network, float64."""
    W = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]], dtype=torch.double)
    v = torch.tensor([[[lam], [1 - lam], [-lam], [lam - 1]]], dtype=torch.double)
    return Networks([W, v], [torch.zeros(1, 1, d, dtype=torch.double) for d in (2, 1)], skip=True)


def all_pairs() -> Tensor:
    """(10000, 2): every pair that the data are drawn from."""
    return torch.cartesian_prod(*2 * [torch.arange(-50.0, 50)])


@torch.no_grad()
def largest_error(networks: Networks) -> Tensor:
    """(n,): over all pairs of integers in -50 … 49."""
    pairs = all_pairs().to(networks.weights[0].dtype)
    return torch.cat([(networks(x)[..., 0] - x.amin(1)).abs() for x in pairs.split(1000)], dim=1).amax(1)


@dataclass(frozen=True)
class Read:
    """Of n networks with a skip: lam (n), what of the bend along a = b is ReLU(a - b)'s; bend (n), the whole bend, 1 in a
    network that is exact; bends, silent (n, d_hidden): whether a hidden unit is on for some pairs and off for others, or off
    for all; effect (n, d_hidden): by how much a unit moves the output at most."""

    lam: Tensor
    bend: Tensor
    bends: Tensor
    silent: Tensor
    effect: Tensor


@torch.no_grad()
def read(networks: Networks) -> Read:
    """What form the networks are. A unit's input is affine, so its extremes over the square lie at the corners."""
    W, v = networks.weights[0], networks.weights[-1][:, 2:, 0]
    pre = torch.baddbmm(networks.biases[0], CORNERS.to(W.dtype).expand(len(W), -1, -1), W)
    silent = (pre <= 0).all(1)
    bends = (pre > 0).any(1) & (pre < 0).any(1)
    slope = (W[:, 0] - W[:, 1]) / 2  # of a unit's input along a - b
    bend = -v * slope.abs() * bends
    toward_a = bend * (slope > 0)
    effect = v.abs() * pre.amax(1).clamp_min(0)
    return Read(toward_a.sum(1), bend.sum(1), bends, silent, effect)


def form(lam: float) -> str:
    """Which of FORMS. beyond: λ is not in 0 … 1."""
    for name, at in (("short", 1.0), ("mirror", 0.0), ("symmetric", 0.5)):
        if abs(lam - at) <= NEAR:
            return name
    return "between" if 0 < lam < 1 else "beyond"


@dataclass(frozen=True)
class Trained:
    """networks; error (n): the largest one of each; same_side (n): whether all its hidden units began with a slope along
    a - b of the same sign."""

    networks: Networks
    error: Tensor
    same_side: Tensor


def learned(
    n_seeds: int, n_epochs: int, width: int = 2, lr: float = 1e-2, batch: int = BATCH, optimiser: Optimiser = adam
) -> Trained:
    """Networks after training. Each draws its own 1,000 pairs and its own batches: they are independent."""
    generator = torch.Generator().manual_seed(seed_of("minimum", "skip"))
    networks = Networks.drawn(n_seeds, (2, width, 1), generator, skip=True)
    begin = (networks.weights[0][:, 0] > networks.weights[0][:, 1]).detach()
    x = torch.randint(-50, 50, (n_seeds, N_PAIRS, 2), generator=generator).float()
    epoch = -(-N_PAIRS // batch)

    def sample(step: int) -> tuple[Tensor, Tensor]:
        nonlocal x
        if step % epoch == 0:
            order = torch.rand(n_seeds, N_PAIRS, generator=generator).argsort(1)
            x = x.gather(1, order[:, :, None].expand(-1, -1, 2))
        chosen = x[:, step % epoch * batch :][:, :batch]
        return chosen, chosen.amin(2)

    fit(networks, sample, n_epochs * epoch, lr, optimiser=optimiser, decay=False)
    return Trained(networks, largest_error(networks), begin.all(1) | ~begin.any(1))


def summary(trained: Trained) -> dict[str, Any]:
    """Of all networks their errors; of those that solve it λ and the form.

    one_used: how many use one unit alone. printed: how many are as the source prints its net: all weights of all units but
    one are 0.00 in two decimals. by_side: how many of those whose units begin on the same side of a = b, or on opposite
    sides, are the short form or its mirror, and of how many.
    """
    networks, found = trained.networks, read(trained.networks)
    solved = trained.error < SOLVED
    weights = [networks.weights[0], networks.biases[0], networks.weights[-1][:, 2:].transpose(1, 2)]
    zero = torch.cat([w.detach() for w in weights], 1).abs().amax(1) < 0.005  # (n, d_hidden)
    used = found.effect > USED
    names = [form(lam) for lam in found.lam[solved].tolist()]
    at_end = torch.tensor([name in ("short", "mirror") for name in names], dtype=torch.bool)
    same = trained.same_side[solved]
    return {
        "n": len(solved),
        "error": np.round(trained.error.tolist(), 5).tolist(),
        "solved": int(solved.sum()),
        "lambda": np.round(found.lam[solved].tolist(), 4).tolist(),
        "bend": np.round(found.bend[solved].tolist(), 4).tolist(),
        "forms": {name: names.count(name) for name in FORMS},
        "one_used": int((used.sum(1) == 1)[solved].sum()),
        "printed": int(((~zero).sum(1) == 1)[solved].sum()),
        "same_side": same.int().tolist(),
        "by_side": {
            "same": [int(at_end[same].sum()), int(same.sum())],
            "opposite": [int(at_end[~same].sum()), int((~same).sum())],
        },
    }


def examples(trained: Trained) -> list[dict[str, Any]]:
    """Of each form the network of least error, its weights: of a hidden unit those of a, b and the bias; of the output those
    of a, b, the hidden units and the bias."""
    networks, error = trained.networks, trained.error
    found, rows = read(networks), []
    for name in FORMS:
        own = [i for i, lam in enumerate(found.lam.tolist()) if error[i] < SOLVED and form(lam) == name]
        if not own:
            continue
        best = min(own, key=lambda i: float(error[i]))
        W, v, b, c = (p[best].detach().numpy() for p in networks.parameters())
        values = {"hidden": np.column_stack([W.T, b[0]]), "output": np.append(v[:, 0], c[0, 0])}
        rows.append(
            {"form": name, "lambda": float(found.lam[best])} | {k: x.round(3).tolist() for k, x in values.items()}
        )
    return rows


def exact_forms() -> list[list[float]]:
    """Rows of λ, the largest error of the wired network, how many of its hidden units are in use."""
    return [[lam, float(largest_error(wired(lam))[0]), 2 - (lam in (0.0, 1.0))] for lam in (1.0, 0.75, 0.5, 0.25, 0.0)]


def source_net(n_seeds: int, n_epochs: int) -> dict[str, Any]:
    trained = learned(n_seeds, n_epochs)
    return summary(trained) | {"examples": examples(trained), "exact": exact_forms()}


def _adam_l2(decay: float) -> Optimiser:
    return lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=decay, fused=True)


def _adamw(decay: float) -> Optimiser:
    return lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=decay, fused=True)


def _sgd(parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


# name → what is changed of learned; each is a part of the run
DECAYS: dict[str, Callable[..., Trained]] = {
    "L2 of 1 in Adam": partial(learned, optimiser=_adam_l2(1.0)),
    "AdamW, decay .01": partial(learned, optimiser=_adamw(0.01)),
    "AdamW, decay .1": partial(learned, optimiser=_adamw(0.1)),
}
WIDTHS: dict[str, Callable[..., Trained]] = {f"{width} hidden": partial(learned, width=width) for width in (1, 4, 8)}
RATES: dict[str, Callable[..., Trained]] = {
    "Adam, rate .001": partial(learned, lr=1e-3),
    "Adam, batches of 100": partial(learned, batch=100),
    "SGD, momentum, 1e-5": partial(learned, lr=1e-5, optimiser=_sgd),
}


def variants(settings: dict[str, Callable[..., Trained]], n_seeds: int, n_epochs: int) -> dict[str, Any]:
    return {name: summary(train(n_seeds, n_epochs)) for name, train in settings.items()}
