"""How alike two sets of directions are."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.optimize import linear_sum_assignment
from scipy.special import betainc
from torch import Tensor

from pipeline.score.nearest import Nearest, check_directions, nearest, nearest_both_ways
from stores.manifest import seed_of

MATCHING_LIMIT = 4096  # rows; the Hungarian method is cubic
MCS_BINS = 50
ALIKE = 0.9  # a larger cosine counts as the same feature


def _unit(rows: Float[Tensor, "n d"]) -> Float32[Tensor, "n d"]:
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def mcs(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> Float32[Tensor, " n_a"]:
    """Maximal cosine similarity of each row of a with any row of b.

    signed: codes may be negative, so that a direction and its opposite are one feature: |cosine|.
    """
    return nearest(a, b, 1, signed=signed).cosines[:, 0]


def mmcs(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> float:
    """Mean over the rows of a of their maximal cosine similarity with b: mmcs(a, b) is not mmcs(b, a).

    Source: Sharkey, Braun, Millidge 2022, "Taking features out of superposition with sparse autoencoders".
    """
    return float(mcs(a, b, signed=signed).double().mean())


def matched_cosine(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> float:
    """Mean cosine over the one-to-one matching of rows of a with rows of b that maximises it (Hungarian method)."""
    check_directions(a, b)
    cosine = (_unit(a) @ _unit(b).T).double().cpu().numpy()
    cosine = abs(cosine) if signed else cosine
    return float(cosine[linear_sum_assignment(cosine, maximize=True)].mean())


def random_directions(n: int, d: int, seed: int = 0) -> Float32[Tensor, "{n} {d}"]:
    """Unit rows, uniform over the sphere."""
    generator = torch.Generator().manual_seed(seed_of("directions", seed, n, d))
    return _unit(torch.randn(n, d, generator=generator))


@cache
def random_floor(n: int, d: int, *, signed: bool) -> float:
    """What mmcs(a, b) is for any a when b is n random directions: the mean of the largest of n cosines, by quadrature.

    A coordinate t of a uniform unit vector has P(|t| < s) = I_{s²}(1/2, (d - 1)/2), the regularised incomplete beta function;
    the mean of the largest of n is ∫_0^1 (1 - F^n) dt - ∫_{-1}^0 F^n dt with F the distribution of t, or of |t|.
    """
    if d == 1:
        return 1.0 if signed else 1 - 2.0 ** (1 - n)
    points = 1 << 15
    angle = (np.arange(points) + 0.5) * (np.pi / 2 / points)  # t = sin(angle): smooth at the ends, too
    within = betainc(0.5, (d - 1) / 2, np.sin(angle) ** 2)
    above = 1 - (within if signed else (1 + within) / 2) ** n
    below = 0 if signed else ((1 - within) / 2) ** n
    return float(((above - below) * np.cos(angle)).sum() * (np.pi / 2 / points))


@dataclass(frozen=True)
class Way:
    """How alike a is to b, which is not how alike b is to a.

    mmcs: as mmcs(); above: the share of a's rows whose maximal cosine exceeds ALIKE; random_floor: mmcs with random directions
    in b's place; histogram: counts of the maximal cosines in MCS_BINS equal bins of [0, 1]; matched_cosine: the same both ways,
    None where either has more than MATCHING_LIMIT rows.
    """

    mmcs: float
    above: float
    random_floor: float
    histogram: tuple[int, ...]
    matched_cosine: float | None


def both_ways(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> tuple[Way, Way]:
    """Of a to b and of b to a, from one product."""
    there, back = nearest_both_ways(a, b, signed=signed)
    return ways_of(a, b, there, back, signed=signed)


def ways_of(
    a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], there: Nearest, back: Nearest, *, signed: bool
) -> tuple[Way, Way]:
    """both_ways, where nearest_both_ways was found before: there and back."""
    matched = matched_cosine(a, b, signed=signed) if max(len(a), len(b)) <= MATCHING_LIMIT else None
    ways = ((there.cosines, len(b)), (back.cosines, len(a)))
    first, second = (
        Way(
            float(mcs.double().mean()),
            float((mcs > ALIKE).double().mean()),
            random_floor(n, a.shape[1], signed=signed),
            tuple(torch.histc(mcs, MCS_BINS, 0, 1).long().tolist()),
            matched,
        )
        for mcs, n in ways
    )
    return first, second
