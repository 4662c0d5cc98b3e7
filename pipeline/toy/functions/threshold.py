"""x < 10 as one neuron, σ(M (θ - x)): by hand, and as training makes it sharper and sharper."""

from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit
from torch import Tensor, nn

INTEGERS = range(-20, 40)  # that x < 10 is learned on
RATE = 0.01  # of gradient descent; it is stable below 2 / the largest curvature, .0204 on these integers


def less_than(x: Tensor, bound: float, sharpness: float) -> Tensor:
    """x < bound as one neuron: σ(sharpness (bound - x))."""
    return torch.sigmoid(sharpness * (bound - x))


def gradient(w: float, b: float, x: np.ndarray) -> tuple[float, float]:
    """Of the logistic loss of σ(w x + b) against x < 10, the mean over x."""
    error = expit(w * x + b) - (x < 10)
    return float(error @ x) / len(x), float(error.mean())


def loss(w: float, b: float, x: np.ndarray) -> float:
    """The logistic loss, the mean over x; exact also where it is tiny."""
    sign = np.where(x < 10, 1.0, -1.0)
    return float(np.logaddexp(0, -sign * (w * x + b)).mean())


def least_loss(sharpness: float, n: int) -> float:
    """No neuron of this sharpness has a smaller loss on n integers, wherever its threshold is.

    The integers 9 and 10 alone lose softplus(-M (θ - 9)) + softplus(-M (10 - θ)), at least 2 softplus(-M / 2), for softplus
    is convex.
    """
    return 2 * float(np.logaddexp(0, -sharpness / 2)) / n


def descend(n_steps: int, x: np.ndarray) -> list[list[float]]:
    """Gradient descent from zero weights: rows of step, w, b, about eight for each tenfold of steps."""
    kept = set(
        np.unique(np.geomspace(1, n_steps, 8 * max(1, round(np.log10(n_steps))) + 1).round()).astype(int).tolist()
    )
    w = b = 0.0
    rows = []
    for step in range(1, n_steps + 1):
        dw, db = gradient(w, b, x)
        w, b = w - RATE * dw, b - RATE * db
        if step in kept:
            rows.append([step, w, b])
    return rows


def flow(steps: np.ndarray, x: np.ndarray) -> list[list[float]]:
    """The same with infinitely small steps, d(w, b)/dt = -∇loss at t = RATE · steps: rows of steps, w, b. It goes where no
    number of steps does."""

    def change(log_t: float, weights: np.ndarray) -> list[float]:
        dw, db = gradient(float(weights[0]), float(weights[1]), x)
        return [-np.exp(log_t) * dw, -np.exp(log_t) * db]

    at = np.log(RATE * steps)
    found = solve_ivp(change, (np.log(1e-6), at[-1]), [0.0, 0.0], method="LSODA", t_eval=at, rtol=1e-8, atol=1e-10)
    return [[float(s), float(w), float(b)] for s, w, b in zip(steps, *found.y, strict=True)]


def adam(n_steps: int, x: np.ndarray) -> list[list[float]]:
    """Adam at a rate of 0.1 instead: rows of step, w, b."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy((x < 10).astype(float))
    w, b = (torch.zeros(1, dtype=torch.double, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([w, b], lr=0.1)
    kept = set(np.unique(np.geomspace(1, n_steps, 33).round()).astype(int).tolist())
    rows = []
    for step in range(1, n_steps + 1):
        error = nn.functional.binary_cross_entropy_with_logits(w * inputs + b, labels)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        if step in kept:
            rows.append([step, w.item(), b.item()])
    return rows


def measure(n_steps: int, adam_steps: int) -> dict[str, Any]:
    """Rows of training: step, M = |w|, threshold θ = -b/w, loss, least loss of this M."""
    x = np.arange(INTEGERS.start, INTEGERS.stop, dtype=float)
    far = np.geomspace(1e2, 1e14, 49)
    trained = {
        "gradient descent": descend(n_steps, x),
        "gradient flow": flow(far, x),
        "Adam": adam(adam_steps, x),
    }
    zero_to_39 = np.arange(0.0, 40)
    uncentred = descend(n_steps, zero_to_39)[-1]
    integers = torch.from_numpy(x)
    labels = (integers < 10).double()
    wired = [
        [m, *(float((less_than(integers, at, m) - labels).abs().max()) for at in (10.0, 9.5))] for m in (1, 10, 100)
    ]
    return {
        "trained": {
            name: [[step, abs(w), -b / w, loss(w, b, x), least_loss(abs(w), len(x))] for step, w, b in rows]
            for name, rows in trained.items()
        },
        "on_0_to_39": [uncentred[0], abs(uncentred[1]), -uncentred[2] / uncentred[1]],
        "at_9.5": {str(m): float(less_than(torch.tensor(9.5, dtype=torch.double), 10, m)) for m in (1, 100)},
        "wired": wired,
    }
