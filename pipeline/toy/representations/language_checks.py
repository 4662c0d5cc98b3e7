"""What decides on the claims about a language model: relations between words, and neurons."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Estimate, difference, exact, mean, rate
from pipeline.toy.representations.words import PLURAL

Numbers = Mapping[str, Any]
Checks = Sequence[Check]


def _first(layer: Mapping[str, Any], key: str = "rank") -> list[float]:
    return [float(rank == 1) for rank in layer[key]]


def _share_first(layer: Mapping[str, Any], of: str) -> Estimate:
    first = _first(layer)
    return rate(int(sum(first)), len(first), of)


def plurality(n: Numbers) -> Checks:
    layer = n["relations"]["found"][PLURAL][0]
    gain = difference(_first(layer), _first(layer, "rank_without"), "pairs")
    return [
        Check("probability that a held-out pair is above a random one", mean(layer["above_random"], "pairs"), "≥", 0.9),
        Check("p of the pairs against plurals dealt out at random", exact(layer["p"]), "≤", 0.01),
        Check("held-out plurals nearest of all tokens to singular + offset", _share_first(layer, "pairs"), "≥", 0.5),
        Check("the same, less those nearest to the singular alone", gain, "≥", 0),
    ]


def others(n: Numbers) -> Checks:
    found = {name: layers[0] for name, layers in n["relations"]["found"].items() if name != PLURAL}
    above = sum(mean(layer["above_random"]).low >= 0.9 for layer in found.values())
    dealt = sum(layer["p"] <= 0.01 for layer in found.values())
    first = sum(2 * sum(_first(layer)) >= len(layer["rank"]) for layer in found.values())
    of = "relations"
    return [
        Check("other relations with p ≤ .01 against words dealt out at random", rate(dealt, len(found), of), "≥", 0.5),
        Check(
            "those above random pairs with probability ≥ .9 (the interval's lower end)",
            rate(above, len(found), of),
            "≥",
            0.5,
        ),
        Check("those that put at least half of the held-out words first", rate(first, len(found), of), "≥", 0.5),
    ]


def layers(n: Numbers) -> Checks:
    found = n["relations"]
    return [
        Check(
            f"probability that a held-out plural is above a random pair, {point}",
            mean(layer["above_random"], "pairs"),
            "≥",
            0.9,
        )
        for point, layer in zip(found["points"], found["found"][PLURAL], strict=True)
    ]


def carried(n: Numbers, site: str) -> list[tuple[float, float]]:
    """AUC of the best direction and of the best unit, each in its best layer, of the qualities that a direction carries."""
    found = [rows for point, rows in n["neurons"]["points"].items() if point.endswith(site)]
    best = [np.array([rows[kind] for rows in found]).max(0) for kind in ("direction", "unit")]
    return [(float(d), float(u)) for d, u in zip(*best) if d >= 0.95]


def aligned(n: Numbers) -> Checks:
    checks = []
    for site, name in (("mlp.hook_post", "an MLP neuron"), ("hook_resid_post", "a coordinate of the residual stream")):
        found = carried(n, site)
        k = sum(unit >= 0.95 for _, unit in found)
        checks.append(
            Check(
                f"qualities with AUC ≥ .95 in a direction that {name} has so too",
                rate(k, len(found), "qualities"),
                "≤",
                0.5,
            )
        )
    return checks
