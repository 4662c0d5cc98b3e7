"""Numbers with their spread, as they are printed."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any


def plus_minus(value: float, std: float | None, digits: int = 3) -> str:
    """0.117 ± .002; 0.117 where no spread is known; one digit more of a spread that would be .000."""
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.000
    if std is None:
        return text
    spread = f"{std:.{digits + (0 < std < 0.5 * 10**-digits)}f}"
    return f"{text} ± {spread[1:] if spread.startswith('0.') else spread}"


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """Over seeds, with their standard deviation (n - 1)."""
    return plus_minus(mean(values), stdev(values) if len(values) > 1 else None, digits)


def difference_cells(one: dict[str, Any]) -> list[str]:
    """A, B, by how much A is better, ~ where they are not apart, and the interval. one: of over_seeds, score/comparison.py."""
    sides = [f"{mean_and_spread(values)}, n {len(values)}" for values in (one["a"], one["b"])]
    digits = 3 + (0 < abs(one["difference"]) < 0.001)
    by, low, high = (None if one[k] is None else _signed(one[k], digits) for k in ("difference", "low", "high"))
    return [*sides, f"{'~' * (not one['apart'])}{by}", "one seed" if low is None else f"{low} to {high}"]


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no -0.000
