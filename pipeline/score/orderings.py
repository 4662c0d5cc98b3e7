"""Orderings of families that papers report at equal L0, and what the numbers of a run say of each.

The papers' models, sizes and lengths of training are others. An ordering that does not hold here is not refuted there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from pipeline.estimates import unpaired
from pipeline.plus_minus import mean_and_spread
from pipeline.score.spread import member_values

EQUAL = 0.05  # of log L0
HOLDS, FAILS, WITHIN = "holds", "does not hold", "within the spread"
NO_SPREAD = ", no spread known"  # that a verdict ends with where a side is one seed, or one pair of them
_NAMES = {"fvu": "FVU", "mmcs": "MMCS of seeds"}

Scores = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Ordering:
    """Of two methods the one that has less of a score at equal L0. source: who reports it."""

    less: str
    more: str
    score: str
    source: str

    def __str__(self) -> str:
        return f"{self.less} below {self.more} in {_NAMES[self.score]}"


ORDERINGS = (
    Ordering("topk", "relu_l1", "fvu", "Gao et al. 2024, arXiv:2406.04093"),
    Ordering("gated", "relu_l1", "fvu", "Rajamanoharan et al. 2024, arXiv:2404.16014"),
    Ordering("jumprelu", "gated", "fvu", "Rajamanoharan et al. 2024, arXiv:2407.14435"),
    Ordering("jumprelu", "topk", "fvu", "Rajamanoharan et al. 2024, arXiv:2407.14435"),
    Ordering("p_anneal", "relu_l1", "fvu", "Karvonen et al. 2024, arXiv:2408.00113"),
    Ordering("batch_topk", "topk", "fvu", "Bussmann et al. 2024, arXiv:2412.06410"),
    Ordering("batch_topk", "matryoshka", "fvu", "Bussmann et al. 2025, arXiv:2503.17547"),
    Ordering("matching_pursuit", "topk", "fvu", "Costa et al. 2025, arXiv:2506.03093"),
    Ordering("abs_topk", "topk", "fvu", "Zhu et al. 2025, arXiv:2510.00404"),
    # the paper counts features that a one-to-one matching pairs, here it is the mean of largest cosines
    Ordering("topk", "relu_l1", "mmcs", "Paulo and Belrose 2025, arXiv:2501.16615"),
)


def published_orderings(scores: Scores, orderings: Sequence[Ordering] = ORDERINGS) -> list[Row]:
    """A row for each pair of groups of seeds that an ordering speaks of: of one site, as many features, L0 within 5%, neither
    a control. scores: scores.json."""
    return [row for ordering in orderings for row in _of(ordering, scores)]


def _of(ordering: Ordering, scores: Scores) -> Iterator[Row]:
    groups = [g for g in scores.get("groups", []) if not g["control"]]
    pairs = [(a, b) for a in groups for b in groups if (a["method"], b["method"]) == (ordering.less, ordering.more)]
    for a, b in pairs:
        l0 = [mean(member_values(scores, g, "l0") or [0.0]) for g in (a, b)]
        values = [member_values(scores, g, ordering.score) for g in (a, b)]
        if (a["site"], a["d_sae"]) == (b["site"], b["d_sae"]) and _equal(*l0) and all(values):
            yield {
                "ordering": str(ordering),
                "source": ordering.source,
                "site": a["site"],
                "d_sae": a["d_sae"],
                "l0": round(mean(l0), 1),
                "less": a["name"],
                "more": b["name"],
                "values": [mean_and_spread(v) for v in values],
                "verdict": verdict(*values),
            }


def _equal(a: float, b: float) -> bool:
    return min(a, b) > 0 and abs(math.log(a / b)) <= EQUAL


def verdict(less: Sequence[float], more: Sequence[float]) -> str:
    """Whether the first are less than the second: what Welch's 95% interval of the difference says; of one seed alone the
    sign."""
    found = unpaired(more, less)
    if min(len(less), len(more)) == 1:
        return (HOLDS if found.value > 0 else FAILS) + NO_SPREAD
    return HOLDS if found.low > 0 else FAILS if found.high < 0 else WITHIN
