"""What decides on the claims: of each, its checks of a run's numbers. The claims are in claims.py, in the same order.

Those on other ways to choose between linear maps are in checks_maps.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, difference, exact, mean

STATES = ("trained", "untrained")
_ANSWERS = 0.05  # share of changed answers, at which a scaled activation is said to mean something else
_KL = 0.1  # the same for the output of a language model, nats a token

Numbers = Mapping[str, Any]


def _by_state(found: Numbers) -> list[tuple[str, Any]]:
    return [(state, found[state]) for state in STATES]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def affine(numbers: Numbers) -> Sequence[Check]:
    found = numbers["codes"]
    n = f"all of {len(found['error'])} nets, {found['n_rows']} digits each"
    return [Check("largest |A x + c - output| of a logit", exact(max(found["error"]), n), "≤", 1e-4)]


def denser(numbers: Numbers) -> Sequence[Check]:
    ratio = {
        state: [
            b / a
            for a, b in zip(*(numbers["density"][state][k]["density"] for k in ("within a class", "between classes")))
        ]
        for state in STATES
    }
    what = "boundaries a unit of length between digits of two classes over those within one"
    return [
        Check(f"{what}", mean(ratio["trained"], "nets"), "≥", 1),
        Check("that, less the same before training", difference(ratio["trained"], ratio["untrained"], "nets"), "≥", 0),
    ]


def shell(numbers: Numbers) -> Sequence[Check]:
    found, checks = numbers["shell"], []
    for state in STATES:
        for centre in ("the origin", "the mean digit"):
            row = found[state][centre]
            for where, radius in (("inner", found["radii"][0]), ("outer", found["radii"][-1])):
                what = f"{state}, density at {radius:g} from {centre} over that where it is densest, {row['densest']:g}"
                checks.append(Check(what, mean(_known(row[where]), "nets"), "≤", 0.5))
    return checks


def outwards(numbers: Numbers) -> Sequence[Check]:
    found = numbers["shell"]
    return [
        Check(
            f"{state}, neurons whose boundary meets the sphere at {found['radii'][-1]:g} from {centre}, over those where "
            "most do",
            mean(_known(found[state][centre]["farthest"]), "nets"), "≥", 0.95,
        )
        for state in STATES for centre in ("the origin", "the mean digit")
    ]  # fmt: skip


def rank(numbers: Numbers) -> Sequence[Check]:
    return [
        Check(
            f"{state}, largest second singular value of the difference over its first",
            exact(row["second_singular_value"], f"{row['n_ranked']} boundaries"), "≤", 1e-6,
        )
        for state, row in _by_state(numbers["neighbours"])
    ]  # fmt: skip


def similar(numbers: Numbers) -> Sequence[Check]:
    checks = []
    for state in STATES:
        row = numbers["neighbours"][state]
        checks += [
            Check(f"{state}, relative difference of neighbours' maps", mean(row["neighbours"], "nets"), "≤", 0.1),
            Check(f"{state}, that over the one of random pairs", mean(row["ratio"], "nets"), "≤", 0.5),
        ]
    return checks


def unbounded(numbers: Numbers) -> Sequence[Check]:
    row = numbers["neighbours"]["trained"]
    return [
        Check(
            "growth of |A - A'|_F when all weights are ten times as large",
            mean(row["frobenius_grows"], "nets"),
            "≥",
            10,
        ),
    ]


def measure(numbers: Numbers) -> Sequence[Check]:
    rows = [numbers["neighbours"][state] for state in STATES]
    change, greatest = (max(row[key] for row in rows) for key in ("relative_changes", "greatest"))
    return [
        Check(
            "largest change of the relative difference when all weights are ten times as large",
            exact(change),
            "≤",
            1e-6,
        ),
        Check("largest relative difference of two neighbours", exact(greatest), "≤", 2),
    ]


def crosses(numbers: Numbers) -> Sequence[Check]:
    found = numbers["adversarial"]
    return [
        Check(
            f"boundaries that adversarial steps of length {norm:g} cross over those that random ones do",
            mean(_over(row["adversarial"]["crossed"], row["random"]["crossed"]), "nets"), "≥", 1,
        )
        for norm, row in zip(found["norms"], found["steps"])
    ]  # fmt: skip


def _over(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x / y if y else float("nan") for x, y in zip(a, b, strict=True)]


def turned(numbers: Numbers) -> Sequence[Check]:
    found = numbers["adversarial"]
    # the shortest steps after which most answers are wrong; the longest, if there are none
    k = next((i for i, row in enumerate(found["steps"]) if np.mean(row["adversarial"]["wrong"]) >= 0.5), -1)
    norm, row = found["norms"][k], found["steps"][k]
    cosine = {name: row[name]["turned"] for name in ("adversarial", "random")}
    return [
        Check(
            f"cosine of the last hidden layer before and after a step of length {norm:g}",
            mean(cosine["adversarial"], "nets"), "≤", 0.5,
        ),
        Check(
            "that after random steps, less that after adversarial ones",
            difference(cosine["random"], cosine["adversarial"], "nets"), "≥", 0,
        ),
    ]  # fmt: skip


def far(numbers: Numbers) -> Sequence[Check]:
    found = numbers["adversarial"]
    k = int(np.argmax([len(_known(row["distance"])) for row in found["steps"]]))
    norm, row = found["norms"][k], found["steps"][k]
    return [
        Check(
            f"distance from the origin of digits whose answer a step of length {norm:g} changes, over those whose answer stays",
            mean(_known(row["distance"]), "nets"), "≥", 1,
        ),
        Check("distance from the origin after such a step over before", mean(row["outwards"], "nets"), "≥", 1),
    ]  # fmt: skip


def scale_invariant(numbers: Numbers) -> Sequence[Check]:
    found = numbers["scaling"]
    n = f"{len(found['factors'])} factors, {len(found['without biases']['accuracy'])} nets"
    factor, most = found["factors"][0], float(np.max(found["without biases"]["flipped"]))
    seen = mean(found["with biases"]["flipped"][0], "nets")
    return [
        Check("largest share of a code that flips without biases", exact(most, n), "≤", 0),
        Check(f"share that flips with biases at a factor of {factor:g}", seen, "≥", 0.01),
    ]


def _ends(factors: Sequence[float]) -> tuple[list[int], list[int]]:
    """Places of the factors nearest to 1 on both sides, and of the outermost ones."""
    low = [i for i, factor in enumerate(factors) if factor < 1]
    high = [i for i, factor in enumerate(factors) if factor > 1]
    near = [max(low, key=lambda i: factors[i], default=0), min(high, key=lambda i: factors[i], default=-1)]
    return near, [int(np.argmin(factors)), int(np.argmax(factors))]


def _changed(numbers: Numbers, which: int) -> list[tuple[str, Sequence[float], str, float]]:
    """What changes at a factor's two places that _ends gives (0: nearest to 1, 1: outermost), of what, and from where on it
    counts as another meaning: of the digits nets with biases, and of the language model if there is one."""
    digits, language = numbers["scaling"], numbers["language"]["validity"]
    rows = [
        (
            digits["factors"],
            digits["with biases"]["answers"],
            "answers of the digits nets that change",
            "nets",
            _ANSWERS,
        )
    ]
    if language is not None:  # a model made the store
        what = "KL of the language model's output, mean over layers, nats a token"
        rows.append((language["factors"], language["mean"], what, "sequences", _KL))
    return [
        (f"{what}, at a factor of {factors[i]:g}", values[i], of, bound)
        for factors, values, what, of, bound in rows
        for i in _ends(factors)[which]
    ]


def valid_within(numbers: Numbers) -> Sequence[Check]:
    return [Check(what, mean(values, of), "≤", bound) for what, values, of, bound in _changed(numbers, 0)]


def valid_beyond(numbers: Numbers) -> Sequence[Check]:
    return [Check(what, mean(values, of), "≥", bound) for what, values, of, bound in _changed(numbers, 1)]


def tokens(numbers: Numbers) -> Sequence[Check]:
    found = numbers["language"]["clusters"]
    return _pure(
        "token", found["shares"], found["excess"], found["noise"], "clusters of one model, not independent nets"
    )


def channels(numbers: Numbers) -> Sequence[Check]:
    trained, untrained = (numbers["channels"][state] for state in STATES)
    noise = float(np.mean(trained["noise"]))
    return [
        *_pure("digit", trained["share"], trained["excess"], noise, "nets"),
        Check(
            f"that, less the same before training ({np.mean(untrained['noise']):.0%} of the rows are in no cluster there)",
            difference(trained["excess"], untrained["excess"], "nets"), "≥", 0,
        ),
    ]  # fmt: skip


def _pure(label: str, share: Sequence[float], excess: Sequence[float], noise: float, of: str) -> Sequence[Check]:
    what = f"share of a cluster's rows that its commonest {label} has, mean over clusters"
    return [
        Check(f"{what} ({noise:.0%} of the rows are in none)", mean(share, of), "≥", 0.5),
        Check(f"that, less the same with the {label}s shuffled", mean(excess, of), "≥", 0.2),
    ]


def soft(numbers: Numbers) -> Sequence[Check]:
    gate = numbers["gelu"]["gate"]
    n = f"{len(gate['h'])} values of h"
    return [
        Check("largest |h q - gelu(h)|", exact(gate["value_error"], n), "≤", 1e-6),
        Check("smallest q", exact(min(gate["q"]), n), "≥", 0),
        Check("largest q", exact(max(gate["q"]), n), "≤", 1),
    ]


def expectation(numbers: Numbers) -> Sequence[Check]:
    one, deep = numbers["gelu"]["one_layer"], numbers["gelu"]["layers"][-1]
    return [
        Check(
            "one layer, largest difference of an entry of the expected map from the soft code's",
            exact(one["map_error"], f"all {one['n_codes']} codes, {one['n_nets']} nets"), "≤", 1e-6,
        ),
        Check("one layer, largest difference of the output", exact(one["value_error"]), "≤", 1e-6),
        Check(
            f"{deep['n_layers']} layers, the same",
            exact(max(row["held"] for row in numbers["gelu"]["layers"]), f"all {deep['n_codes']} codes"), "≤", 1e-6,
        ),
    ]  # fmt: skip


def followed(numbers: Numbers) -> Sequence[Check]:
    return [
        Check(f"{row['n_layers']} layers, relative difference of the output", mean(row["followed"], "nets"), "≤", 0.01)
        for row in numbers["gelu"]["layers"][1:]
    ]
