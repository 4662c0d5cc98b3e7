"""By how much trained dictionaries are better than their controls, and than the best basis that is not sparse.

scores.json has the margins of what is scored of dictionaries as wholes; here the same is done for what is counted of features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from pipeline.estimates import Estimate, exact, unpaired
from pipeline.estimates import mean as mean_of
from pipeline.plus_minus import mean_and_spread
from pipeline.score.spread import member_values

CONTROL, BASIS = "best control", "best basis that is not sparse"
SHUFFLED = "shuffled codes"
# What is counted of single features, by its key in a row of the index (see overview.py); key_shuffled is what the dictionary's
# shuffled codes give. With their digits.
COUNTED = {
    "labels_found": ("labels with one feature of F1 ≥ .9", 1),
    "label_f1": ("F1 of a label's best feature, mean over labels", 3),
    "rules_found": ("features with a rule of F1 ≥ .7", 1),
}
_WHOLE = COUNTED.keys() - {"label_f1"}  # numbers of labels or features
_SCORED = {"fvu": ("FVU", 4), "ce_score_zero": ("CE score", 4)}
MEASURES = {**_SCORED, **COUNTED}

Row = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """A group of seeds in one measure. exact: nothing in it is drawn."""

    name: str
    values: Sequence[float]
    exact: bool = False

    def text(self, digits: int) -> str:
        return mean_and_spread(self.values, digits)


@dataclass(frozen=True)
class Margin:
    """Of a group of trained, sparse dictionaries. by: how much better it is, with its 95% interval."""

    site: str
    measure: str
    against: str
    own: Side
    other: Side
    by: Estimate

    @property
    def one_seed(self) -> bool:
        return not math.isfinite(self.by.low)

    @property
    def nothing(self) -> bool:
        """Not above the spread, or, where none is known, not above zero."""
        return (self.by.value if self.one_seed else self.by.low) <= 0

    def row(self) -> Row:
        """As the index shows it. mark: ~ where it is nothing, ? where the spread is not known."""
        title, digits = MEASURES[self.measure]
        return {
            "site": self.site,
            "name": self.own.name,
            "n": len(self.own.values),
            "against": self.against,
            "measure": title,
            "own": self.own.text(digits),
            "other": self.other.name,
            "theirs": self.other.text(digits),
            "by": f"{round(self.by.value, digits) + 0.0:+.{digits}f}",
            "interval": None if self.one_seed else [round(end, digits) for end in (self.by.low, self.by.high)],
            "mark": "~" if self.nothing else "?" if self.one_seed else "",
        }


def margins(rows: Sequence[Row], scores: Mapping[str, Any]) -> list[Margin]:
    """rows: of the index. scores: scores.json."""
    found: list[Margin] = []
    for site in dict.fromkeys(row["site"] for row in rows):
        here = {row["name"]: row for row in rows if row["site"] == site}
        groups = [g for g in scores.get("groups", []) if g["site"] == site]
        for group in groups:
            if not group["control"] and all(here[name]["sparse"] for name in group["names"]):
                found += _scored(group, groups, scores)
                found += [m for key in COUNTED for m in _counted(key, group, groups, here)]
    return found


def _scored(group: Row, groups: Sequence[Row], scores: Mapping[str, Any]) -> Iterator[Margin]:
    by_name = {g["name"]: g for g in groups}
    for row in scores.get("comparisons", []):
        same = (row["site"], row["a"], row["relation"]) == (group["site"], group["name"], "control")
        if same and row["score"] in _SCORED:
            own, other = (
                Side(g["name"], member_values(scores, g, row["score"]), g["exact"]) for g in (group, by_name[row["b"]])
            )
            yield Margin(group["site"], row["score"], CONTROL, own, other, _estimate(row))


def _estimate(row: Row) -> Estimate:
    """Of a row of comparisons, which has null where nothing is known."""
    low, high = row["low"], row["high"]
    return Estimate(row["difference"], -math.inf if low is None else low, math.inf if high is None else high)


def _counted(key: str, group: Row, groups: Sequence[Row], rows: Mapping[str, Row]) -> Iterator[Margin]:
    own = _side(key, group, rows)
    controls = [_side(key, g, rows) for g in groups if g["name"] in group["controls"]]
    chance = _side(f"{key}_shuffled", group | {"name": SHUFFLED}, rows)
    bases = [_side(key, g, rows) for g in groups if not any(rows[name]["sparse"] for name in g["names"])]
    for against, others in ((CONTROL, [*controls, chance]), (BASIS, bases)):
        others = [side for side in others if side.values]
        if own.values and others:
            best = max(others, key=lambda side: mean(side.values))
            yield Margin(group["site"], key, against, own, best, _difference(own, best, key in _WHOLE))


def _side(key: str, group: Row, rows: Mapping[str, Row]) -> Side:
    """Without values where a member has none."""
    values = [float(value) for name in group["names"] if (value := rows[name].get(key)) is not None]
    return Side(group["name"], values if len(values) == len(group["names"]) else [], group["exact"])


def _difference(a: Side, b: Side, counts: bool) -> Estimate:
    if a.exact and b.exact:
        return exact(a.values[0] - b.values[0])
    if a.exact or b.exact:
        return mean_of([x - y for x in a.values for y in b.values], counts=counts)
    return unpaired(a.values, b.values, counts=counts)
