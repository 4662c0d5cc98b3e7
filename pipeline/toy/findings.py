"""What a source says, what a run found, and the verdict. A verdict is computed from the run's numbers, never typed in.

A claim has checks; a check puts an estimate with its 95% interval beside a bound. The check holds when the whole interval
is on the bound's side, fails when none of it is, and is open when the bound lies within.

    all checks hold: confirmed;  all fail: refuted;  some hold: partly;  otherwise: not decided
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.estimates import Estimate, difference, exact, mean, median, rate, shown

__all__ = [
    "VERDICTS",
    "Check",
    "Claim",
    "Estimate",
    "Finding",
    "decide",
    "difference",
    "exact",
    "mean",
    "median",
    "rate",
    "shown",
]

Outcome = Literal["holds", "fails", "open"]
Verdict = Literal["confirmed", "refuted", "partly", "not decided"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "refuted", "partly", "not decided")


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
