"""How large a difference between dictionaries has to be to count.

Dictionaries that differ in the seed alone are one group. A score of a group is the mean over its seeds, with the standard
deviation and Student's t interval. Two groups are apart in a score where Welch's 95% interval of the difference does not
hold 0. Seeds vary where learning begins; rows, their order and the texts are the same for all. The MMCS of seeds is of
pairs: its spread and intervals are the jackknife's, which leaves one seed out at a time.

A method without a seed, such as PCA, is exact: its one value has no spread. Of one seed of any other nothing is known.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.estimates import Estimate, exact, mean, unpaired
from pipeline.score.pairs import FOREIGN
from stores.manifest import digest

Row = Mapping[str, Any]
Settings = Mapping[str, Any]

# Scores in which groups are compared: 1 where more is better, -1 where less is.
BETTER = {"fvu": -1, "ce_score_zero": 1, "kl": -1, "top1": 1, "dead": -1, "mmcs": 1}
COUNTS = {"dead", "ultra_low_density", "dense"}  # of features
LIKE = 0.15  # of log L0: what is compared is about as sparse
_SAME_FOR_ALL = {"d_in", "d_out", "d_sae", "n_rows", "n_predictions", "ce_clean", "ce_zero", "ce_mean"}


@dataclass(frozen=True)
class Group:
    """Dictionaries of one site that differ in the seed alone. settings: all but it. values: of each score, by member."""

    name: str
    row: Row
    settings: Settings
    members: tuple[str, ...]
    exact: bool
    values: Mapping[str, Sequence[float]]

    @cached_property
    def scores(self) -> dict[str, Estimate]:
        return {
            score: exact(own[0]) if self.exact else mean(own, counts=score in COUNTS)
            for score, own in self.values.items()
        }

    @property
    def control(self) -> str | None:
        """What it is a control by, if it is one."""
        if frozen := self.settings.get("frozen"):
            return f"frozen {frozen}"
        return "covariance" if self.row["method"] == "covariance" else None

    def controls(self, groups: Sequence["Group"]) -> list["Group"]:
        """Those of its site that are controls of it: its twins with a side frozen, and of any family's those that have as
        many features and are about as sparse, since a family may be a bad control of itself: ReLU-L1 with random
        directions leaves .92 of the demo's residual stream where TopK leaves .50."""
        if self.control:
            return []
        return [
            g
            for g in groups
            if g.control and (self._twin(g) or (g.row["d_sae"] == self.row["d_sae"] and alike(self, g)))
        ]

    def _twin(self, other: "Group") -> bool:
        """Whether all but what is frozen is equal."""
        own, others = ({**g.settings, "frozen": None} for g in (self, other))
        return self.row["method"] == other.row["method"] and own == others


def alike(a: Group, b: Group) -> bool:
    """Whether they are about as sparse; bases, whose codes have no zeros, are like none."""
    if not (a.row["sparse"] and b.row["sparse"]):
        return False
    return abs(math.log(max(a.scores["l0"].value, 1e-3) / max(b.scores["l0"].value, 1e-3))) <= LIKE


def difference(a: Group, b: Group, score: str) -> Estimate:
    """By how much a is better than b."""
    x, y = ([BETTER[score] * value for value in group.values[score]] for group in (a, b))
    if a.exact and b.exact:
        return exact(x[0] - y[0])
    if a.exact or b.exact:
        return mean([u - v for u in x for v in y], counts=score in COUNTS)
    return unpaired(x, y, counts=score in COUNTS)


def groups_of(rows: Sequence[Row], settings: Sequence[Settings], pairs: Sequence[Row]) -> list[Group]:
    """The groups of dictionaries' rows of the table, in their order. settings: of each. pairs: rows that compare them."""
    together: dict[str, list[int]] = {}
    for i, (row, own) in enumerate(zip(rows, settings, strict=True)):
        kind = {key: value for key, value in own.items() if key != "seed"}
        together.setdefault(digest([row["site"], row["method"], kind]), []).append(i)
    found: list[Group] = []
    names: set[tuple[str, str]] = set()
    for members in together.values():
        first, own = rows[members[0]], settings[members[0]]
        name = first["name"] if len(members) == 1 else _without_seed(first["name"], own.get("seed"))
        name = first["name"] if (first["site"], name) in names else name
        names.add((first["site"], name))
        values = {key: [float(rows[i][key]) for i in members] for key in _scores([rows[i] for i in members])}
        if between := _between([rows[i] for i in members], pairs):
            values["mmcs"] = between
        found.append(
            Group(
                name,
                first,
                {key: value for key, value in own.items() if key != "seed"},
                tuple(rows[i]["name"] for i in members),
                "seed" not in own and FOREIGN not in first["method"],
                values,
            )
        )
    return found


def _without_seed(name: str, seed: int | None) -> str:
    """topk-d768-k32 of topk-d768-k32-s0."""
    return "-".join(part for part in name.split("-") if part != f"s{seed}")


def _scores(rows: Sequence[Row]) -> list[str]:
    """The columns of numbers that may differ and that all of the rows have."""
    return [
        key
        for key in rows[0]
        if key not in _SAME_FOR_ALL
        and all(isinstance(row.get(key), int | float) and not isinstance(row[key], bool) for row in rows)
    ]


def _between(rows: Sequence[Row], pairs: Sequence[Row]) -> list[float]:
    """Of each seed the jackknife's pseudo-value of the mean MMCS over all pairs of n seeds: n times that mean less n - 1 times
    the mean over the pairs without that seed. Their mean is the mean over pairs, and Student's interval of them is the
    jackknife's; means over each seed's own pairs share pairs, so they are no samples. Of two seeds one value, the mean of
    the two ways; [] where a pair is missing. Source: Arvesen 1969, Annals of Mathematical Statistics 40."""
    names = [row["name"] for row in rows]
    mmcs = {(p["a"], p["b"]): p["mmcs"] for p in pairs if p.get("site") == rows[0]["site"] and p["relation"] == "seed"}
    ways = [(a, b) for a in names for b in names if a != b]
    if not ways or not all(way in mmcs for way in ways):
        return []
    n, total = len(names), sum(mmcs[way] for way in ways)
    if n == 2:
        return [total / 2]
    without = [sum(mmcs[way] for way in ways if name not in way) for name in names]
    return [total / (n - 1) - rest / (n - 2) for rest in without]


def member_values(scores: Mapping[str, Any], group: Row, score: str) -> list[float]:
    """Of each member of a group of scores.json, [] where one has none; mmcs as in the groups."""
    rows = [row for row in scores["dictionaries"] if row["site"] == group["site"] and row["name"] in group["names"]]
    if score == "mmcs":
        return _between(rows, scores["pairs"])
    found = [row.get(score) for row in rows]
    return [] if None in found else found


def summary(rows: Sequence[Row], settings: Sequence[Settings], pairs: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """{"groups": [row, …], "comparisons": [row, …]}, which scores.json has beside the dictionaries."""
    found = groups_of(rows, settings, pairs)
    by_site: dict[str, list[Group]] = {}
    for group in found:
        by_site.setdefault(group.row["site"], []).append(group)
    groups = [
        {
            "site": g.row["site"],
            "name": g.name,
            "method": g.row["method"],
            "d_sae": g.row["d_sae"],
            "names": list(g.members),
            "n": len(g.members),
            "exact": g.exact,
            "control": g.control,
            "controls": [c.name for c in g.controls(by_site[g.row["site"]])],
            "scores": {score: _spread(g, score) for score in g.scores},
        }
        for g in found
    ]
    return {"groups": groups, "comparisons": [row for own in by_site.values() for row in _comparisons(own)]}


def _spread(group: Group, score: str) -> dict[str, float | None]:
    values, estimate = group.values[score], group.scores[score]
    n = len(values)
    squares = sum((value - estimate.value) ** 2 for value in values)
    std = 0.0 if group.exact else math.sqrt(squares / (n - 1)) if n > 1 else None
    return {"mean": _number(estimate.value), "std": _number(std), **_interval(estimate)}


def _comparisons(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Of one site. Each group with the best of its controls, and with the next worse one that is about as sparse."""
    for score, sign in BETTER.items():
        ordered = [g for g in groups if score in g.values]
        ordered.sort(key=lambda g: -sign * g.scores[score].value)
        for i, a in enumerate(ordered):
            if best := a.controls(ordered)[:1]:
                yield _compared(a, best[0], score, "control")
            if behind := [g for g in ordered[i + 1 :] if alike(a, g)][:1]:
                yield _compared(a, behind[0], score, "next")


def _compared(a: Group, b: Group, score: str, relation: str) -> dict[str, Any]:
    estimate = difference(a, b, score)
    return {
        "site": a.row["site"],
        "score": score,
        "relation": relation,
        "a": a.name,
        "b": b.name,
        "difference": _number(estimate.value),
        **_interval(estimate),
        "apart": estimate.low > 0 or estimate.high < 0,
    }


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {"low": _number(estimate.low), "high": _number(estimate.high)}


def _number(value: float | None) -> float | None:
    """With six digits after the point, as the table has it; null where nothing is known."""
    return None if value is None or not math.isfinite(value) else round(value, 6) + 0.0
