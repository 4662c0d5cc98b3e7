"""What a run can say of a quantity: its value and the interval that it lies in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval; low = high = value where nothing was drawn. of: how many of what, "200 seeds"."""

    value: float
    low: float
    high: float
    of: str = ""
    percent: bool = False

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"not measured{f' ({self.of})' if self.of else ''}"
        interval = "" if self.low == self.high else f"{self._shown(self.low)} to {self._shown(self.high)}"
        notes = ", ".join(part for part in (interval, self.of) if part)
        return f"{self._shown(self.value)}{f' ({notes})' if notes else ''}"

    def _shown(self, value: float) -> str:
        return f"{100 * value:.3g}%" if self.percent else shown(value)


def shown(value: float) -> str:
    """Three digits, without an exponent where it can be read without one."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def exact(value: float, of: str = "") -> Estimate:
    """A number in which nothing is random: a closed form, a count of all cases, a largest error."""
    return Estimate(float(value), float(value), float(value), of)


def rate(k: int, n: int, of: str = "seeds") -> Estimate:
    """k of n, with Wilson's score interval (Wilson 1927). Raises ValueError: k is not in 0 … n."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, f"0 {of}", True)
    if not 0 <= k <= n:
        raise ValueError(f"k = {k} is not in 0 … n = {n}")
    p, z2 = k / n, float(stats.norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    middle, half = p + z2 / 2 / n, math.sqrt(z2 * (p * (1 - p) / n + z2 / 4 / n**2))
    # at k = 0 and k = n one end is 0 or 1 but for rounding
    low, high = max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))
    return Estimate(p, 0.0 if k == 0 else low, 1.0 if k == n else high, f"{n} {of}", True)


def mean(values: Sequence[float], of: str = "seeds", counts: bool = False) -> Estimate:
    """The mean with Student's t interval. Of one value, or of none, nothing can be said: the interval is infinite. counts: see
    _variance."""
    x = np.asarray(values, dtype=float)
    of = f"{len(x)} {of}"
    if len(x) == 0 or np.isnan(x).any():
        return Estimate(math.nan, math.nan, math.nan, of)
    if len(x) == 1:
        return Estimate(float(x[0]), -math.inf, math.inf, of)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * (_variance(x, counts) / len(x)) ** 0.5)
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, of)


def median(values: Sequence[float], of: str = "seeds") -> Estimate:
    """The median with its distribution-free interval: the order statistics that a binomial count puts around it."""
    x = np.sort(np.asarray(values, dtype=float))
    n, of = len(x), f"{len(x)} {of}"
    if n == 0 or np.isnan(x).any():
        return Estimate(math.nan, math.nan, math.nan, of)
    below = int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    if below == 0:  # too few to bound it
        return Estimate(float(np.median(x)), -math.inf, math.inf, of)
    return Estimate(float(np.median(x)), float(x[below - 1]), float(x[n - below]), of)


def difference(a: Sequence[float], b: Sequence[float], of: str = "seeds") -> Estimate:
    """mean(a - b), pair by pair: of the same seeds."""
    return mean([x - y for x, y in zip(a, b, strict=True)], of)


def unpaired(
    a: Sequence[float], b: Sequence[float], of: str = "seeds", n_intervals: int = 1, counts: bool = False
) -> Estimate:
    """mean(a) - mean(b) of independent samples, with Welch's interval (Welch 1947); infinite where one of them is a single
    value. n_intervals: of a family which all hold at once with 95% (Bonferroni). counts: see _variance."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    value = float(x.mean() - y.mean())
    if min(len(x), len(y)) == 1:
        return Estimate(value, -math.inf, math.inf, of)
    u, v = _variance(x, counts) / len(x), _variance(y, counts) / len(y)
    if u + v == 0:
        return Estimate(value, value, value, of)
    df = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / n_intervals / 2, df) * (u + v) ** 0.5)
    return Estimate(value, value - half, value + half, of)


def _variance(x: np.ndarray, counts: bool) -> float:
    """Of a sample. Of counts at least 1/12, the variance that rounding to whole numbers adds (Sheppard 1898): that two or
    three are equal does not show that the next one would be."""
    return max(float(x.var(ddof=1)), 1 / 12 if counts else 0.0)
