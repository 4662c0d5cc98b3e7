"""Where a dictionary's directions and its b_dec begin."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.train.rotations.msp import random_rotation
from pipeline.train.source import Activations, Source
from stores.manifest import seed_of

Init = Literal["random", "orthogonal", "data", "pca", "writer", "privileged"]
Centre = Literal["mean", "geometric_median"]

N_ROWS = 16_384  # that covariances and medians are taken of


def drawn(n: int, d: int, seed: int) -> Tensor:
    """(n, d) rows of unit length, uniform over the sphere."""
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def directions(init: Init, noise: float, d_sae: int, source: Source, seed: int) -> Tensor:
    """(d_sae, d_in) rows of unit length, drawn from the seed.

    random: uniform over the sphere. orthogonal: the rows of random rotations, one after another. data: training rows less
    their mean. pca: principal components and their opposites, then draws from a Gaussian with the rows' covariance.
    writer: left singular vectors, and their opposites, of the matrix that writes the hook point. privileged: unit vectors
    and their opposites. These last two are repeated as often as it takes and get Gaussian noise of the length `noise`.
    """
    generator, d_in = torch.Generator().manual_seed(seed), source.reads.d
    if init == "random":
        found = torch.randn(d_sae, d_in, generator=generator)
    elif init == "orthogonal":
        found = torch.cat([random_rotation(d_in, seed_of(seed, i)) for i in range(-(-d_sae // d_in))])[:d_sae].float()
    elif init == "data":
        found = centred(source.reads, d_sae)
        found = found[torch.randperm(len(found), generator=generator)]
        found = found[:d_sae]
    elif init == "pca":
        variance, components = principal(source.reads, N_ROWS)
        more = gaussian(max(0, d_sae - 2 * d_in), variance, components, generator)
        found = torch.cat([_both_ways(components), more])[:d_sae].float()
    else:
        basis = (
            torch.eye(d_in)
            if init == "privileged"
            else torch.linalg.svd(source.weights().writer(source.site.writes[0])).U.T
        )
        both = _both_ways(basis.cpu())
        found = both.repeat(-(-d_sae // len(both)), 1)[:d_sae]
        noised = torch.randn(d_sae, d_in, generator=generator) * (noise / d_in**0.5)
        found = found + noised
    return normalize(found, dim=-1)


def centred(activations: Activations, n: int) -> Tensor:
    """(at most n, d) training rows less their mean, scaled."""
    return torch.from_numpy(activations.rows(n) - activations.mean.astype(np.float32)) * activations.scale


def principal(activations: Activations, n_rows: int) -> tuple[Tensor, Tensor]:
    """(variances (d), components (d, d)) of the first n_rows training rows, scaled: float64, in falling order."""
    rows = centred(activations, n_rows).double()
    variance, components = torch.linalg.eigh(rows.T @ rows / len(rows))
    return variance.flip(0).clamp_min(0), components.T.flip(0)


def gaussian(n: int, variance: Tensor, components: Tensor, generator: torch.Generator) -> Tensor:
    """(n, d) float64 draws from N(0, C), C with these variances along these components (d, d)."""
    drawn = torch.randn(n, len(variance), generator=generator, dtype=torch.float64)
    return drawn @ (variance.sqrt()[:, None] * components)


def _both_ways(basis: Tensor) -> Tensor:
    """(2 n, d): each direction and its opposite, since codes are not negative."""
    return torch.stack([basis, -basis], 1).flatten(0, 1)


def centre(kind: Centre, activations: Activations) -> np.ndarray:
    """(d,) float64: the mean, or the point of least summed distance to the training rows, scaled, by Weiszfeld's steps
    (Weiszfeld 1937)."""
    if kind == "mean":
        return activations.mean
    scale = np.asarray(activations.scale, dtype=np.float64)
    point, rows = activations.mean * scale, activations.rows(N_ROWS).astype(np.float64) * scale
    for _ in range(100):
        weights = 1 / np.maximum(np.linalg.norm(rows - point, axis=1), 1e-12)
        before, point = point, weights @ rows / weights.sum()
        if np.linalg.norm(point - before) < 1e-7 * np.linalg.norm(point):
            break
    return point / scale
