"""Reading a quality off activations: by one unit, by a linear probe, by the nearest example."""

import numpy as np
import torch
from torch import Tensor

from pipeline.toy.auroc import aurocs


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Probability that a positive is above a negative, ties counted half; ½ by chance. (n, …), (m, …) → (…)."""
    x = torch.cat([positive, negative])
    is_positive = np.arange(len(x)) < len(positive)
    found = aurocs(x.reshape(len(x), -1).numpy(), is_positive[:, None])[0]
    return torch.from_numpy(found).reshape(positive.shape[1:])


def aucs(activations: Tensor, labels: Tensor) -> Tensor:
    """The same for many: activations (n_seeds, n, d), labels (n_seeds, n) bool → (n_seeds, d)."""
    return torch.stack([auc(h[y], h[~y]) for h, y in zip(activations, labels, strict=True)])


class Probe:
    """A linear probe for each seed: ridge regression on ±1, with a bias. score: below 0 is no, above is yes."""

    def __init__(self, activations: Tensor, labels: Tensor, ridge: float = 1e-3) -> None:
        """activations (n_seeds, n, d), labels (n_seeds, n) bool. ridge: a part of the mean variance of a unit."""
        x, y = activations.double(), 2 * labels.double() - 1
        self.mean, self.offset = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        x, y = x - self.mean, y - self.offset
        gram = x.transpose(1, 2) @ x
        size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        gram = gram + ridge * size[:, None, None] * torch.eye(x.shape[-1], dtype=torch.double)
        self.w = torch.linalg.solve(gram, x.transpose(1, 2) @ y[..., None])

    def score(self, activations: Tensor) -> Tensor:
        """(n_seeds, n)"""
        return ((activations.double() - self.mean) @ self.w)[..., 0] + self.offset

    def accuracy(self, activations: Tensor, labels: Tensor) -> Tensor:
        """(n_seeds,)"""
        return ((self.score(activations) > 0) == labels).double().mean(1)


def looked_up(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """A look-up table: the label of the nearest known example.

    known (n_seeds, n, d), labels (n_seeds, n), asked (n_seeds, m, d) → (n_seeds, m).
    """
    return labels.gather(1, torch.cdist(asked, known).argmin(-1))


def held_out_r2(x: Tensor, y: Tensor, ridge: float = 1e-6) -> Tensor:
    """R² of y as a linear function of x, each example predicted from all others: x (n_seeds, n, d), y (n,) → (n_seeds,).

    Leave-one-out in closed form: the residual over 1 - leverage. ridge: a part of the mean variance of a unit.
    """
    x, y = x.double(), y.double() - y.double().mean()
    x = x - x.mean(1, keepdim=True)
    gram = x.transpose(1, 2) @ x
    size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    gram = gram + ridge * size[:, None, None] * torch.eye(x.shape[-1], dtype=torch.double)
    hat = x @ torch.linalg.solve(gram, x.transpose(1, 2))
    residual = y - hat @ y
    leverage = hat.diagonal(dim1=1, dim2=2) + 1 / x.shape[1]
    return 1 - (residual / (1 - leverage).clamp_min(1e-9)).square().sum(1) / y.square().sum()
