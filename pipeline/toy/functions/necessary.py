"""How many consecutive integers one or two ReLUs can tell even from odd, over all their weights, by linear programs.

Two ReLUs, the second of which reads x and the first, and an output that reads x and both: with ReLU(-u) = ReLU(u) - u and
scales taken into the other weights, every such network is f = g + σ ReLU(u), σ = 1 or -1, where g and u are continuous and
affine on either side of one break t, that of the first ReLU. One ReLU: f = g. The output's threshold of ½ is in g's offset.

Say t is in k … k + 1. Then g has a line for the integers up to k and one for those after it, and these meet somewhere in
k … k + 1: their difference is ≤ 0 at one end and ≥ 0 at the other. So it is for u. Given k, the signs of these differences,
σ, and on which integers u is on, all conditions are linear in the eight numbers of the lines. The search goes through all of
these cases. With one ReLU it is exact. With two it allows g and u to break at two different places in k … k + 1, which only
makes more possible: what it excludes is excluded.
"""

from collections.abc import Iterator
from itertools import groupby, product

import numpy as np
from scipy.optimize import linprog


def _line(x: int, right: bool, which: int) -> np.ndarray:
    """The row whose product with (left line, right line of g, then of u; each slope, offset) is g (0) or u (1) at x."""
    row = np.zeros(8)
    at = 4 * which + 2 * right
    row[at : at + 2] = x, 1
    return row


def _jump(x: int, which: int) -> np.ndarray:
    """The right line less the left one at x."""
    return _line(x, True, which) - _line(x, False, which)


def _possible(n: int, k: int, on: tuple[bool, ...], sign: int, ends: tuple[int, int]) -> bool:
    """Whether some lines give f ≤ -1 at the even integers of 0 … n - 1 and f ≥ 1 at the odd ones, in this case."""
    below = []  # rows and bounds of rows @ lines ≤ bound
    for x, active in enumerate(on):
        g, u = (_line(x, x > k, which) for which in (0, 1))
        below += [((1 - 2 * (x % 2)) * (g + sign * active * u), -1), (-u if active else u, 0)]
    for which, end in enumerate(ends):
        below += [(end * _jump(k, which), 0), (-end * _jump(k + 1, which), 0)]
    rows, bounds = zip(*below, strict=True)
    status = linprog(np.zeros(8), np.array(rows), bounds, bounds=(None, None)).status
    if status not in (0, 2):  # found, infeasible
        raise ArithmeticError(f"a linear program of {n} integers ended with status {status}")
    return status == 0


def _patterns(n: int) -> Iterator[tuple[bool, ...]]:
    """Where an affine function can be positive among n points in a row."""
    yield from {tuple(i < cut for i in range(n)) for cut in range(n + 1)} | {
        tuple(i >= cut for i in range(n)) for cut in range(n + 1)
    }


def can_tell(n: int, n_relus: int) -> bool:
    """Whether one or two ReLUs tell the parity of n consecutive integers; of two, False is certain and True is not.

    Cases in which one affine piece has three integers in a row are left out: its middle value is the mean of the others.
    """
    for k in range(-1, n):
        left, right = k + 1, n - k - 1
        ons = product(_patterns(left), _patterns(right)) if n_relus == 2 else [((False,) * left, (False,) * right)]
        for a, b in ons:
            on = a + b
            pieces = [(x > k, on[x]) for x in range(n)]
            if max(len(list(run)) for _, run in groupby(pieces)) > 2:
                continue
            for sign, *ends in product((1, -1), repeat=3):
                if _possible(n, k, on, sign, (ends[0], ends[1])):
                    return True
    return False


def most_told(n_relus: int) -> int:
    """The most consecutive integers whose parity one ReLU tells; for two, a number that is not exceeded.

    Who tells n + 1 tells n, so the search ends at the first n that is not told.
    """
    n = 2
    while can_tell(n + 1, n_relus):
        n += 1
    return n
