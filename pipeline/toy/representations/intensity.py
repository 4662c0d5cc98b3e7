"""The strength of one quality in k dimensions: as a length, as binary units, as a direction for each range of it.

    length   one direction, scaled (the source's figure 5)
    binary   k units that are on or off (figure 6a)
    ranges   k directions of which one is on, each for a range of the strength (figure 6b: kind-of-red, really-red)

Strengths are uniform in [0, 1]; errors are mean squared errors of the best read-out, as shares of the variance 1/12.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.toy.networks import Networks, minimise
from stores.manifest import seed_of

CODES = ("length", "binary", "ranges")
WIDTH = 768  # of GPT-2 small's residual stream, the source's example


def lost(code: str, k: int) -> float:
    """Share of the variance that the best code of its kind loses in k ≥ 1 dimensions, without noise.

    Binary units have 2^k states, ranges k; n states that cut [0, 1] evenly leave (1/12) / n².
    """
    n_states = {"binary": 2**k, "ranges": k}.get(code)
    return 0.0 if n_states is None else n_states**-2.0


def dimensions(code: str, error: float) -> int:
    """The least k for which the root of the mean squared error is at most `error`, a part of the whole range of strength."""
    k = 1
    while lost(code, k) / 12 > error**2:
        k += 1
    return k


def lost_in_noise(code: str, noise: float, n: int = 1001) -> float:
    """The same in one dimension whose values lie in [0, 1], with Gaussian noise added: read by the posterior mean.

    code: length, or binary (on from ½). noise: its standard deviation, > 0. Numerical integration: errors below 1e-3.
    """
    x = (np.arange(n) + 0.5) / n
    sent = x if code == "length" else (x >= 0.5).astype(float)
    a = np.linspace(-5 * noise, 1 + 5 * noise, 4 * n)
    weight = np.exp(-((a[:, None] - sent) ** 2) / (2 * noise**2))
    total = weight.sum(1)
    explained = (total * ((weight @ x) / np.maximum(total, 1e-300) - 0.5) ** 2).sum() / total.sum()
    return float(1 - 12 * explained)


def trained(code: str, k: int, n_steps: int, n_seeds: int) -> list[float]:
    """An encoder 1 → 32 → k with the code's values in its middle and a linear read-out: share of the variance lost, of each.

    Steps (binary: the sign; ranges: which is the largest) pass gradients as if they were a sigmoid and a softmax.
    """
    generator = torch.Generator().manual_seed(seed_of("intensity", code, k))
    encoder, decoder = Networks.drawn(n_seeds, (1, 32, k), generator), Networks.drawn(n_seeds, (k, 1), generator)

    def out(x: Tensor) -> Tensor:
        return decoder(_coded(code, encoder(2 * x - 1)))

    def losses(_: int) -> Tensor:
        x = torch.rand(n_seeds, 64, 1, generator=generator)
        return 12 * (out(x) - x).square().mean((1, 2))

    minimise([*encoder.parameters(), *decoder.parameters()], losses, n_steps, 1e-2)
    x = ((torch.arange(1000) + 0.5) / 1000)[:, None]
    with torch.no_grad():
        return (12 * (out(x) - x).square().mean((1, 2))).tolist()


def _coded(code: str, h: Tensor) -> Tensor:
    if code == "length":
        return h
    if code == "binary":
        soft = torch.sigmoid(h)
        return soft + ((h > 0).float() - soft).detach()
    soft = h.softmax(-1)
    hard = torch.nn.functional.one_hot(h.argmax(-1), h.shape[-1]).float()
    return soft + (hard - soft).detach()


def intensity(k: tuple[int, ...], n_steps: int, n_seeds: int) -> dict[str, Any]:
    noises = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    one_code = {"length": (1,), "binary": k, "ranges": k}
    return {
        "k": list(range(1, 11)),
        "closed": {code: [lost(code, n) for n in range(1, 11)] for code in CODES},
        "trained": {
            code: {str(n): trained(code, n, n_steps, n_seeds) for n in sizes} for code, sizes in one_code.items()
        },
        "dimensions": {code: {str(e): dimensions(code, e) for e in (0.1, 0.03, 0.01, 0.003)} for code in CODES},
        "width": WIDTH,
        "noise": list(noises),
        "in_noise": {code: [lost_in_noise(code, s) for s in noises] for code in ("length", "binary")},
    }
