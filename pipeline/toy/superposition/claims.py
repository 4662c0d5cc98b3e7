"""What Elhage et al. 2022, "Toy Models of Superposition", say, and what decides on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Claim, difference, exact, mean, rate

SOURCE = "Elhage et al. 2022"


def _dense(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["importance"]
    kept = found["represented"][int(np.argmax(found["p"]))]
    return [
        Check("features kept in 5 dimensions at the largest p", exact(kept, "best seed"), "≤", 5),
        Check("the same", exact(kept, "best seed"), "≥", 5),
    ]


def _sparse(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["importance"]
    order = np.argsort(found["p"])[::-1]
    kept = np.array([low for low, _ in found["close"]])[order]
    most = np.array([high for _, high in found["close"]])[order]
    steps = f"least among seeds within 5% of the best loss, at p = {min(found['p']):g}"
    return [
        Check("features kept in 5 dimensions where they are rarest", exact(kept[-1], steps), "≥", 6),
        Check("smallest gain from one p to the next rarer one", exact(min(most[1:] - kept[:-1])), "≥", 0),
    ]


def _shared(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["shared"]
    return [
        Check(
            f"share of an instance's features with D within {found['within']:g} of {D:g} at p = {p:g}",
            mean(near, "instances"), "≥", 0.5,
        )
        for p, D, near in zip(found["p"], found["D"], found["near"], strict=True)
    ]  # fmt: skip


def _pentagon(numbers: Mapping[str, Any]) -> Sequence[Check]:
    D = numbers["pentagon"]["D"]
    good = sum(all(abs(d - 0.4) < 0.01 for d in run) for run in D)
    return [Check("runs that end with every D within .01 of 2/5", rate(good, len(D)), "≥", 0.9)]


def _jumps(numbers: Mapping[str, Any]) -> Sequence[Check]:
    jumps = numbers["pentagon"]["largest_jump"]
    # 200 states are kept; an even change over the rest of training moves a D by .003 from one to the next
    large = sum(jump >= 0.1 for jump in jumps)
    what = "runs in which a D changes by .1 or more between two of 200 states, after the first tenth of training"
    return [Check(what, rate(large, len(jumps)), "≥", 0.5)]


def _phase(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["phase"]
    k = round(found["agreement"] * found["n_clear"])
    return [Check("clear cells in which training ends where theory says", rate(k, found["n_clear"], "cells"), "≥", 0.9)]


def _pairs(
    numbers: Mapping[str, Any], kind: str, what: str, there: Callable[[np.ndarray], np.ndarray]
) -> Sequence[Check]:
    """A net has two pairs. The control are nets whose features are independent."""
    found = numbers["pairs"]

    def share(name: str, key: str) -> list[float]:  # of a net's pairs, one a net
        return there(np.array(found[name][key]).reshape(-1, 2)).mean(1).tolist()

    tries = len(found[kind]["cosine_of_all"]) // len(found[kind]["cosine"])
    best, control = (share(name, "cosine") for name in (kind, "independent"))
    every = difference(share(kind, "cosine_of_all"), share("independent", "cosine_of_all"), "nets")
    of = f"best of {tries} nets"
    return [
        Check(f"{of}: both pairs have {what}", rate(best.count(1.0), len(best), "such nets"), "≥", 0.5),
        Check(
            f"{of}: share of pairs with {what}, less that of independent pairs",
            difference(best, control, "such nets"), "≥", 0.1,
        ),
        Check(f"all nets: share of pairs with {what}, less that of independent pairs", every, "≥", 0.1),
    ]  # fmt: skip


def _together(numbers: Mapping[str, Any]) -> Sequence[Check]:
    return _pairs(numbers, "correlated", "|cosine| < .2", lambda cosine: abs(cosine) < 0.2)


def _apart(numbers: Mapping[str, Any]) -> Sequence[Check]:
    return _pairs(numbers, "anticorrelated", "cosine < -.8", lambda cosine: cosine < -0.8)


CLAIMS = (
    Claim("dense", SOURCE, "Dense features: the most important ones have a dimension each, the others none.", _dense),
    Claim("sparse", SOURCE, "The rarer features are, the more of them are kept.", _sparse),
    Claim(
        "shared",
        SOURCE,
        "As features become rarer they share dimensions in opposite pairs (D = 1/2), then as in square antiprisms (D = 3/8).",
        _shared,
    ),
    Claim("pentagon", SOURCE, "Five rare features in two dimensions end as a pentagon.", _pentagon, "D = 2/5"),
    Claim("jumps", SOURCE, "Training gets to its geometry in jumps, also after its beginning.", _jumps),
    Claim("phases", SOURCE, "Two features in one dimension: training follows the phases of the closed form.", _phase),
    Claim("correlated", SOURCE, "Features that come together become orthogonal.", _together),
    Claim("anticorrelated", SOURCE, "Features that exclude each other become opposites.", _apart),
)  # fmt: skip
