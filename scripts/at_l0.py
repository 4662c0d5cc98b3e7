"""The coefficient of a sparsity penalty at which a dictionary has a given L0, and measures at equal L0."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

R = TypeVar("R")
_FURTHEST = 6.0  # the largest factor between one try and the next while the target lies on one side of all tries


def at_l0(
    run: Callable[[float], R],
    l0_of: Callable[[R], float],
    target: float,
    start: float,
    tolerance: float = 0.03,
    most: int = 7,
) -> tuple[float, list[tuple[float, R]]]:
    """The coefficient of the run that is nearest to the target, and all runs in the order of their coefficients.

    run(coefficient) trains once; L0 falls with the coefficient. Tries stop within `tolerance` of the target, or after
    `most`. Between a try above and one below, the next is where a line through their logarithms meets the target, or a
    tenth of the interval inside of it.
    """
    tries: dict[float, tuple[float, R]] = {}
    coefficient = start
    while len(tries) < most:
        result = run(coefficient)
        tries[coefficient] = (max(l0_of(result), 1e-3), result)
        if abs(math.log(tries[coefficient][0] / target)) <= tolerance:
            break
        denser = max((c for c, (l0, _) in tries.items() if l0 > target), default=None)
        sparser = min((c for c, (l0, _) in tries.items() if l0 <= target), default=None)
        if denser is None or sparser is None:
            factor = tries[coefficient][0] / target
            coefficient *= min(max(factor, 1 / _FURTHEST), _FURTHEST)
            continue
        above, below = (math.log(tries[c][0] / target) for c in (denser, sparser))
        part = min(max(above / max(above - below, 1e-9), 0.1), 0.9)
        coefficient = denser * (sparser / denser) ** part
    best = min(tries, key=lambda c: abs(math.log(tries[c][0] / target)))
    return best, [(c, tries[c][1]) for c in sorted(tries)]


def interpolated(points: Sequence[tuple[float, float]], l0: float, tolerance: float = 0.03) -> float:
    """The measure at an L0, of points (L0, measure): along a line in log L0 between the nearest on both sides. Where all
    lie on one side: that of the nearest, if it is within the tolerance, or not a number."""
    known = sorted((math.log(a), b) for a, b in points if a > 0)
    x = math.log(l0)
    for (x0, y0), (x1, y1) in itertools.pairwise(known):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-12)
    nearest = min(known, key=lambda p: abs(p[0] - x), default=(math.inf, math.nan))
    return nearest[1] if abs(nearest[0] - x) <= tolerance else math.nan
