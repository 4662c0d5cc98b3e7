"""What decides on the claims about small networks and codes: numbers of the run beside bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, difference, exact, mean, rate

Numbers = Mapping[str, Any]
Checks = Sequence[Check]

MOST = 0.5  # what is true of most
GAIN = 0.05  # a difference of shares that somebody would notice


def different_neurons(n: Numbers) -> Checks:
    found = n["qualities"]
    good = [
        min(aucs) >= 0.95 and distinct == 4
        for *aucs, distinct in zip(*found["unit_auc"].values(), found["distinct_units"], strict=True)
    ]
    each = [
        Check(f"AUC of the best unit for “{kind}”", mean(values), "≥", 0.95)
        for kind, values in found["unit_auc"].items()
    ]
    return [
        Check("nets with four units, one for each quality, of AUC ≥ .95", rate(sum(good), len(good)), "≥", 0.5),
        *each,
    ]


def generalises(n: Numbers) -> Checks:
    found, other = n["qualities"], n["memorised"]
    net = found["net"]["shape_purple"]
    return [
        Check("accuracy for the shape on purple grounds", mean(net), "≥", 0.75),
        Check("the same, less that of the look-up table", difference(net, found["table"]["shape_purple"]), "≥", 0),
        Check(
            "accuracy of a probe for the shape on purple, less that of one in nets that memorise random labels",
            difference(found["probe"]["shape_purple"], other["probe"]["shape_purple"]), "≥", 0,
        ),
    ]  # fmt: skip


def purple(n: Numbers) -> Checks:
    units = np.array(n["qualities"]["purple_units"]).T.tolist()
    return [
        Check(
            f"answer of the unit for {colour} to purple, as a part of its answer to {colour}",
            mean(units[i]),
            "≥",
            0.25,
        )
        for i, colour in enumerate(("red", "blue"))
    ]


def memorises(n: Numbers) -> Checks:
    found = n["memorised"]
    chance = difference(found["as_table"], found["as_table_chance"])
    return [
        Check("random labels that the nets know by heart", mean(found["fitted"]), "≥", 0.95),
        Check(
            "new pictures for which a net answers as the table of the nearest picture",
            mean(found["as_table"]),
            "≥",
            MOST,
        ),
        Check("the same, less the share by chance", chance, "≥", GAIN),
    ]


def vector_sum(n: Numbers) -> Checks:
    after, before = n["qualities"]["interaction"], n["qualities"]["interaction_untrained"]
    return [
        Check("variance between the four kinds that is no sum of ground and shape", mean(after), "≤", 0.05),
        Check("the same, less that of untrained nets", difference(after, before), "≤", 0),
    ]


def scaled(n: Numbers) -> Checks:
    after, before = n["qualities"]["shade_component"], n["qualities"]["shade_component_untrained"]
    return [
        Check("variance over shades of red that lies on one direction of the layer", mean(after), "≥", 0.95),
        Check("the same, less that of untrained nets", difference(after, before), "≥", 0),
    ]


def _loses(found: Numbers, code: str, k: str, name: str) -> Checks:
    """That k dimensions of a code lose a twentieth of the strength's variance more than a length does: the best possible
    code, and trained ones."""
    more = difference(found["trained"][code][k], found["trained"]["length"]["1"])
    return [
        Check(f"strength's variance lost by {k} {name} at best", exact(found["closed"][code][int(k) - 1]), "≥", 0.05),
        Check("the same, trained, less what a length loses", more, "≥", 0.05),
    ]


def binary(n: Numbers) -> Checks:
    found = n["intensity"]
    units = sorted(found["trained"]["binary"], key=int)
    better = [a <= b for a, b in zip(found["in_noise"]["length"], found["in_noise"]["binary"], strict=True)]
    levels = (
        f"levels of noise, up to {max(found['noise']):g} of the range, at which a length loses less than a binary unit"
    )
    return [
        *(
            check
            for k in (units[0], units[-1])
            for check in _loses(found, "binary", k, f"binary unit{'s' * (k != '1')}")
        ),
        Check(levels, exact(sum(better) / len(better), f"{len(better)} levels"), "≥", 1),
    ]


def ranges(n: Numbers) -> Checks:
    found = n["intensity"]
    share = found["dimensions"]["length"]["0.01"] / found["dimensions"]["ranges"]["0.01"]
    fit = "qualities that fit at an error of .01 of the range, as a part of what fits as lengths"
    k = max(found["trained"]["ranges"], key=int)
    return [Check(fit, exact(share), "≤", 0.1), *_loses(found, "ranges", k, "directions for ranges")]


def example(n: Numbers) -> Checks:
    found = n["compression"]
    off = np.abs(np.subtract(found["example"], [0.32, 0.68])).max()
    back = np.abs(np.subtract(found["example_back"], [[0.3, 0.2], [0.6, 0.8]])).max()
    return [
        Check("greatest difference from the reported numbers", exact(off), "≤", 1e-9),
        Check("greatest error of the numbers that come back", exact(back), "≤", 1e-9),
    ]


def precision(n: Numbers) -> Checks:
    return [
        Check(
            f"pairs that come back of {decimals} decimal{'s' * (decimals != '1')}, Z = 10^{decimals}",
            rate(k, of, "pairs"),
            "≥",
            0.95,
        )
        for decimals, (k, of) in n["compression"]["came_back"].items()
    ]


def every_pair(n: Numbers) -> Checks:
    return [
        Check(
            f"pairs of {of} that do not come back, {decimals} decimal{'s' * (decimals != '1')}", exact(of - k), "≤", 0
        )
        for decimals, (k, of) in n["compression"]["came_back"].items()
    ]


def nets_compress(n: Numbers) -> Checks:
    found = n["compression"]
    linear = found["mse"]["best linear"][0]
    return [
        Check("pairs of 100 that a net 2 → 1 → 2 gives back to .05", mean(found["recovered"]["ReLU nets, 1"]), "≥", 90),
        Check(
            "its error as a part of the best linear map's",
            mean([e / linear for e in found["mse"]["ReLU nets, 1"]]),
            "≤",
            1,
        ),
    ]


def natural(n: Numbers) -> Checks:
    """With two numbers in the middle, where nothing is compressed, and with one."""
    found = n["compression"]
    linear = found["mse"]["best linear"][0]
    what = "as a linear function of the two numbers"
    error = "error of nets 2 → 1 → 2 as a part of the best linear map's"
    return [
        Check(f"R² of the code that nets 2 → 2 → 2 choose, {what}", mean(found["linear_r2"]["2"]), "≥", 0.95),
        Check(f"R² of the code that nets 2 → 1 → 2 choose, {what}", mean(found["linear_r2"]["1"]), "≥", 0.95),
        Check(error, mean([e / linear for e in found["mse"]["ReLU nets, 1"]]), "≥", 1),
    ]


def orthogonal(n: Numbers) -> Checks:
    found = n["decomposition"]
    greatest = found["errors"]["orthogonal, p = 1"][0]
    return [
        Check("greatest error of the strengths that dot products read", exact(greatest), "≤", 1e-9),
        Check("largest |cosine| of a feature with a neuron", mean(found["neuron_cosine"], "features"), "≤", 0.9),
    ]


def third(n: Numbers) -> Checks:
    found = n["decomposition"]
    return [
        Check(
            "largest |cosine| within three random directions of a plane, least case",
            exact(min(found["drawn_cosine"])),
            "≥",
            0.5,
        ),
        Check("variance that the best linear read-out of them loses", mean(found["drawn_lost"]), "≥", 0.3),
    ]


def rows(n: Numbers) -> Checks:
    return [
        Check(f"|cosine| of a feature with the nearest row of W, task: {task}", mean(found["row_cosine"]), "≥", 0.99)
        for task, found in n["rows"].items()
    ]


def columns(n: Numbers) -> Checks:
    return [
        Check(f"cosine of W f with the direction asked for, task: {task}", mean(found["written_cosine"]), "≥", 0.99)
        for task, found in n["rows"].items()
    ]
