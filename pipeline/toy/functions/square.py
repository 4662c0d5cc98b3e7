"""min(a, b) with two hidden ReLUs whose output reads nothing else: one of them has to carry a number past the layer."""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.networks import Networks, fit
from stores.manifest import seed_of

DOMAINS = {
    "the square it learned on, [0, 1]²": (0, 1),
    "larger, [0, 10]²": (0, 10),
    "with negative numbers, [-1, 1]²": (-1, 1),
    "[-10, 10]²": (-10, 10),
}
SOLVED = 1e-5  # mean squared error; min(a, b) on the square has a variance of 1/18


def minimum_of_four(a: Tensor, b: Tensor) -> Tensor:
    """½ (a + b - |a - b|), with |u| = ReLU(u) + ReLU(-u)."""
    return 0.5 * (a + b - torch.relu(a - b) - torch.relu(b - a))


def minimum_of_two(a: Tensor, b: Tensor) -> Tensor:
    """a - ReLU(a - b)"""
    return a - torch.relu(a - b)


@torch.no_grad()
def measure(n_seeds: int, n_steps: int) -> dict[str, Any]:
    """Trained on the unit square under Adam.

    carries: of the networks that solve it, how many have one unit that bends within the square, along a = b (|cosine| of
    its weights with a - b above .99), and one that is on all over it.
    """
    generator = torch.Generator().manual_seed(seed_of("minimum"))

    def sample(step: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(512, 2, generator=generator)
        return x, x.amin(1)

    networks = Networks.drawn(n_seeds, (2, 2, 1), generator)
    with torch.enable_grad():
        error = fit(networks, sample, n_steps, lr=1e-2)
    W, b = networks.weights[0], networks.biases[0]
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    pre = torch.baddbmm(b, corners.expand(n_seeds, -1, -1), W)  # a unit's input is affine: its extremes are here
    little = 0.05 * pre.abs().amax(1)
    low, high = pre.amin(1), pre.amax(1)  # (n_seeds, 2)
    bends = ((low < -little) & (high > little)).int()
    everywhere = (low >= -little) & (high > little)
    along = ((W[:, 0] - W[:, 1]).abs() * 0.5**0.5 / W.norm(dim=1).clamp_min(1e-12)) > 0.99
    carries = (bends.sum(1) == 1) & (everywhere.sum(1) == 1) & (along | (bends == 0)).all(1)
    best, solved = int(error.argmin()), error < SOLVED
    rows = []
    for name, ends in DOMAINS.items():
        x = torch.cartesian_prod(*2 * [torch.linspace(*ends, 101)])
        off = torch.stack([(y[:, 0] - x.amin(1)).abs().max() for y in networks(x)[solved]] or [torch.tensor(torch.nan)])
        exact = [(f(x[:, 0], x[:, 1]) - x.amin(1)).abs().max() for f in (minimum_of_four, minimum_of_two)]
        rows.append([name, *(float(e) for e in exact), float(off.median())])
    return {
        "n": n_seeds,
        "errors": rows,
        "mse": [round(float(e), 8) for e in error.sort().values],
        "solved": int(solved.sum()),
        "carries": int((carries & solved).sum()),
        "weights": {
            "W": W[best].T.tolist(),
            "b": b[best, 0].tolist(),
            "v": networks.weights[1][best, :, 0].tolist(),
            "c": networks.biases[1][best, 0].tolist(),
        },
        "bends": int(bends[best].argmax()),
    }
