"""What the discussion of Baker 2022 says of an embedding's singular vectors, and what decides on it, for one model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Claim, Estimate, exact, mean, rate

SOURCE = "Baker 2022, discussion"
NAMES = {
    "kurtosis": "kurtosis",
    "l2_l1": "L2/L1",
    "hoyer": "Hoyer's measure",
    "top1": "share of w² in the largest 1%",
    "within": "kurtosis within a coordinate",
}


def gains(numbers: Mapping[str, Any], baseline: str, basis: str = "as it is") -> np.ndarray:
    """(layer, matrix, measure) log of the sparsity in the embedding's axes over that in the baseline's: "neurons", the
    model's own axes, or "random", the mean over random rotations."""
    found = numbers["weights"]
    before = found["random_mean"] if baseline == "random" else found["bases"][baseline]
    after, before = (np.array(values, dtype=float) for values in (found["bases"][basis], before))
    with np.errstate(all="ignore"):
        return np.log(after / before)


def _first(baseline: str) -> Callable[[Mapping[str, Any]], Sequence[Check]]:
    def checks(numbers: Mapping[str, Any]) -> Sequence[Check]:
        gain = gains(numbers, baseline)[0]
        return [
            Check(f"log ratio of {NAMES[name]}, first layer", mean(gain[:, i].tolist(), "matrices"), "≥", 0)
            for i, name in enumerate(numbers["weights"]["measures"])
        ]

    return checks


def _deeper(baseline: str) -> Callable[[Mapping[str, Any]], Sequence[Check]]:
    def checks(numbers: Mapping[str, Any]) -> Sequence[Check]:
        gain = gains(numbers, baseline)
        layer = np.arange(len(gain)) - (len(gain) - 1) / 2
        slope = np.einsum("l,lmk->mk", layer, gain) / (layer @ layer)
        return [
            Check(f"slope a layer of the log ratio of {NAMES[name]}", mean(slope[:, i].tolist(), "matrices"), "≤", 0)
            for i, name in enumerate(numbers["weights"]["measures"])
        ]

    return checks


def _frequency(numbers: Mapping[str, Any]) -> Sequence[Check]:
    checks = []
    for name, found in numbers["tokens"]["embeddings"].items():
        one = found["frequency"]
        r = Estimate(*one["r"], of=f"{one['n_tokens']} tokens")
        better = sum(other > one["each"][0] for other in one["each"][1:])
        checks += [
            Check(f"embedding {name}: |r| of the top component with log frequency", r, "≥", 0.5),
            _by_chance(
                f"{name}: random directions with at least that |r|", one["each"][0], found["random"], "directions"
            ),
            Check(f"{name}: components with a larger |r|", exact(better, f"of {len(one['each'])}"), "≤", 0),
        ]
    return checks


def _interpretable(numbers: Mapping[str, Any]) -> Sequence[Check]:
    checks = []
    for name, found in numbers["tokens"]["embeddings"].items():
        best, n = float(np.max(found["separation"])), len(found["separation"])
        what = (
            f"embedding {name}: sets of {n} random directions whose best AUROC for a kind of tokens is at least the {best:.3f} "
            f"of the first {n} components"
        )
        checks.append(_by_chance(what, best, found["best_separation"], "sets"))
    return checks


def _by_chance(what: str, value: float, drawn: Sequence[float], of: str) -> Check:
    """A permutation test's share: of what is drawn at random, how much reaches the value. At most .05 holds."""
    return Check(what, rate(sum(one >= value for one in drawn), len(drawn), of), "≤", 0.05)


_WEIGHTS = "Rotated to the embedding's singular vectors, the weights of the first layer are sparser"

CLAIMS = (
    Claim("first-layer", SOURCE, f"{_WEIGHTS} than before.", _first("neurons")),
    Claim("first-layer-random", SOURCE, f"{_WEIGHTS} than after random rotations.", _first("random")),
    Claim("deeper", SOURCE, "That effect decreases deeper into the model.", _deeper("neurons")),
    Claim(
        "deeper-random",
        SOURCE,
        "The effect beyond random rotations decreases deeper into the model.",
        _deeper("random"),
    ),
    Claim("frequency", SOURCE, "The top component of the embedding is related to raw token frequency.", _frequency),
    Claim("interpretable", SOURCE, "Some of the first singular vectors are easily interpretable.", _interpretable),
)
