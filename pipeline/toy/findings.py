"""What a source says, what a run found, and the verdict. A verdict is computed from the run's numbers, never typed in.

A claim has checks; a check puts an estimate with its 95% interval beside a bound. The check holds when the whole interval
is on the bound's side, fails when none of it is, and is open when the bound lies within.

    all checks hold: confirmed;  all fail: refuted;  some hold: partly;  otherwise: not decided
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

Outcome = Literal["holds", "fails", "open"]
Verdict = Literal["confirmed", "refuted", "partly", "not decided"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "refuted", "partly", "not decided")
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


def mean(values: Sequence[float], of: str = "seeds") -> Estimate:
    """The mean with Student's t interval. Of one value, or of none, nothing can be said: the interval is infinite."""
    x = np.asarray(values, dtype=float)
    of = f"{len(x)} {of}"
    if len(x) == 0 or np.isnan(x).any():
        return Estimate(math.nan, math.nan, math.nan, of)
    if len(x) == 1:
        return Estimate(float(x[0]), -math.inf, math.inf, of)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
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


@dataclass(frozen=True)
class Check:
    """what: the quantity, with its unit, as the subject of a sentence."""

    what: str
    estimate: Estimate
    relation: Literal["≥", "≤"]
    bound: float

    @property
    def outcome(self) -> Outcome:
        e = self.estimate
        if math.isnan(e.value):
            return "open"
        if self.relation == "≥":
            return "holds" if e.low >= self.bound else "fails" if e.high < self.bound else "open"
        return "holds" if e.high <= self.bound else "fails" if e.low > self.bound else "open"

    def __str__(self) -> str:
        bound = f"{100 * self.bound:.3g}%" if self.estimate.percent else shown(self.bound)
        said = {"holds": "seen", "fails": "not seen here", "open": "not decided"}[self.outcome]
        return f"{self.what}: {self.estimate}; {self.relation} {bound}: {said}"


@dataclass(frozen=True)
class Claim:
    """name: of its own within the toy. says: the source's claim, a sentence. reported: the source's figure, if it has one.
    checks: of the numbers of all the toy's parts."""

    name: str
    source: str
    says: str
    checks: Callable[[Mapping[str, Any]], Sequence[Check]]
    reported: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim, and what a run has to say about it."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        outcomes = {check.outcome for check in self.checks}
        if outcomes == {"holds"}:
            return "confirmed"
        if outcomes == {"fails"}:
            return "refuted"
        return "partly" if "holds" in outcomes else "not decided"

    def values(self) -> dict[str, Any]:
        """What findings.json has of it. Bounds of an interval that are infinite, and what was not measured, are null."""
        claim = self.claim
        return {
            "name": claim.name,
            "source": claim.source,
            "says": claim.says,
            "reported": claim.reported,
            "verdict": self.verdict,
            "checks": [
                {
                    "what": c.what,
                    **{key: _finite(getattr(c.estimate, key)) for key in ("value", "low", "high")},
                    "of": c.estimate.of,
                    "relation": c.relation,
                    "bound": c.bound,
                    "outcome": c.outcome,
                    "text": str(c),
                }
                for c in self.checks
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def decide(claims: Sequence[Claim], numbers: Mapping[str, Any]) -> list[Finding]:
    """The findings of a run, in the order of the claims."""
    return [Finding(claim, tuple(claim.checks(numbers))) for claim in claims]
