"""What decides on claims about kinds of training: which of them make hidden layers more local."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.estimates import unpaired
from pipeline.toy.findings import Check, difference, shown
from pipeline.toy.mnist_rotation.checks_bases import nets

Numbers = Mapping[str, Any]

# What is changed → pairs of kinds: that with more of it, that with less.
CHANGES = {
    "length": (("plain", "untrained"), ("plain", "short"), ("long", "plain")),
    "decay": (("decay_0.5", "plain"), ("decay_2", "plain")),
    "dropout": (("dropout_0.2", "plain"), ("dropout_0.5", "plain")),
    "width": (("plain", "half_width"), ("double_width", "plain")),
    "activation": (("gelu", "plain"), ("tanh", "plain")),
    "depth": (("3_hidden", "plain"), ("4_hidden", "plain")),
}
NAMES = {
    "plain": "plain", "untrained": "not trained", "short": "a tenth of the steps", "long": "six times the steps",
    "decay_0.5": "weight decay 0.5", "decay_2": "weight decay 2", "dropout_0.2": "dropout 0.2", "dropout_0.5": "dropout 0.5",
    "half_width": "half the width", "double_width": "double the width", "gelu": "GELU", "tanh": "tanh",
    "3_hidden": "3 hidden layers", "4_hidden": "4 hidden layers",
}  # fmt: skip
_BASES = {"after": "rotated", "before": "in neurons"}


def changed(what: str) -> Callable[[Numbers], Sequence[Check]]:
    """The objective with more less that with less. The intervals of all changes hold at once with 95%."""

    def check(numbers: Numbers, key: str, more: str, less: str) -> Check:
        a, b = (numbers[f"regime_{kind}"][key] for kind in (more, less))
        n_intervals = len(_BASES) * sum(map(len, CHANGES.values()))
        estimate = unpaired(a, b, f"{len(a)} nets each, {n_intervals} intervals at once", n_intervals)
        return Check(f"objective {_BASES[key]}: {NAMES[more]} less {NAMES[less]}", estimate, "≤", 0)

    return lambda numbers: [check(numbers, key, *kinds) for key in _BASES for kinds in CHANGES[what]]


def zero_loss(numbers: Numbers) -> Sequence[Check]:
    """By what rotations reach, and by where they end. The nets of both kinds begin with the same weights."""
    long, short = numbers["regime_long"], numbers["regime_short"]
    losses = [shown(float(np.mean(found["loss"]))) for found in (long, short)]
    what = f"trained longest (training loss {losses[0]} nats) less stopped early ({losses[1]})"
    rise = {name: np.subtract(found["mass_after"], found["mass_before"]) for name, found in (("l", long), ("s", short))}
    return [
        Check(f"fall of the objective by rotations, {what}", difference(long["gain"], short["gain"], "nets"), "≥", 0),
        Check(
            f"rise of the share of J² in the largest 1% by rotations, {what}", nets(list(rise["l"] - rise["s"])), "≥", 0
        ),
        Check(f"objective rotated, {what}", difference(long["after"], short["after"], "nets"), "≤", 0),
    ]
