"""The numbers of all parts, gathered over seeds: what claims and page read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from scipy import stats

from pipeline.toy.findings import Estimate, mean

Numbers = Mapping[str, Any]

BELOW, ABOVE = "a penalty below the best", "the best penalty or above"
MIDDLING = (0.5, 0.8)  # MMCS


def seeds(numbers: Numbers, kind: str) -> list[dict[str, Any]]:
    """The parts kind_0, kind_1, …"""
    return [part for name, part in numbers.items() if name.rpartition("_")[0] == kind]


def cell(numbers: Numbers, d_sae: int, alpha: float, key: str) -> list[float]:
    """One cell of the table, for each seed; empty where there is no such cell."""
    found = seeds(numbers, "table")
    sizes, alphas = found[0]["d_sae"], found[0]["alpha"]
    if d_sae not in sizes or alpha not in alphas:
        return []
    return [one["cells"][sizes.index(d_sae)][alphas.index(alpha)][key] for one in found]


def cells(numbers: Numbers, key: str) -> list[list[list[float]]]:
    """(seeds, sizes, alphas), the table's cells."""
    return [[[c[key] for c in row] for row in one["cells"]] for one in seeds(numbers, "table")]


def average(numbers: Numbers, key: str) -> np.ndarray:
    """(sizes, alphas), the table's mean over seeds."""
    return np.mean(cells(numbers, key), axis=0)


def best_alphas(numbers: Numbers) -> list[float]:
    """For each size of the table, the α of the largest mean MMCS."""
    alphas = seeds(numbers, "table")[0]["alpha"]
    return [alphas[i] for i in average(numbers, "mmcs").argmax(1)]


def ranks_alike(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation; nan where either does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(cast(Any, stats.spearmanr(a, b)).statistic)


def above_chance(found: Mapping[str, float]) -> float:
    """MMCS on a scale on which 0 is as many random directions, 1 is all found."""
    return (found["mmcs"] - found["floor"]) / (1 - found["floor"])


def of_families(part: Mapping[str, Any], kind: str, seed: int) -> list[Mapping[str, float]]:
    """What each family found of one kind of features, PCA left out."""
    return [rows[seed] for name, rows in part[kind]["families"].items() if name != "pca"]


def recovery(part: Mapping[str, Any], kind: str, best: bool = False) -> list[float]:
    """For each seed, the mean over families of what is recovered above chance, or that of the best of them."""
    by_seed = [[above_chance(found) for found in of_families(part, kind, seed)] for seed in range(len(part["kept"]))]
    return [float(max(found) if best else np.mean(found)) for found in by_seed]


def naturals(numbers: Numbers) -> list[dict[str, Any]]:
    """The parts of the ratios, from the fewest features a dimension."""
    return sorted(seeds(numbers, "natural"), key=lambda part: part["ratio"])


def size(of: Estimate) -> Estimate:
    """The magnitude of an estimate."""
    ends = abs(of.low), abs(of.high)
    low = 0.0 if of.low <= 0 <= of.high else min(ends)
    return Estimate(abs(of.value), low, max(ends), of.of, of.percent)


def converged(curve: Sequence[float], steps: Sequence[int]) -> float:
    """The step from which nine tenths of the rise of a curve are done."""
    y = np.asarray(curve)
    return float(steps[int((y >= y[0] + 0.9 * (y[-1] - y[0])).argmax())])


def medians(by_seed: Sequence[Sequence[float]]) -> list[float]:
    """The median of each seed's values; a seed without any is left out."""
    return [float(np.median(values)) for values in by_seed if len(values)]


def middling(numbers: Numbers) -> dict[str, list[list[dict[str, float]]]]:
    """By whether the penalty is below that size's best: the table's cells with a middling MMCS, those of a seed together;
    a seed without any is left out."""
    found: dict[str, list[list[dict[str, float]]]] = {BELOW: [], ABOVE: []}
    best = best_alphas(numbers)
    for one in seeds(numbers, "table"):
        own: dict[str, list[dict[str, float]]] = {BELOW: [], ABOVE: []}
        for row, top in zip(one["cells"], best, strict=True):
            for alpha, c in zip(one["alpha"], row, strict=True):
                if MIDDLING[0] <= c["mmcs"] <= MIDDLING[1]:
                    own[BELOW if alpha < top else ABOVE].append(c)
        for side, those in own.items():
            found[side] += [those] if those else []
    return found


def saved(numbers: Numbers, features: str, start: str, than: str) -> Estimate:
    """The share of steps that a beginning saves against another, to the MMCS that both reach: the lower of their ends."""
    shares = []
    for one in seeds(numbers, f"begin_{features}"):
        curves = [np.asarray(one[name]["curve"]) for name in (start, than)]
        mark = min(curve[-1] for curve in curves)
        own, other = (one["steps"][int((curve >= mark).argmax())] for curve in curves)
        shares.append(1 - own / other if other else 0.0)
    return mean(shares)
