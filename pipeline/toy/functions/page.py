"""The page of the small functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.page import Page, Section, Table


def page(numbers: Mapping[str, Any]) -> Page:
    return Page(
        "How small networks compute simple functions",
        "Three functions that have an exact small network. Training finds the first two; it hardly ever finds the third, "
        "although the network is there.",
        [
            _threshold_section(numbers["threshold"]),
            _minimum_section(numbers["minimum"]),
            _parity_section(numbers["parity"]),
        ],
    )


def _threshold_section(found: dict[str, Any]) -> Section:
    return Section(
        "x < 10: one neuron",
        "sigmoid(M (10 - x)) is ½ at x = 10 itself, however sharp; with the threshold between the integers it is right on "
        "all of them. Trained, the neuron's threshold -b/w goes to 9.5, the middle of the gap, also where the integers are not "
        "centred on it: the logistic loss ends at the largest margin.",
        [
            Table(["sharpness M", "greatest error, threshold 10", "threshold 9.5"], found["wired"]),
            Table(["trained on", "steps", "threshold -b/w", "loss"], found["trained"]),
        ],
    )


def _minimum_section(found: dict[str, Any]) -> Section:
    weights = found["weights"]
    rows = [
        [f"hidden {i + 1}" + (", bends at a = b" if i == found["bends"] else ", active throughout"), *W, b, v]
        for i, (W, b, v) in enumerate(zip(weights["W"], weights["b"], weights["v"], strict=True))
    ]
    rows.append(["output", None, None, weights["c"][0], None])
    return Section(
        "min(a, b): two hidden neurons",
        "½ (a + b - |a - b|) takes four ReLUs where a + b may be negative; a - ReLU(a - b) takes one, and another to carry a "
        f"past the layer. Two hidden neurons were trained on the unit square: {found['solved']} of {len(found['mse'])} "
        "instances find it. The best one's weights are below: one neuron is active on the whole square and carries a "
        "linear function, the other bends along a = b "
        f"(|cosine| of its weights with a - b: {found['cosine_with_difference']:.4f}). It is the second form, "
        "up to scale and to which of the two numbers is carried. Where the carrying neuron is off, among large negative "
        "numbers at the latest, the network is wrong; the formulas are right everywhere.",
        [
            Table(["", "weight of a", "weight of b", "bias", "output weight"], rows),
            Table(["greatest error on", "four ReLUs", "a - ReLU(a - b)", "trained"], found["errors"]),
        ],
    )


def _parity_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3)
    x, out = np.array(found["x"]), np.array(found["out"])
    inside = (x >= found["exact"][0]) & (x <= found["exact"][1])
    left.axvspan(*(found["exact"][0] - 0.5, found["exact"][1] + 0.5), color="#eeeeee")
    left.plot(x, out, color=pictures.COLOURS[6], lw=0.7)
    left.scatter(x[inside], out[inside], color=pictures.COLOURS[2], s=14, zorder=3, label="right")
    left.scatter(x[~inside], out[~inside], color=pictures.COLOURS[1], s=14, zorder=3, label="beyond the range")
    left.set(xlabel="x", ylabel="output of the wired network", title="five folds at 8, 4, 2, 1, 1")
    left.legend(frameon=False, fontsize=7)
    errors = np.array(found["trained_mse"])
    right.hist(errors, bins=np.linspace(0, 0.55, 45), color=pictures.COLOURS[0])
    right.set(xlabel="MSE after training", ylabel="instances", title="the same network, trained")
    first, last = found["exact"]
    return Section(
        "Parity: folding the line",
        f"|x - 8| maps the integers above 8 onto those below and keeps their parity; folding again at 4, 2, 1, 1 leaves x mod "
        f"2. The network has {found['n_parameters']} parameters and is right on every integer from {first} to {last}, wrong "
        f"at {first - 1} and {last + 1}. Trained from random weights on 0…15 it nearly always stalls: "
        f"{int((errors < 0.01).sum())} of {len(errors)} instances get below 0.01; at .25 the output is the constant ½.\n\n"
        "One hidden layer bends once per ReLU, so parity on 2ⁿ integers takes 2ⁿ - 2 of them. Depth halves the line with "
        "each fold. A network of n ReLUs has at most 2ⁿ linear pieces, so none with fewer than n does it.",
        [
            Table(
                ["n", "integers 2ⁿ", "least ReLUs, n", "wired: ReLUs", "wired: integers right", "one hidden layer: ReLUs"],
                found["table"],
            ),
            Table(
                ["layer", "weights, a row each neuron", "biases"],
                [[str(i + 1), str([[round(v) for v in r] for r in W]), str([round(v) for v in b])]
                 for i, (W, b) in enumerate(found["weights"])],
            ),
        ],
        {"parity": (figure, "The wired network on the integers, and where training ends.")},
    )  # fmt: skip
