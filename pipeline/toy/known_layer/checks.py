"""What decides on the claims of the known layer: functions of the run's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, difference, exact, mean, rate
from pipeline.toy.known_layer.dictionaries import FAMILIES
from pipeline.toy.known_layer.sharing import P

BY_JACOBIANS = {"jacobian, in": "input", "jacobian, out": "output"}


def device(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["in_superposition"]["recovery"]
    return [
        Check(f"share of the {side}'s features that are an axis (|cosine| > .9)", mean(found[name]["found"]), "≥", 0.9)
        for name, side in BY_JACOBIANS.items()
    ]


def nice_basis(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["control"]["recovery"]
    return [
        Check(f"share of the {side}'s orthogonal features that are an axis", mean(found[name]["found"]), "≥", 0.9)
        for name, side in BY_JACOBIANS.items()
    ]


def impossible(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["in_superposition"]["recovery"]
    d, n = (numbers["in_superposition"][key] for key in ("d", "n_features"))
    bases = ("jacobian, in", "jacobian, out", "quartimax", "pca", "ica", "truth")
    best = max(max(found[name]["matched"]) for name in bases)
    return [
        Check(
            f"features that {d} axes leave without an axis of their own, share of {n}", exact((n - d) / n), "≥", 1 / n
        ),
        Check("largest share with an axis of their own, all bases and layers", exact(best), "≤", round(d / n, 4)),
    ]


def coincides(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found, score = (numbers["in_superposition"][key] for key in ("with_best", "bijective"))
    way = [
        (a - floor) / (best - floor)
        for a, floor, best in zip(score["jacobian"], score["random"], score["truth"], strict=True)
    ]
    chance = mean(found["random"])
    return [
        Check(
            f"mean |cosine| of the Jacobian's axes with those of the best rotation, a random rotation's being {chance}",
            mean(found["jacobian"]),
            "≥",
            0.9,
        ),
        Check(
            "agreement of the axes with features, 0 for a random rotation's and 1 for the best one's",
            mean(way),
            "≥",
            0.9,
        ),
    ]


def robust(numbers: Mapping[str, Any]) -> Sequence[Check]:
    checks = []
    for name in FAMILIES:
        rows = numbers[name]["rows"]
        full = sum(share == 1 for share in rows["matched"])
        checks.append(Check(f"share of features that {name} finds", mean(rows["found"]), "≥", 0.9))
        checks.append(Check(f"layers in which {name} finds every feature", rate(full, len(rows["matched"])), "≥", 0.9))
    return checks


def chance(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["in_superposition"]["recovery"]["jacobian, in"]
    return [
        Check(
            f"{name} of the features in the rotation, less that in a random one",
            difference(found[key], found[f"floor_{key}"]),
            "≥",
            0.05,
        )
        for key, name in (("mmcs", "MMCS"), ("found", "share found"))
    ]


def expanded(numbers: Mapping[str, Any]) -> Sequence[Check]:
    return [
        Check(
            f"{name}: active latents over active features, where a feature is active",
            mean([a / b for a, b in zip(rows["l0"], rows["true_l0"], strict=True)]),
            "≤",
            1.5,
        )
        for name in FAMILIES
        if (rows := numbers[name]["rows"])
    ]


def same_thing(numbers: Mapping[str, Any]) -> Sequence[Check]:
    rule = numbers["one_dimension"]["rule"]
    # a guess is wrong in half of them
    return [
        Check(
            "inputs in which the rule takes one for the other", rate(rule["wrong"], rule["n_rows"], "inputs"), "≥", 0.4
        )
    ]


def two_in_one(numbers: Mapping[str, Any]) -> Sequence[Check]:
    rule = numbers["one_dimension"]["rule"]
    return [
        Check(
            "inputs in which the rule takes one for the other", rate(rule["wrong"], rule["n_rows"], "inputs"), "≤", 1e-4
        ),
        Check("greatest error of the number in the others", exact(rule["greatest_error"]), "≤", 1e-6),
    ]


def would_fail(numbers: Mapping[str, Any]) -> Sequence[Check]:
    """Of layers that learned to keep two exclusive features as a pair. Of x in U[0, 1) its mean leaves 1/12."""
    found = numbers["shared"]["sweep"]["exclusive"]
    both, one = (
        [loss / alone for loss, pair in zip(found[key][0], found["antipodal"][0], strict=True) if pair]
        for key, alone in (("both", 2 / 12), ("one", 1 / 12))
    )
    return [
        Check(
            "trained pairs, squared error where both are present over that of answering each one's mean",
            mean(both, "pairs"),
            "≥",
            1,
        ),
        Check(
            "trained pairs, squared error where one is present over that of answering its mean",
            mean(one, "pairs"),
            "≤",
            0.1,
        ),
    ]


def _methods(numbers: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """method → how many seeds found both features, and of how many."""
    found = numbers["one_dimension"]["methods"]
    return {name: (sum(k == 2 for k, _ in seeds), len(seeds)) for name, seeds in found.items()}


def rotation_cannot(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["one_dimension"]["methods"]
    most = {name: max(k for k, _ in found[name]) for name in ("rotation", "pca", "ica")}
    return [Check(f"features that {name} has, most of all seeds", exact(k), "≤", 1) for name, k in most.items()]


def relu_can(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = _methods(numbers)
    widest = max(int(name.split()[-2]) for name in found if name.endswith("latents"))
    names = ["rotation, its two ends apart", *(f"{family}, {widest} latents" for family in FAMILIES)]
    return [Check(f"seeds in which {name} has both features", rate(*found[name]), "≥", 0.9) for name in names]


def mere(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["shared"]["arithmetic"]
    return [Check("draws in which both are present", rate(found["both"], found["n_rows"], "draws"), "≤", 0.0005)]


def error_rate(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["shared"]["arithmetic"]
    return [
        Check("draws on which the hand-made layer errs", rate(found["errs"], found["n_rows"], "draws"), "≤", 0.0005)
    ]


def squared(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["shared"]["arithmetic"]
    share = rate(found["both"], found["n_rows"], "draws")
    return [
        Check("draws in which both are present, at p²", share, "≥", 0.9 * P * P),
        Check("the same", share, "≤", 1.1 * P * P),
        Check(
            "draws on which the hand-made layer errs", rate(found["errs"], found["n_rows"], "draws"), "≤", 1.1 * P * P
        ),
    ]


def favoured(numbers: Mapping[str, Any]) -> Sequence[Check]:
    sweep, kept = numbers["shared"]["sweep"], numbers["shared"]["kept"]
    at = sweep["p"].index(min(sweep["p"], key=lambda p: abs(p - P)))
    ended = sweep["antipodal"][at]
    rare = int(np.argmin(kept["p"]))
    m = min(map(int, kept["kept"]))
    ratio = sweep["pair"][at] / sweep["dedicated"][at]
    gain = [k - m for k in kept["kept"][str(m)][rare]]
    return [
        Check(f"closed-form loss of sharing over that of dedicating, p = {P:g}", exact(ratio), "≤", 1),
        Check(f"trained layers of one dimension that end as a pair, p = {P:g}", rate(sum(ended), len(ended)), "≥", 0.5),
        Check(f"features kept beyond {m} dimensions, of {kept['n']}, p = {kept['p'][rare]:g}", mean(gain), "≥", 1),
    ]


def dense_not(numbers: Mapping[str, Any]) -> Sequence[Check]:
    """Features kept beyond the dimensions, where each of number, sparsity and bottleneck changes alone."""
    sweep, kept, more = (numbers["shared"][key] for key in ("sweep", "kept", "kept_of_more"))
    sparse, dense = (int(f(kept["p"])) for f in (np.argmin, np.argmax))
    least, most = (f(map(int, kept["kept"])) for f in (min, max))

    def beyond(found: dict[str, Any], m: int, at: int) -> list[float]:
        return [k - m for k in found["kept"][str(m)][at]]

    rarest, densest = (f"p = {kept['p'][i]:g}" for i in (sparse, dense))
    few = beyond(kept, least, sparse)
    what = "features kept beyond the dimensions"
    at = int(np.argmax(sweep["p"]))
    ratio = sweep["pair"][at] / sweep["dedicated"][at]
    return [
        Check(f"closed-form loss of sharing over that of dedicating, p = {sweep['p'][at]:g}", exact(ratio), "≥", 1),
        Check(
            f"{what}, {least} dimensions, {rarest}, of {more['n']} features less of {kept['n']}",
            difference(beyond(more, least, sparse), few, "nets"),
            "≥",
            1,
        ),
        Check(
            f"{what}, {least} dimensions, of {kept['n']} features, {rarest} less {densest}",
            difference(few, beyond(kept, least, dense), "nets"),
            "≥",
            1,
        ),
        Check(
            f"{what}, of {kept['n']} features, {rarest}, {least} dimensions less {most}",
            difference(few, beyond(kept, most, sparse), "nets"),
            "≥",
            1,
        ),
    ]


def anticorrelated(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found, sweep = numbers["shared"]["arithmetic"], numbers["shared"]["sweep"]
    at = sweep["p"].index(min(sweep["p"], key=lambda p: abs(p - P)))
    pairs = [
        [loss for loss, pair in zip(losses, ended, strict=True) if pair] or [float("nan")]
        for losses, ended in (
            (sweep["trained"][at], sweep["antipodal"][at]),
            (sweep["exclusive"]["trained"][0], sweep["exclusive"]["antipodal"][0]),
        )
    ]
    n, share = min(map(len, pairs)), (found["errs"] - found["errs_exclusive"]) / found["n_rows"]
    return [
        Check(
            "share of draws with an error, independent less exclusive",
            exact(share, f"{found['n_rows']} draws"),
            "≥",
            0.5 * P * P,
        ),
        Check(
            "loss of trained pairs, independent less exclusive", difference(pairs[0][:n], pairs[1][:n], "pairs"), "≥", 0
        ),
    ]


def exponential(numbers: Mapping[str, Any]) -> Sequence[Check]:
    found = numbers["shared"]["almost"]
    d, drawn = found["d"], np.log(np.array(found["drawn"], dtype=float))
    first, last = ((drawn[b] - drawn[a]) / (d[b] - d[a]) for a, b in ((0, len(d) // 2), (len(d) // 2, len(d) - 1)))
    return [
        Check(f"growth of log(number) a dimension, d = {d[0]} to {d[len(d) // 2]}", mean(first.tolist()), "≥", 0.01),
        # of a power of d the growth falls as 1/d
        Check(f"the same to d = {d[-1]}, less half of it", mean((last - first / 2).tolist()), "≥", 0),
    ]
