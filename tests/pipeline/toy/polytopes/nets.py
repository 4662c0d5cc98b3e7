"""Networks of random weights that the tests of the polytopes share."""

from itertools import pairwise

import torch

from pipeline.toy.polytopes.nets import ReluNets


def random_nets(widths: tuple[int, ...], n: int = 2, bias: bool = True, kind: type[ReluNets] = ReluNets) -> ReluNets:
    """n networks, float64, pre-activations of order 1."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(n, a, b, generator=generator, dtype=torch.double) / a**0.5 for a, b in pairwise(widths)]
    biases = [bias * torch.randn(n, 1, b, generator=generator, dtype=torch.double) for b in widths[1:]]
    return kind(weights, biases).requires_grad_(False)


def inputs(n: int, d: int, seed: int = 1) -> torch.Tensor:
    """(n, d), float64"""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
