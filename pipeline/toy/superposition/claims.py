"""What Elhage et al. 2022, "Toy Models of Superposition", say, and what decides on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Claim, exact, mean, rate

SOURCE = "Elhage et al. 2022"
_NEAR = 0.03  # of a polytope's D


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


def _sticky(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["sticky"]
    pairs = [(abs(np.array(D) - 0.5) < _NEAR).sum() for D in found["D"]]
    best = int(np.argmax([k / max(1, len(D)) for k, D in zip(pairs, found["D"])]))
    n = len(found["D"][best])
    return [
        Check(
            f"features with D within {_NEAR} of 1/2 at p = {found['p'][best]:g}, where most are",
            rate(int(pairs[best]), n, "features"), "≥", 0.5,
        )
    ]  # fmt: skip


def _pentagon(numbers: Mapping[str, Any]) -> Sequence[Check]:
    D = numbers["pentagon"]["D"]
    good = sum(all(abs(d - 0.4) < 0.01 for d in run) for run in D)
    return [Check("runs that end with every D within .01 of 2/5", rate(good, len(D)), "≥", 0.9)]


def _jumps(numbers: Mapping[str, Any]) -> Sequence[Check]:
    jumps = numbers["pentagon"]["largest_jump"]
    # 200 states are kept: a change spread evenly over training would move D by .003 from one to the next
    return [Check("largest change of a D between two of 200 states of training", mean(jumps), "≥", 0.1)]


def _phase(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["phase"]
    k = round(found["agreement"] * found["n_clear"])
    return [Check("clear cells in which training ends where theory says", rate(k, found["n_clear"], "cells"), "≥", 0.9)]


def _together(numbers: Mapping[str, Any]) -> Sequence[Check]:
    cosine = np.array(numbers["pairs"]["correlated"]["cosine"])
    return [Check("pairs with |cosine| < .2", rate(int((abs(cosine) < 0.2).sum()), len(cosine), "pairs"), "≥", 0.5)]


def _apart(numbers: Mapping[str, Any]) -> Sequence[Check]:
    cosine = np.array(numbers["pairs"]["anticorrelated"]["cosine"])
    return [Check("pairs with cosine < -.8", rate(int((cosine < -0.8).sum()), len(cosine), "pairs"), "≥", 0.5)]


CLAIMS = (
    Claim("dense", SOURCE, "Dense features: the most important ones have a dimension each, the others none.", _dense),
    Claim("sparse", SOURCE, "The rarer features are, the more of them are kept.", _sparse),
    Claim("pairs-first", SOURCE, "As features become rarer they first share a dimension in opposite pairs, D = 1/2.", _sticky),
    Claim("pentagon", SOURCE, "Five rare features in two dimensions end as a pentagon.", _pentagon, "D = 2/5"),
    Claim("jumps", SOURCE, "Training gets to its geometry in jumps.", _jumps),
    Claim("phases", SOURCE, "Two features in one dimension: training follows the phases of the closed form.", _phase),
    Claim("correlated", SOURCE, "Features that come together become orthogonal.", _together),
    Claim("anticorrelated", SOURCE, "Features that exclude each other become opposites.", _apart),
)  # fmt: skip
