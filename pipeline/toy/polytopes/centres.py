"""Another way to choose between linear maps: N maps at N centres, of which the nearest centre's is taken.

Source: Black et al. 2022, discussion: "N linear regions centred on N points", for a feedforward network. Two ways to have
the maps: learned, at k-means centres, with as many parameters as a ReLU network; and a trained ReLU network's own affine
maps at N training digits, which says how N has to grow to stand for it.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.toy.polytopes.nets import (
    Factor,
    NetSettings,
    ReluNets,
    accuracies,
    classify,
    images_of,
    trained,
    unseen,
)  # fmt: skip
from stores.manifest import seed_of

N_CLASSES = 10


class CentreSettings(NetSettings):
    """n_centres: of the learned maps. n_own: of a network's own maps. n_compared: nets of each. rates: learning rates, of
    which each kind and size takes the one that reads the training digits best."""

    n_centres: tuple[int, ...] = Field(default=(1, 4, 16, 64), min_length=1)
    n_own: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), min_length=1)
    n_compared: int = Field(default=12, ge=1)
    rates: tuple[Factor, ...] = Field(default=(5e-3, 2e-2, 5e-2), min_length=1)


def width_of(n_parameters: int, d_in: int, n_layers: int = 3) -> int:
    """Of a ReLU network of n_layers equal hidden layers that has at most as many parameters; at least 1."""
    width = 1
    while _size(width + 1, d_in, n_layers) <= n_parameters:
        width += 1
    return width


def _size(width: int, d_in: int, n_layers: int) -> int:
    return (d_in + 1) * width + (n_layers - 1) * (width + 1) * width + (width + 1) * N_CLASSES


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """x (…, batch, d), centres (…, N, d) → (…, batch), the index of the nearest centre."""
    return torch.cdist(x, centres).argmin(-1)


class CentredMaps(nn.Module):
    """n models of N affine maps each. centres (n, N, d_in), fixed; A (n, N, d_out, d_in), c (n, N, d_out).

    begins as N times the same map, which N = 1 is."""

    def __init__(self, centres: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        n, N, d_in = centres.shape
        first = (2 * torch.rand(n, 1, N_CLASSES, d_in, generator=generator) - 1) * d_in**-0.5
        self.A = nn.Parameter(first.expand(n, N, -1, -1).clone())
        self.c = nn.Parameter(torch.zeros(n, N, N_CLASSES))
        self.centres = nn.Buffer(centres)

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, d_in) or (batch, d_in) → (n, batch, d_out)"""
        x = x if x.ndim == 3 else x.expand(len(self.A), *x.shape)
        which = nearest(x, self.centres)
        rows = torch.arange(len(self.A))[:, None]
        return (self.A[rows, which] @ x[..., None])[..., 0] + self.c[rows, which]

    @property
    def n_parameters(self) -> int:
        """Of one of the models; its centres are parameters too."""
        return self.A[0].numel() + self.c[0].numel() + self.centres[0].numel()


def k_means(x: Tensor, n: int, n_models: int) -> Tensor:
    """(n_models, n, d): the centres of k-means from n_models starts."""
    from sklearn.cluster import KMeans

    found = [
        KMeans(n, n_init=cast(Any, 1), random_state=seed).fit(x.numpy()).cluster_centers_ for seed in range(n_models)
    ]
    return torch.from_numpy(np.stack(found)).float()


def learned(settings: CentreSettings) -> list[dict[str, Any]]:
    """Of each N: accuracies on unseen digits of N learned maps and of ReLU networks with at most as many parameters."""
    images, d_in = images_of(settings), images_of(settings).train_x.shape[1]
    n, rows = settings.n_compared, []
    for N in settings.n_centres:
        means = k_means(images.train_x, N, n)
        width = width_of(CentredMaps(means, torch.Generator()).n_parameters, d_in)
        widths = (d_in, width, width, width, N_CLASSES)
        rows.append(
            {
                "n": N,
                "width": width,
                "maps": _best(settings, lambda generator, means=means: CentredMaps(means, generator)),
                "nets": _best(settings, lambda generator, widths=widths: ReluNets.drawn(n, widths, generator)),
            }
        )
    return rows


def _best(settings: CentreSettings, draw: Callable[[torch.Generator], Any]) -> dict[str, Any]:
    """Models of one draw, trained at each rate; of those whose mean accuracy on the training digits is the best, the
    accuracies on unseen ones."""
    images, found = images_of(settings), []
    for rate in settings.rates:
        models = draw(torch.Generator().manual_seed(seed_of("centres")))
        classify(models, images, settings.train_steps, settings.batch_size, rate)
        fitted = float(np.mean(accuracies(models, images.train_x, images.train_y)))
        row = {"rate": rate, "n_parameters": models.n_parameters, "accuracy": accuracies(models, *unseen(settings))}
        found.append((fitted, row))
    return max(found, key=lambda one: one[0])[1]


@torch.no_grad()
def own_maps(settings: CentreSettings) -> dict[str, Any]:
    """A trained network's own affine maps at N training digits, drawn for each net; the nearest one's is taken.

    Of each N: agrees (n_compared): share of the unseen digits with the network's answer; accuracy (n_compared).
    """
    nets = trained(settings.model_copy(update={"n_nets": settings.n_compared}))
    x, y = unseen(settings)
    train = images_of(settings).train_x
    generator = torch.Generator().manual_seed(seed_of("own maps"))
    order = torch.stack([torch.randperm(len(train), generator=generator) for _ in range(settings.n_compared)])
    answers, rows = nets(x).argmax(2), []
    for N in settings.n_own:
        centres = train[order[:, :N]]
        A, c = nets.affine(nets.code(centres))
        which = nearest(x.expand(len(order), *x.shape), centres)
        own = torch.arange(len(order))[:, None]
        given = torch.einsum("nboi,bi->nbo", A[own, which], x) + c[own, which]
        rows.append(
            {
                "n": centres.shape[1],
                "n_parameters": centres.shape[1] * (A[0, 0].numel() + c[0, 0].numel() + x.shape[1]),
                "agrees": (given.argmax(2) == answers).double().mean(1).tolist(),
                "accuracy": (given.argmax(2) == y).double().mean(1).tolist(),
            }
        )
    return {"n_parameters": nets.n_parameters, "accuracy": accuracies(nets, x, y), "rows": rows}


def centres(settings: CentreSettings) -> dict[str, Any]:
    return {"learned": learned(settings), "own": own_maps(settings)}
