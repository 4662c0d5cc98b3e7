"""How alike two sets of directions are."""

import torch
from jaxtyping import Float, Float32
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stores.manifest import seed_of

_BLOCK = 4096


def _unit(rows: Float[Tensor, "n d"]) -> Float32[Tensor, "n d"]:
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def _check(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"]) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"directions are {tuple(a.shape)} and {tuple(b.shape)}, expected (n_a, d) and (n_b, d)")
    if not len(a) or not len(b):
        raise ValueError(f"{len(a)} and {len(b)} directions, expected at least one of each")


def mcs(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> Float32[Tensor, " n_a"]:
    """Maximal cosine similarity of each row of a with any row of b.

    signed: codes may be negative, so that a direction and its opposite are one feature: |cosine|.
    """
    _check(a, b)
    b_unit = _unit(b)
    best = []
    for block in _unit(a).split(_BLOCK):
        cosine = block @ b_unit.T
        best.append((cosine.abs() if signed else cosine).amax(1))
    return torch.cat(best).clamp(-1, 1)


def mmcs(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> float:
    """Mean over the rows of a of their maximal cosine similarity with b: mmcs(a, b) is not mmcs(b, a).

    Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders".
    """
    return float(mcs(a, b, signed=signed).double().mean())


def matched_cosine(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> float:
    """Mean cosine over the one-to-one matching of rows of a with rows of b that maximises it (Hungarian method)."""
    _check(a, b)
    cosine = (_unit(a) @ _unit(b).T).double().numpy()
    cosine = abs(cosine) if signed else cosine
    return float(cosine[linear_sum_assignment(cosine, maximize=True)].mean())


def random_directions(n: int, d: int, seed: int = 0) -> Float32[Tensor, "{n} {d}"]:
    """Unit rows, uniform over the sphere."""
    generator = torch.Generator().manual_seed(seed_of("directions", seed, n, d))
    return _unit(torch.randn(n, d, generator=generator))
