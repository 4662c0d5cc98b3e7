"""Two features that exclude each other, kept in one number.

    first event, probability ½: z = -(x + N);   second event: z = y + N;   x, y ~ N(0, 1), N large
    decoded: z < 0 means the first event, x = -z - N; z ≥ 0 the second, y = z - N

Source: the discussion of Baker 2022, which has the rule in words; its formulas are lost in the text that survives, and
the sign of x is chosen here so that both features are rays from 0. The rule errs when a number is below -N: Φ(-N).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pipeline.toy.known_layer.dictionaries import moments, train
from pipeline.train.methods import METHODS
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import SolverConfig, solve
from pipeline.train.source import Source
from stores.manifest import seed_of

# Settings as in FAMILIES, for one dimension; λ is small beside the scale of z, which is 1 after scaling.
FAMILIES: dict[str, dict[str, Any]] = {
    "topk": {"k": 1, "lr": 4e-3},
    "relu_l1": {"l1_coefficient": 0.1, "lr": 4e-3},
    "jumprelu": {"l0_coefficient": 0.1, "lr": 4e-3, "threshold": 0.1, "bandwidth": 0.1},
}
N_ROWS = 4096
_CLEAR = 0.99  # of the inputs of an event


def sample(n_rows: int, offset: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """z (n_rows, 1), which of the events is the first (n_rows,), and the number that was observed (n_rows,); float64."""
    first = torch.rand(n_rows, generator=generator) < 0.5
    number = torch.randn(n_rows, generator=generator, dtype=torch.float64)
    return encode(first, number, offset)[:, None], first, number


def encode(first: Tensor, number: Tensor, offset: float) -> Tensor:
    """z of an event and its number."""
    return torch.where(first, -(number + offset), number + offset)


def decode(z: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """Which event it was, and its number."""
    return z < 0, z.abs() - offset


def finds(code: Tensor, first: Tensor, number: Tensor) -> tuple[int, float]:
    """Of the two features, how many have a latent of their own; and how well the worse of them is told from the other.

    code (n_rows, d_sae). A latent is one feature's when it is on (not 0) for its event and off for the other, each in 99% of
    inputs, and its code follows the number there: r² ≥ .99. told apart: of the best latent of each event, P(on | event) -
    P(on | the other); the smaller of the two.
    """
    on, found, apart = code != 0, 0, []
    for event in (first, ~first):
        here, there = on[event].double().mean(0), on[~event].double().mean(0)
        apart.append(float((here - there).max()))
        for latent in ((here >= _CLEAR) & (there <= 1 - _CLEAR)).nonzero()[:, 0].tolist():
            values, numbers = code[event, latent].double().numpy(), number[event].numpy()
            if values.std() > 0 and np.corrcoef(values, numbers)[0, 1] ** 2 >= _CLEAR:
                found += 1
                break
    return found, round(min(apart), 4)


def hand_made(offset: float, n_rows: int, seed: int = 0) -> dict[str, Any]:
    """The rule on inputs where one event happens, and where both do: then z is the sum of both codes."""
    generator = torch.Generator().manual_seed(seed_of("exclusive rule", seed))
    z, first, number = sample(n_rows, offset, generator)
    guessed, decoded = decode(z[:, 0], offset)
    right = guessed == first
    both = torch.randn(n_rows, 2, generator=generator, dtype=torch.float64)
    together = encode(torch.tensor(True), both[:, 0], offset) + encode(torch.tensor(False), both[:, 1], offset)
    guessed, value = decode(together, offset)
    of_first = torch.where(guessed, value, -offset)  # a feature that is not there has the strength 0
    of_second = torch.where(guessed, -offset, value)
    close = (torch.stack([of_first, of_second], 1) - both).abs().amax(1) < 0.1
    return {
        "n_rows": n_rows,
        "offset": offset,
        "wrong": int((~right).sum()),
        "theory": float(stats.norm.sf(offset)),
        "greatest_error": float((decoded - number)[right].abs().max()),
        "both_recovered": int(close.sum()),
        "histogram": np.histogram(z[:, 0].numpy(), bins=np.linspace(-offset - 5, offset + 5, 81))[0].tolist(),
    }


def methods(offset: float, d_saes: tuple[int, ...], n_seeds: int, n_steps: int, batch_size: int) -> dict[str, Any]:
    """method → finds(), (found, told apart) of each seed."""
    return {
        **_without_training(offset, n_seeds),
        **{
            f"{name}, {d_sae} latents": _trained(name, d_sae, offset, n_seeds, n_steps, batch_size)
            for name in FAMILIES
            for d_sae in d_saes
        },
    }


def _source(offset: float, rows: Callable[[int], np.ndarray]) -> Source:
    """z has mean 0, and variance 1 + N²."""
    known = moments(np.zeros(1), 1 + offset**2)
    return Source.at("exclusive", known, rows, rows, _no_model, precision="float32")


def _no_model() -> Any:
    raise ValueError("no language model made these rows")


def _without_training(offset: float, n_seeds: int) -> dict[str, list[tuple[int, float]]]:
    """Bases of a single axis, whose codes are signed; and its two ends as latents apart, ReLU(±R z)."""
    found: dict[str, list[tuple[int, float]]] = {
        name: [] for name in ("rotation", "pca", "ica", "rotation, its two ends apart")
    }
    for seed in range(n_seeds):
        generator = torch.Generator().manual_seed(seed_of("exclusive", seed))
        z, first, number = sample(N_ROWS, offset, generator)
        one, start = torch.ones(1, 1, dtype=torch.float64), random_rotation(1, seed)
        _, R, _ = solve(Dense(z[..., None]), SolverConfig(objective="l4", side="out"), one, start)
        code = z @ R.T
        found["rotation"].append(finds(code, first, number))
        found["rotation, its two ends apart"].append(finds(torch.cat([code, -code], 1).relu(), first, number))
        source = _source(offset, lambda n, z=z: z[:n].float().numpy())
        for name in ("pca", "ica"):
            method = METHODS[name]
            if method.fit:
                dictionary = method.fit(method.config(), source, {})
                found[name].append(finds(dictionary.encode(z.float()), first, number))
    return found


def _trained(
    name: str, d_sae: int, offset: float, n_seeds: int, n_steps: int, batch_size: int
) -> list[tuple[int, float]]:
    generator = torch.Generator().manual_seed(seed_of("exclusive batches", name, d_sae))

    def draw(step: int) -> Tensor:
        z, _, _ = sample(n_seeds * batch_size, offset, generator)
        return z.float().view(n_seeds, batch_size, 1)

    sources = [_source(offset, lambda n: np.empty((0, 1), np.float32))] * n_seeds
    trained = train(name, {"d_sae": d_sae, **FAMILIES[name]}, sources, draw, n_steps)
    z, first, number = sample(N_ROWS, offset, generator)
    with torch.no_grad():
        return [finds(dictionary.encode(z.float()), first, number) for dictionary in trained]
