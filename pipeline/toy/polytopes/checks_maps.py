"""What decides on the claims on other ways to choose between linear maps: maps at centres, codes and maps taken apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.toy.findings import Check, Estimate, difference, mean, median
from pipeline.toy.polytopes.decoupled import DRAWN, LEARNED

_POINT = 0.01  # of accuracy: what is closer is as good

Numbers = Mapping[str, Any]


def competitive(numbers: Numbers) -> Sequence[Check]:
    return [
        Check(
            f"accuracy of a ReLU net less that of N = {row['n']} maps, {row['maps']['n_parameters']} parameters at most",
            difference(row["nets"]["accuracy"], row["maps"]["accuracy"]), "≥", 0,
        )
        for row in numbers["centres"]["learned"]
    ]  # fmt: skip


def large(numbers: Numbers) -> Sequence[Check]:
    own, rows = numbers["centres"]["own"], numbers["centres"]["own"]["rows"]
    size = [0.0, *(row["n_parameters"] / own["n_parameters"] for row in rows), float("inf")]
    short, enough = [], []  # between two N of the grid lies the fewest maps that are enough
    for i, whole in enumerate(own["accuracy"]):
        k = next((k for k, row in enumerate(rows) if row["accuracy"][i] >= whole - _POINT), len(rows))
        short.append(size[k])
        enough.append(size[k + 1])
    low, high = median(short).low, median(enough)
    of = f"{len(enough)} nets, N of {', '.join(str(row['n']) for row in rows)}, of which the lower end is too few"
    what = "parameters of the fewest of a net's own maps that are within a point of its accuracy, over the net's"
    return [Check(what, Estimate(high.value, low, high.high, of), "≥", 10)]


def decouple(numbers: Numbers) -> Sequence[Check]:
    row = max(numbers["centres"]["learned"], key=lambda row: row["n"])
    what = f"accuracy that N = {row['n']} maps lose against a ReLU net of at most as many parameters"
    return [Check(what, difference(row["nets"]["accuracy"], row["maps"]["accuracy"]), "≤", _POINT)]


def anew(numbers: Numbers) -> Sequence[Check]:
    found = numbers["decoupled"]["accuracy"]
    return [
        Check(f"accuracy lost with {name}", difference(found["codes and maps"], found[name], "nets"), "≤", _POINT)
        for name in (LEARNED, DRAWN)
    ]


def power(numbers: Numbers) -> Sequence[Check]:
    gains = numbers["decoupled"]["gains"]
    return [Check(f"accuracy of {name}", mean(gain, "nets"), "≥", _POINT) for name, gain in gains.items()]
