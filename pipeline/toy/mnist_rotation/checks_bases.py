"""What decides on claims about the bases that rotations find: of which layers, of how many inputs, of how few axes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.estimates import unpaired
from pipeline.toy.findings import Check, Estimate, difference, exact, mean
from pipeline.toy.mnist_rotation.several import LAYERS

Numbers = Mapping[str, Any]

# A change of less than a twentieth is called none, of a quarter a drastic one; the same basis has a cosine of .95.
NONE, DRASTIC, SAME, MATCH = 0.05, 0.25, 0.95, 0.7
_FALL = "share by which rotations lower the objective"


def nets(values: Sequence[float], percent: bool = False) -> Estimate:
    """Their mean."""
    return replace(mean(values, "nets"), percent=percent)


def ratio(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """mean(a / b), net by net."""
    return nets([over(x, y) for x, y in zip(a, b, strict=True)])


def over(a: float, b: float) -> float:
    """a / b, of nothing nan: not measured. Rotations that are no sparser than neurons gain exactly 0."""
    return a / b if b else math.nan


def unchanged(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    return [
        Check(
            "largest change of a logit, over the largest logit", exact(max(found["unchanged"]), "all nets"), "≤", 1e-4
        ),
        Check("predictions that stay", nets(found["same"], True), "≥", 0.999),
    ]


def local(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]["turn_middle"]
    return [
        Check(f"middle layer, {_FALL}", nets(found["gain"], True), "≥", 0.1),
        Check("its objective over that of random rotations", ratio(found["after"], found["random"]), "≤", 0.9),
        Check(
            "its share of J² in the largest 1%, less that of random rotations",
            difference(found["mass_after"], found["mass_random"], "nets"),
            "≥",
            0.1,
        ),
    ]


def layers(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    return [
        Check(f"first layer, {_FALL}", nets(found["turn_first"]["gain"], True), "≤", NONE),
        Check(f"last layer, its inputs the neurons, {_FALL}", nets(found["alone"]["gain"], True), "≤", NONE),
        Check(f"middle layer, {_FALL}", nets(found["turn_middle"]["gain"], True), "≥", DRASTIC),
    ]


def identity(numbers: Numbers) -> Sequence[Check]:
    """The descent of the mean over entries has no part in it: in so many steps it hardly leaves its start, the identity."""
    found, last = numbers["chains"], numbers["descent"]["last"]
    what = "agreement of the last layer's rotation with the identity"
    return [
        Check(f"{what}, in turn", nets(found["identity_turn"]), "≥", SAME),
        Check(f"{what}, its inputs the neurons", nets(found["identity_alone"]), "≥", SAME),
        Check(f"{what}, by the source's descent from the identity", nets(last["from_identity"]), "≥", SAME),
    ]


def found_again(numbers: Numbers) -> Sequence[Check]:
    last = numbers["descent"]["last"]
    return [
        Check(
            "agreement with the identity, the source's descent from a random rotation",
            nets(last["from_random"]),
            "≥",
            SAME,
        ),
        Check("the same, our solver", nets(last["solver_from_random"]), "≥", SAME),
    ]


def hard_to_believe(numbers: Numbers) -> Sequence[Check]:
    return [
        Check(f"{layer} layer, {_FALL}", nets(numbers["chains"][f"turn_{layer}"]["gain"], True), "≤", 0.1)
        for layer in LAYERS
    ]


def many(numbers: Numbers) -> Sequence[Check]:
    all_of_them = numbers["few_inputs"]["rows"][-1]
    return [
        Check(
            "held-out inputs at which the middle layer is sparser than in neurons",
            nets(numbers["chains"]["inputs"], True),
            "≥",
            0.95,
        ),
        Check(
            "fall on held-out inputs over that on fitted ones",
            ratio(all_of_them["heldout"], all_of_them["fitted"]),
            "≥",
            0.8,
        ),
    ]


def from_few(index: int) -> Callable[[Numbers], Sequence[Check]]:
    def checks(numbers: Numbers) -> Sequence[Check]:
        rows = numbers["few_inputs"]["rows"]
        few, every = rows[index], rows[-1]
        what = f"fall on held-out inputs, fitted to {few['n']}, over that fitted to {every['n']}"
        return [Check(what, ratio(few["heldout"], every["heldout"]), "≥", 0.8)]

    return checks


def compose(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    return [
        Check(f"mean |cosine| of matched axes, hidden layer {i}", nets(found[f"hidden_{i}"]), "≥", MATCH)
        for i in (1, 2)
    ]


def beyond_chance(numbers: Numbers) -> Sequence[Check]:
    found = numbers["chains"]
    return [
        Check(
            f"mean |cosine| of matched axes less that of pairs of random bases, hidden layer {i}",
            unpaired(
                found[f"hidden_{i}"],
                found["null"],
                f"{len(found[f'hidden_{i}'])} nets, {len(found['null'])} random pairs",
            ),
            "≥",
            0,
        )
        for i in (1, 2)
    ]


def few(numbers: Numbers) -> Sequence[Check]:
    found = numbers["few"]
    n, sites = found["kept"], {"read": "that the middle layer reads", "written": "that it writes"}
    return [
        *(
            Check(
                f"share of its squared Jacobian on the {n} largest axes {what}",
                nets(found["mass"][f"{site}, in turn"], True),
                "≥",
                0.5,
            )
            for site, what in sites.items()
        ),
        *(
            Check(
                f"predictions that stay with the {n} largest axes {what}",
                nets(found["at"][f"{site}, in turn, axes, mean"]["same"], True),
                "≥",
                0.95,
            )
            for site, what in sites.items()
        ),
    ]


def performance(numbers: Numbers) -> Sequence[Check]:
    found = numbers["few"]
    return [
        Check(
            f"accuracy lost with {found['kept']} rotated axes, hidden layer {i}",
            difference(found["full"], found["at"][f"{site}, in turn, axes, mean"]["accuracy"], "nets"),
            "≤",
            0.01,
        )
        for i, site in enumerate(("read", "written"), 1)
    ]


def by_rotation(numbers: Numbers) -> Sequence[Check]:
    found = numbers["few"]["needed"]
    needed = {basis: {s: found[f"{s}, {basis}"] for s in ("read", "written")} for basis in ("neurons", "in turn")}
    return [
        Check(
            f"neurons needed less rotated axes needed, hidden layer {i}",
            difference(needed["neurons"][site], needed["in turn"][site], "nets"),
            "≥",
            1,
        )
        for i, site in enumerate(("read", "written"), 1)
    ]
