"""What decides on claims about the search for rotations, about other maps, and about what it is good for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, difference, exact, mean, shown
from pipeline.toy.mnist_rotation.checks_bases import NONE, nets, over, ratio
from pipeline.toy.mnist_rotation.equivalent import STRENGTHS
from pipeline.toy.mnist_rotation.maps import BARRIERS
from pipeline.toy.mnist_rotation.several import LAYERS

Numbers = Mapping[str, Any]


def backward(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    total = {way: np.sum([found[f"{way}_{layer}"]["after"] for layer in LAYERS], axis=0) for way in ("turn", "back")}
    return [
        Check(
            "objective of all layers, from the logits over from the pixels",
            ratio(total["back"], total["turn"]),
            "≤",
            1 + NONE,
        ),
        Check(
            "the same of the middle layer",
            ratio(found["back_middle"]["after"], found["turn_middle"]["after"]),
            "≤",
            1 + NONE,
        ),
    ]


def _way_at(found: Mapping[str, Any], passes: int) -> list[float]:
    """What plain descent has gained by then, over what our solver gains in all, by net."""
    i = min(range(len(found["points"])), key=lambda k: abs(found["points"][k] - passes))
    curves, ends = found["by"]["descent"]["curve"], found["by"]["solver"]["curve"]
    return [over(c[0] - c[i], c[0] - e[-1]) for c, e in zip(curves, ends, strict=True)]


def better_way(numbers: Numbers) -> Sequence[Check]:
    found = numbers["descent"]
    n = found["passes"]
    return [
        Check(
            f"gain of gradient descent in {k * n} passes over our solver's in {n}",
            nets(_way_at(found, k * n)),
            "≤",
            0.95,
        )
        for k in (1, 10)
    ]


def no_better(numbers: Numbers) -> Sequence[Check]:
    by = numbers["descent"]["by"]
    what = "objective on held-out inputs at its end, our solver's less gradient descent's"
    return [Check(what, difference(by["solver"]["heldout"], by["descent"]["heldout"], "nets"), "≥", 0)]


def relaxation(numbers: Numbers) -> Sequence[Check]:
    found = numbers["bounds"]
    cases = [case for case in found if case.startswith("middle") or case.endswith(("one entry", "a tenth"))]
    return [
        Check(f"best found over the bound, {case}", mean(found[case]["share"], "draws"), "≥", 0.95) for case in cases
    ]


def start(name: str) -> Callable[[Numbers], Sequence[Check]]:
    def checks(numbers: Numbers) -> Sequence[Check]:
        found = numbers["maps"]
        beyond = [
            over(i - s, b - i)
            for i, s, b in zip(found["from_identity"], found[f"from_{name}"], found["before"], strict=True)
        ]
        return [Check("what it gains beyond the identity, over the identity's gain", nets(beyond, True), "≥", 0.02)]

    return checks


def invertible(numbers: Numbers) -> Sequence[Check]:
    found, checks = numbers["maps"], []
    for barrier in BARRIERS:
        condition = shown(float(np.median(found[f"condition_{barrier:g}"])))
        what = "rotation's objective less the invertible map's"
        for at, name in (
            ("", "this layer"),
            ("rows_", "each axis in its own unit"),
            ("next_", "the next layer by itself"),
        ):
            lower = difference(found[f"{at}from_identity"], found[f"{at}invertible_{barrier:g}"], "nets")
            checks.append(Check(f"{what}, penalty {barrier:g} (condition number {condition}), {name}", lower, "≥", 0))
    return checks


def translation(numbers: Numbers) -> Sequence[Check]:
    largest = exact(max(numbers["maps"]["translation"]), "all nets")
    return [Check("largest change of a Jacobian's entry by a translation, over its largest entry", largest, "≤", 1e-4)]


def normaliser(numbers: Numbers) -> Sequence[Check]:
    found = numbers["maps"]
    return [
        Check(
            "objective without a normaliser, of a map times .01 over that map",
            ratio(found["scaled_0.01"], found["scaled_1"]),
            "≤",
            0.1,
        )
    ]


def permutation(numbers: Numbers) -> Sequence[Check]:
    largest = exact(max(numbers["chains"]["shuffled"]), "all nets")
    return [Check("largest change of the objective by a permutation", largest, "≤", 1e-6)]


def zeros(numbers: Numbers) -> Sequence[Check]:
    by = numbers["objectives"]["by"]
    found = []
    for name in ("log", "rational"):
        for key in ("below_0.01", "below_0.1"):
            norms = np.max([by[norm][key] for norm in ("l1", "l4", "hoyer")], axis=0)
            what = f"entries {key.replace('_', ' ')} of the root mean square by {name}, less the most by a norm"
            found.append(Check(what, difference(by[name][key], norms, "nets"), "≥", 0))
    return found


def robust(numbers: Numbers) -> Sequence[Check]:
    found = numbers["attacked"]
    return [
        Check(
            "accuracy of the rotated net less that of the net" + (f", pixels moved by {s:g}" if s else ", test images"),
            difference(found[f"rotated_{s:g}"], found[f"neurons_{s:g}"], "nets"),
            "≥",
            0.01,
        )
        for s in (0, *STRENGTHS)
    ]


def no_training(numbers: Numbers) -> Sequence[Check]:
    found = numbers["finetuned"]
    return [
        Check(
            f"test accuracy trained on in rotated coordinates, less in neurons, {name}",
            difference(found[f"rotated_{kind}_accuracy"], found[f"neurons_{kind}_accuracy"], "nets"),
            "≤",
            0.01,
        )
        for kind, name in (("sgd", "gradient descent"), ("adam", "Adam"))
    ]


def shifted(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    what = "objective of the rotation's own entries over that of a random rotation's"
    return [Check(f"{what}, R_{i}", nets(found[f"density_{i}"]), "≥", 0.9) for i in (1, 2)]
