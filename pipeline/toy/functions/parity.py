"""x mod 2 by folding the line: wired, how few ReLUs can do it, and what training finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.toy.functions.necessary import most_told
from pipeline.toy.networks import Elementwise, Networks, Optimiser, adam, fit
from stores.manifest import seed_of

CENTRES = (8, 4, 2, 1, 1)  # the source's, for 0 … 15
WIDTHS = (1, 2, 2, 2, 2, 2, 1)
N_INTEGERS = 16


def folding(centres: tuple[int, ...], last: Elementwise | None = None) -> Networks:
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
    return Networks(weights, biases, last=last)


def centres_of(n_bits: int) -> tuple[int, ...]:
    """Of a network that tells the parity of 2^n_bits consecutive integers and a few more: 2^(n-1), …, 2, 1, 1."""
    return (*(2**i for i in reversed(range(n_bits))), 1)


def right_around(tell: Callable[[Tensor], Tensor], around: int) -> tuple[int, int]:
    """The first and the last of the consecutive integers about `around` on which tell(x) is x mod 2."""
    x = torch.arange(-around - 8, 3 * around + 8, dtype=torch.double)
    wrong = x[(tell(x) - x % 2).abs() >= 1e-9]
    return int(wrong[wrong < around].max()) + 1, int(wrong[wrong > around].min()) - 1


@torch.no_grad()
def exact_range(networks: Networks, around: int) -> tuple[int, int]:
    """right_around of a network."""
    return right_around(lambda x: networks(x[:, None])[0, :, 0], around)


@dataclass(frozen=True)
class Chain:
    """ReLUs in a row, each of which reads x and all ReLUs before it; the output reads x and all of them.

    rows: of each ReLU, then of the output: its weight of x, of the earlier ReLUs, and its bias. No network of as many ReLUs
    does more: any graph of them without a circle is one of these, with zeros.
    """

    rows: tuple[tuple[float, ...], ...]

    def __call__(self, x: Tensor) -> Tensor:
        read = [x]
        for row in self.rows:
            z = sum((w * r for w, r in zip(row[:-1], read, strict=True)), torch.full_like(x, row[-1]))
            read.append(z.relu())
        return z  # type: ignore[reportPossiblyUnbound] - a chain has an output

    def n_pieces(self) -> int:
        """How many affine pieces it has over all x: exact but for rounding."""
        edges = np.array([])  # between pieces, sorted
        slope, offset = [np.ones(1)], [np.zeros(1)]  # of what is read, on each piece
        for row in self.rows:
            weights = np.array(row[:-1])
            a, c = weights @ np.array(slope), weights @ np.array(offset) + row[-1]
            if len(slope) == len(self.rows):
                return 1 + int((np.abs(np.diff(a)) > 1e-12).sum())
            root = -c / np.where(a == 0, np.nan, a)
            inside = (root > np.append(-np.inf, edges)) & (root < np.append(edges, np.inf))
            edges = np.sort(np.concatenate([edges, root[inside]]))
            again = np.repeat(np.arange(len(a)), 1 + inside)  # a piece with a root becomes two
            slope, offset = [s[again] for s in slope], [o[again] for o in offset]
            middle = (
                np.concatenate([[edges[0] - 1], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 1]]) if len(edges) else [0]
            )
            on = a[again] * middle + c[again] > 0
            slope.append(np.where(on, a[again], 0.0))
            offset.append(np.where(on, c[again], 0.0))
        raise ValueError("a chain has an output")


def folding_chain(n: int) -> Chain:
    """Parity of the 2^n + 1 integers -1 … 2^n - 1 by n ReLUs: |u| = 2 ReLU(u) - u folds with one, where u may pass by it.

    The centres are 2^(n-1) - 1, then 2^(n-2), …, 2, 1.
    """
    centres = (2 ** (n - 1) - 1, *(2**i for i in reversed(range(n - 1)))) if n > 1 else (0,)
    rows, value = [], [1.0, 0.0]  # value: what has been folded so far, as weights of x and the ReLUs, and a bias
    for c in centres:
        u = [*value[:-1], value[-1] - c]
        rows.append(tuple(u))
        value = [*(-w for w in u[:-1]), 2.0, -u[-1]]
    return Chain((*rows, tuple(value)))


def random_chain(n: int, rng: np.random.Generator) -> Chain:
    return Chain(tuple(tuple(rng.standard_normal(i + 2)) for i in range(n + 1)))


@torch.no_grad()
def by_hand(n_bits: int, n_random: int) -> dict[str, Any]:
    """The source's network on and beyond its range; both constructions for 2^n integers; the most pieces of n ReLUs drawn.

    told: pairs of a number of ReLUs and of how many consecutive integers they tell at most, of all networks of as many.
    """
    source = folding(CENTRES, last=torch.relu)
    xs = torch.arange(-100, 116, dtype=torch.double)
    right = ((source(xs[:, None])[0, :, 0] - xs % 2).abs() < 1e-9).int()
    inside = (xs >= 0) & (xs < N_INTEGERS)
    rng = np.random.default_rng(seed_of("parity", "chains"))
    table = []
    for n in range(2, n_bits + 1):
        first, last = exact_range(folding(centres_of(n)), 2 ** (n - 1))
        low, high = right_around(folding_chain(n), 2 ** (n - 1))
        drawn = max(random_chain(n, rng).n_pieces() for _ in range(n_random)) if n <= 6 else None
        table.append(
            {
                "n": n,
                "relus": 2 * (n + 1) + 1,
                "right": last - first + 1,
                "chain_right": high - low + 1,
                "chain_pieces": folding_chain(n).n_pieces(),
                "random_pieces": drawn,
            }
        )
    near = slice(96, 121)  # -4 … 20
    return {
        "x": xs[near].tolist(),
        "out": source(xs[near, None])[0, :, 0].tolist(),
        "exact": exact_range(source, 8),
        "inside": [int(right[inside].sum()), int(inside.sum())],
        "beyond": [int(right[~inside].sum()), int((~inside).sum())],
        "n_parameters": source.n_parameters,
        "weights": [[W[0].T.tolist(), b[0, 0].tolist()] for W, b in zip(source.weights, source.biases, strict=True)],
        "table": table,
        "told": [[n_relus, most_told(n_relus)] for n_relus in (1, 2)],
    }


@dataclass(frozen=True)
class Way:
    """How to train. scaled: the input is (x - 7.5) / 8. curriculum: on 0 … 3, then 0 … 7, then all. noise: of the weights,
    while they learn. from_wired: it begins at the wired network, with noise of this standard deviation added."""

    widths: tuple[int, ...] = WIDTHS
    activation: Elementwise = torch.relu
    last: Elementwise | None = None
    lr: float = 1e-2
    optimiser: Optimiser = adam
    scaled: bool = False
    curriculum: bool = False
    noise: float = 0.0
    from_wired: float | None = None


def _sgd(parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


_WIDE = (1, 32, 32, 32, 1)
NEAR = "from the wired weights ± .01"  # rounded, its nets are right before training: it asks whether they stay so
SOURCE, LINEAR = "the source's: ReLU after the output", "no ReLU after the output"
Group = Literal["source", "learning", "wide"]
# what is changed of "no ReLU after the output", in the order of the page; a group is a part of the run
WAYS: dict[Group, dict[str, Way]] = {
    "source": {SOURCE: Way(last=torch.relu), LINEAR: Way()},
    "learning": {
        "SGD with momentum": Way(optimiser=_sgd),
        "noise on the weights": Way(noise=0.01),
        "curriculum": Way(curriculum=True),
        "scaled input": Way(scaled=True),
        "sin for ReLU": Way(activation=torch.sin),
        NEAR: Way(from_wired=0.01),
        "from the wired weights ± .1": Way(from_wired=0.1),
    },
    "wide": {
        "five layers of 8": Way(widths=(1, 8, 8, 8, 8, 8, 1)),
        "three layers of 32": Way(widths=_WIDE, lr=3e-3),
        "three of 32, scaled input": Way(widths=_WIDE, lr=3e-3, scaled=True),
        "three of 32, scaled, curriculum": Way(widths=_WIDE, lr=3e-3, scaled=True, curriculum=True),
    },
}


def train(way: Way, n_seeds: int, n_steps: int) -> dict[str, Any]:
    """On the integers 0 … 15. error (n_seeds): mean squared; constant: whether the output is one number, within .01; right,
    right_before: whether all integers are, rounded, after training and before it."""
    generator = torch.Generator().manual_seed(seed_of("parity"))
    if way.from_wired is None:
        networks = Networks.drawn(n_seeds, way.widths, generator, activation=way.activation, last=way.last)
    else:
        weights = list(folding(CENTRES).parameters())
        noisy = [w.float() + way.from_wired * torch.randn(n_seeds, *w.shape[1:], generator=generator) for w in weights]
        networks = Networks(noisy[: len(noisy) // 2], noisy[len(noisy) // 2 :], way.activation, way.last)
    x = torch.arange(float(N_INTEGERS))
    inputs, y = ((x - 7.5) / 8 if way.scaled else x)[:, None], x % 2

    def sample(step: int) -> tuple[Tensor, Tensor]:
        seen = N_INTEGERS if not way.curriculum or step >= n_steps // 2 else 4 if step < n_steps // 4 else 8
        return inputs[:seen], y[:seen]

    def right() -> list[int]:
        return ((networks(inputs)[..., 0] - y).abs() < 0.5).all(1).int().tolist()

    right_before = right()
    fit(networks, sample, n_steps, way.lr, optimiser=way.optimiser, noise=way.noise, generator=generator)
    with torch.no_grad():
        out = networks(inputs)[..., 0]
    return {
        "error": np.round((out - y).square().mean(1).tolist(), 5).tolist(),
        "constant": ((out.amax(1) - out.amin(1)) < 0.01).int().tolist(),
        "right": right(),
        "right_before": right_before,
    }


def trained(group: Group, n_seeds: int, n_steps: int) -> dict[str, Any]:
    return {name: train(way, n_seeds, n_steps) for name, way in WAYS[group].items()}
