"""What decides on the claims about computing on two numbers that share one: numbers of the run beside bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, difference, exact, rate
from pipeline.toy.representations.checks import GAIN, MOST
from pipeline.toy.representations.computing import DECODED, FUNCTIONS, NOT_DECODED, OTHER

Numbers = Mapping[str, Any]
Checks = Sequence[Check]


def performant(n: Numbers) -> Checks:
    found = n["sizes"]
    base = max(found["linear"], key=int)
    checks = []
    for name in FUNCTIONS:
        linear, code = found["linear"][base][name], found["code"][base][name]
        checks.append(Check(f"nets that learn {name} from the pair", rate(sum(linear), len(linear)), "≥", 0.5))
        checks.append(Check(f"the same from one number, Z = {base}", rate(sum(code), len(code)), "≤", 0.5))
    return checks


def can_compute(n: Numbers) -> Checks:
    found = n["by_hand"]["found"]
    return [
        Check(
            f"greatest error for {name} of a layer of {rows[-1][0]} ReLUs straight from the code, Z = 10",
            exact(rows[-1][1]),
            "≤",
            1e-9,
        )
        for name, rows in found.items()
    ]


def _learned(n: Numbers, name: str) -> tuple[np.ndarray, np.ndarray]:
    """R² of y in each hidden layer of the nets that learn the function: trained, and before. (nets, layers) each."""
    found = n["regimes"]
    good = np.array(found["computed"][name], dtype=bool)
    after, before = (np.array(found[key][name])[good] for key in ("r2", "r2_before"))
    return after, before


def decompress(n: Numbers) -> Checks:
    checks = []
    for name in FUNCTIONS:
        after, before = (r2.max(1) >= DECODED for r2 in _learned(n, name))
        what = f"nets with {name} in which a hidden layer reads y with R² ≥ {DECODED}"
        gain = difference(after.astype(float), before.astype(float), "nets")
        checks.append(Check(what, rate(int(after.sum()), len(after), "nets"), "≥", MOST))
        checks.append(Check("the same, less the share before training", gain, "≥", GAIN))
    return checks


def because(n: Numbers) -> Checks:
    """Of the nets that learn their function; beside another function: of the pairs of which both do."""
    found = n["regimes"]
    first = {name: np.array(found["r2"][name])[:, 0] for name in (*FUNCTIONS, OTHER)}
    good = {name: np.array(found["computed"][name], dtype=bool) for name in first}
    checks = []
    for name in FUNCTIONS:
        after, before = _learned(n, name)
        both = good[name] & good[OTHER]
        gain = difference(after[:, 0].tolist(), before[:, 0].tolist(), "nets")
        more = difference(first[name][both].tolist(), first[OTHER][both].tolist(), "pairs of nets")
        checks.append(Check(f"R² of y in the first layer, {name}, less that before training", gain, "≥", 0))
        checks.append(Check(f"R² of y in the first layer, {name}, less that for {OTHER}", more, "≥", 0))
    return checks


def unlikely(n: Numbers) -> Checks:
    checks = []
    for name in FUNCTIONS:
        after, before = (r2.max(1) for r2 in _learned(n, name))
        what = f"nets with {name} in which no hidden layer reads y with R² > {NOT_DECODED}"
        gain = difference(after.tolist(), before.tolist(), "nets")
        checks.append(Check(what, rate(int((after <= NOT_DECODED).sum()), len(after), "nets"), "≤", 0.1))
        checks.append(Check(f"R² of y in the best layer, {name}, less that before training", gain, "≥", 0))
    return checks
