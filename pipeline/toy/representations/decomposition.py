"""Features as directions: read by dot products, and kept in the rows of a weight matrix."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.toy.networks import minimise
from stores.manifest import seed_of


def decompose(x: Tensor, F: Tensor) -> Tensor:
    """Strengths read off by dot products: x (…, d), F (n_features, d) unit rows → (…, n_features).

    Exact when the rows of F are orthogonal; otherwise each reading has the others' interference F Fᵀ - I in it.
    """
    return x @ F.T


def variance_lost(F: Tensor) -> Tensor:
    """Share of the variance of independent strengths, all alike, that the best linear read-out of z F does not get back.

    F (…, n_features, d) → (…,). What is read is a projection of rank r = rank F, of variance r / n_features.
    """
    singular = torch.linalg.svdvals(F)
    rank = (singular > 1e-9 * singular[..., :1]).sum(-1)
    return 1 - rank / F.shape[-2]


def rotations(n: int, d: int, generator: torch.Generator) -> Tensor:
    """(n, d, d) random orthogonal matrices, float64."""
    return torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.double)).Q


def decomposition(d: int, n_samples: int, n_seeds: int) -> dict[str, Any]:
    """Orthogonal features off the neurons' basis, and three features in two dimensions."""
    generator = torch.Generator().manual_seed(seed_of("decomposition"))
    rotation = rotations(1, d, generator)[0]
    angles = torch.arange(3, dtype=torch.double) * (2 * torch.pi / 3)
    triangle = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = {}
    for name, F in (("orthogonal", rotation), ("triangle", triangle)):
        shape = (n_samples, len(F))
        strength = torch.rand(shape, generator=generator, dtype=torch.double)
        for p in (1.0, 0.1):
            z = strength * (torch.rand(shape, generator=generator, dtype=torch.double) < p)
            read = decompose(z @ F, F)
            off = (read - z).abs()
            found[f"{name}, p = {p:g}"] = [float(off.max()), float(off.mean()), float((read.relu() - z).abs().mean())]
    drawn = nn.functional.normalize(torch.randn(n_seeds, 3, 2, generator=generator, dtype=torch.double), dim=-1)
    cosine = (drawn @ drawn.transpose(1, 2)).abs() - torch.eye(3)
    return {
        "errors": found,
        "neuron_cosine": rotation.abs().amax(1).tolist(),  # how far the features are from single neurons
        "triangle": triangle.tolist(),
        "interference": (triangle @ triangle.T).tolist(),
        "drawn_cosine": cosine.amax((1, 2)).tolist(),  # of three random directions: the largest of a pair
        "drawn_lost": variance_lost(drawn).tolist(),
    }


def rows(d: int, n_steps: int, n_seeds: int) -> dict[str, Any]:
    """A linear layer y = W x learns to write the strengths z of orthogonal features, x = z F: are they the rows of W?

    two tasks: y = z, a neuron for each feature; y = Q z, orthogonal directions off the neurons' basis. W at the optimum is F,
    and Q F. W: (n_seeds, d_out, d_in), as in y = W x.
    """
    generator = torch.Generator().manual_seed(seed_of("rows"))
    F, Q = rotations(n_seeds, d, generator).float(), rotations(n_seeds, d, generator).float()
    found: dict[str, Any] = {}
    for name, to in (("a neuron each", torch.eye(d).expand(n_seeds, d, d)), ("directions", Q)):
        W = (torch.randn(n_seeds, d, d, generator=generator) * d**-0.5).requires_grad_()

        def losses(_: int, W: Tensor = W, to: Tensor = to) -> Tensor:
            z = torch.rand(n_seeds, 64, d, generator=generator) * (
                torch.rand(n_seeds, 64, d, generator=generator) < 0.3
            )
            return (z @ F @ W.transpose(1, 2) - z @ to.transpose(1, 2)).square().sum(-1).mean(-1)

        loss = minimise([W], losses, n_steps, 1e-2)
        learned = W.detach()
        row = nn.functional.normalize(learned, dim=-1) @ F.transpose(1, 2)  # (n_seeds, row, feature)
        # Where feature i goes is W f_i: a direction among the outputs, column i of W in the basis of the features.
        written = nn.functional.cosine_similarity(learned @ F.transpose(1, 2), to, dim=1)
        found[name] = {
            "loss": loss.tolist(),
            "row_cosine": row.abs().amax(1).mean(-1).tolist(),  # of a feature with the row nearest to it
            "written_cosine": written.mean(-1).tolist(),
        }
    return found
