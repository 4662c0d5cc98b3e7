"""How small networks represent simple functions: x < 10, min(a, b), parity. By hand, and as training finds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.toy.networks import Networks, fit
from stores.manifest import seed_of

INTEGERS = range(-20, 40)  # that x < 10 is learned on
PARITY_CENTRES = (8, 4, 2, 1, 1)


class Settings(Config):
    """*_steps: of training; *_seeds: instances trained at once. parity_bits: up to 2^bits integers by hand."""

    threshold_steps: int = Field(default=5000, ge=1)
    minimum_steps: int = Field(default=4000, ge=1)
    minimum_seeds: int = Field(default=24, ge=1)
    parity_steps: int = Field(default=3000, ge=1)
    parity_seeds: int = Field(default=64, ge=1)
    parity_bits: int = Field(default=10, ge=2, le=16)


QUICK: dict[str, Any] = {
    "threshold_steps": 1500, "minimum_steps": 1200, "minimum_seeds": 12, "parity_steps": 500, "parity_seeds": 16,
    "parity_bits": 6,
}  # fmt: skip


def less_than(x: Tensor, bound: float, sharpness: float) -> Tensor:
    """x < bound as one neuron: σ(sharpness (bound - x))."""
    return torch.sigmoid(sharpness * (bound - x))


def minimum_of_four(a: Tensor, b: Tensor) -> Tensor:
    """½ (a + b - |a - b|), with |u| = ReLU(u) + ReLU(-u)."""
    return 0.5 * (a + b - torch.relu(a - b) - torch.relu(b - a))


def minimum_of_two(a: Tensor, b: Tensor) -> Tensor:
    """a - ReLU(a - b)"""
    return a - torch.relu(a - b)


def folding(centres: tuple[int, ...]) -> Networks:
    """x → |… ||x - c_1| - c_2| …|: one layer of two ReLUs for each centre, |x - c| = ReLU(c - x) + ReLU(x - c).

    Each fold maps the integers of one half onto the other and keeps their parity when c is even; float64.
    """
    pair = torch.tensor([[-1.0, 1.0]], dtype=torch.double)
    weights, biases = [], []
    for i, c in enumerate(centres):
        d_in = 1 if i == 0 else 2
        weights.append(pair.expand(d_in, 2).clone()[None])
        biases.append(torch.tensor([[[c, -c]]], dtype=torch.double))
    weights.append(torch.ones(1, 2, 1, dtype=torch.double))
    biases.append(torch.zeros(1, 1, 1, dtype=torch.double))
    return Networks(weights, biases)


def centres_of(n_bits: int) -> tuple[int, ...]:
    """Of a network that tells the parity of 2^n_bits consecutive integers and a few more: 2^(n-1), …, 2, 1, 1."""
    return (*(2**i for i in reversed(range(n_bits))), 1)


@torch.no_grad()
def exact_range(networks: Networks, around: int) -> tuple[int, int]:
    """The first and the last of the consecutive integers about `around` on which the network tells the parity."""
    x = torch.arange(-around - 8, 3 * around + 8, dtype=torch.double)
    right = (networks(x[:, None])[0, :, 0] - x % 2).abs() < 1e-9
    wrong = x[~right]
    return int(wrong[wrong < around].max()) + 1, int(wrong[wrong > around].min()) - 1


def threshold(settings: Settings) -> dict[str, Any]:
    """One neuron, wired, and trained on the logistic loss: on −20…39, and on 0…39, which is not centred on the answer."""
    trained, last = [], {}
    for first in (INTEGERS.start, 0):
        x = torch.arange(first, INTEGERS.stop, dtype=torch.double)
        y = (x < 10).double()
        w, b = (torch.zeros(1, dtype=torch.double, requires_grad=True) for _ in range(2))
        optimiser = torch.optim.Adam([w, b], lr=0.1)
        for step in range(1, settings.threshold_steps + 1):
            loss = nn.functional.binary_cross_entropy_with_logits(w * x / 10 + b, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step in (100, 1000, settings.threshold_steps):
                trained.append([f"{first}…{INTEGERS.stop - 1}", step, _threshold(w, b), loss.item()])
        last[str(first)] = _threshold(w, b)
    x = torch.tensor(list(INTEGERS), dtype=torch.double)
    y = (x < 10).double()
    wired = []
    for sharpness in (1, 10, 100):
        wired.append([str(sharpness), *(float((less_than(x, at, sharpness) - y).abs().max()) for at in (10.0, 9.5))])
    return {"trained": trained, "threshold": last, "wired": wired}


def _threshold(w: Tensor, b: Tensor) -> float:
    return -10 * b.item() / w.item()


def minimum(settings: Settings) -> dict[str, Any]:
    """min(a, b) on [0, 1]²: by hand, and two hidden neurons trained."""
    generator = torch.Generator().manual_seed(seed_of("minimum"))

    def sample() -> tuple[Tensor, Tensor]:
        x = torch.rand(512, 2, generator=generator)
        return x, x.amin(1)

    networks = Networks.drawn(settings.minimum_seeds, (2, 2, 1), generator)
    error = fit(networks, sample, settings.minimum_steps, lr=1e-2)
    best = int(error.argmin())
    W, b = networks.weights[0][best].detach(), networks.biases[0][best, 0].detach()
    v, c = networks.weights[1][best, :, 0].detach(), networks.biases[1][best, 0].detach()
    # The neuron that bends within the square has to read a - b; the other one is active everywhere there.
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    active = (corners @ W + b > 1e-3).sum(0)
    bends = int(((active > 0) & (active < 4)).int().argmax())
    normal = W[:, bends] / W[:, bends].norm()
    domains = {
        "the square it learned on, [0, 1]²": (0, 1),
        "larger, [0, 10]²": (0, 10),
        "with negative numbers, [-1, 1]²": (-1, 1),
        "[-10, 10]²": (-10, 10),
    }
    rows = []
    for name, (low, high) in domains.items():
        grid = torch.linspace(low, high, 101)
        x = torch.cartesian_prod(grid, grid)
        with torch.no_grad():
            off = (networks(x)[best, :, 0] - x.amin(1)).abs().max()
        exact = [(f(x[:, 0], x[:, 1]) - x.amin(1)).abs().max() for f in (minimum_of_four, minimum_of_two)]
        rows.append([name, *(float(e) for e in exact), float(off)])
    return {
        "errors": rows,
        "mse": [round(float(e), 8) for e in error.sort().values],
        "solved": int((error < 1e-5).sum()),
        "cosine_with_difference": abs(float(normal @ torch.tensor([0.5**0.5, -(0.5**0.5)]))),
        "weights": {"W": W.T.tolist(), "b": b.tolist(), "v": v.tolist(), "c": c.tolist()},
        "bends": bends,
    }


def parity(settings: Settings) -> dict[str, Any]:
    """x mod 2 by folding: the net of 31 parameters, the net for 2^n integers, and what training finds."""
    wired = folding(PARITY_CENTRES)
    xs = torch.arange(-4, 21, dtype=torch.double)
    with torch.no_grad():
        out = wired(xs[:, None])[0, :, 0]
    table = []
    for n in range(2, settings.parity_bits + 1):
        first, last = exact_range(folding(centres_of(n)), 2 ** (n - 1))
        table.append([n, 2**n, n, 2 * (n + 1), last - first + 1, 2**n - 2])
    generator = torch.Generator().manual_seed(seed_of("parity"))
    networks = Networks.drawn(settings.parity_seeds, (1, 2, 2, 2, 2, 2, 1), generator)
    x = torch.arange(16.0)
    fit(networks, lambda: (x[:, None], x % 2), settings.parity_steps, lr=1e-2)
    with torch.no_grad():
        error = (networks(x[:, None])[..., 0] - x % 2).square().mean(1)
    return {
        "x": xs.tolist(),
        "out": out.tolist(),
        "exact": exact_range(wired, 8),
        "n_parameters": wired.n_parameters,
        "weights": [[W[0].T.tolist(), b[0, 0].tolist()] for W, b in zip(wired.weights, wired.biases, strict=True)],
        "table": table,
        "trained_mse": [round(float(e), 4) for e in error.sort().values],
    }


def inputs(settings: Settings) -> dict[str, Any]:
    return {}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    return {part.__name__: lambda part=part: part(settings) for part in (threshold, minimum, parity)}
