"""The page of the small functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import rate
from pipeline.toy.functions.minimum import FORMS
from pipeline.toy.functions.parity import LINEAR, SOURCE
from pipeline.toy.page import Page, Section, Table


def page(numbers: Mapping[str, Any]) -> Page:
    variants = {**numbers["minimum_decay"], **numbers["minimum_width"], **numbers["minimum_rate"]}
    ways = {**numbers["parity_source"], **numbers["parity_learning"], **numbers["parity_wide"]}
    return Page(
        "How small networks compute simple functions",
        "Three functions that have an exact small network: x < 10 (up to sharpness), min(a, b), and parity. Each is wired by "
        "hand, and trained from many seeds. Does training find the same network?",
        [
            _threshold_section(numbers["threshold"]),
            _minimum_section(numbers["minimum"]),
            _variants_section(numbers["minimum"], variants),
            _square_section(numbers["square"]),
            _parity_section(numbers["parity"]),
            _ways_section(ways),
        ],
    )


def _threshold_section(found: dict[str, Any]) -> Section:
    figure, (left, middle, right) = pictures.axes(1, 3, 10, 3.1)
    for (name, rows), colour, dash in zip(found["trained"].items(), pictures.COLOURS, ("-", ":", "--"), strict=False):
        step, M, at, loss, _ = np.array(rows).T
        for axis, y in ((left, M), (middle, at), (right, loss)):
            axis.plot(step, y, dash, color=colour, label=name)
    steps, M = np.array(found["trained"]["gradient flow"])[:, :2].T
    left.plot(
        steps, M[-1] + 2 * np.log(steps / steps[-1]), color="#bbbbbb", lw=1, zorder=0, label="slope 2 per factor e"
    )
    left.set(xscale="log", xlabel="steps", ylabel="M = |w|", ylim=(0, None), title="sharpness")
    middle.axhline(9.5, color="#bbbbbb", lw=1, zorder=0)
    middle.set(xscale="log", xlabel="steps", ylabel="threshold -b/w", ylim=(8, 10.5), title="threshold; line: 9.5")
    right.set(xscale="log", yscale="log", xlabel="steps", ylabel="logistic loss", title="loss")
    left.legend(frameon=False, fontsize=7)
    step, M, at = found["on_0_to_39"]
    ends = [[name, f"{rows[-1][0]:g}", *rows[-1][1:4]] for name, rows in found["trained"].items()]
    return Section(
        "x < 10: one neuron",
        "sigmoid(M (10 - x)) is learned on the integers -20 … 39 under the logistic loss. At x = 10 it is ½, however "
        "sharp: the table "
        "has the greatest error on the integers with the threshold at 10 and at 9.5. Gradient flow is gradient descent with "
        "infinitely small steps, put at the number of steps that would take as long; it shows where descent goes later.\n\n"
        "The source explains a loss that is not 0 by the jump of the function at 10. On integers there is no jump to follow; "
        "the loss is not 0 because the sigmoid is never 0 or 1. Of one neuron of sharpness M it is at least 2 log(1 + "
        "exp(-M/2)) / 60.\n\n"
        f"On 0 … 39 instead, gradient descent of {step:g} steps ends at M = {M:.3g} and a threshold of {at:.4g}.",
        [
            Table(["sharpness M", "greatest error, threshold 10", "threshold 9.5"], [[str(m), *e] for m, *e in found["wired"]]),
            Table(["trained by", "steps", "M", "threshold -b/w", "loss"], ends),
        ],
        {"threshold": (figure, "Sharpness, threshold and loss of the neuron against steps of training.")},
    )  # fmt: skip


def _histogram(axis: Any, lambdas: Sequence[float], title: str) -> None:
    axis.hist(np.clip(lambdas, -0.2, 1.2), bins=np.linspace(-0.225, 1.225, 30), color=pictures.COLOURS[0])
    axis.set(xlabel="λ", title=title, xlim=(-0.25, 1.25))


def _minimum_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 2.9)
    sides = [
        [v for v, same in zip(found["lambda"], found["same_side"], strict=True) if same == side] for side in (1, 0)
    ]
    left.hist(
        sides, bins=np.linspace(-0.225, 1.225, 30).tolist(), stacked=True, color=pictures.COLOURS[:2],
        label=["both units begin on one side of a = b", "on opposite sides"],
    )  # fmt: skip
    left.set(xlabel="λ of the nets that solve it", ylabel="seeds", xlim=(-0.25, 1.25))
    left.legend(frameon=False, fontsize=7)
    error = np.array(found["error"])
    right.hist(np.log10(np.maximum(error, 1e-5)), bins=30, color=pictures.COLOURS[6])
    right.axvline(np.log10(0.5), color=pictures.COLOURS[1], lw=1)
    right.set(xlabel="log10 of the largest error over all pairs (line: ½)", ylabel="seeds")
    rows = [
        [one["form"], one["lambda"], *(_row(unit) for unit in one["hidden"]), _row(one["output"])]
        for one in found["examples"]
    ]
    exact = [[f"{lam:g}", error, n] for lam, error, n in found["exact"]]
    forms = [[name, found["forms"][name], str(rate(found["forms"][name], found["solved"], "solved"))] for name in FORMS]
    return Section(
        "min(a, b): the source's net",
        "Two hidden ReLUs of (a, b), and an output that reads a, b and both: 1,000 pairs of integers in -50 … 49, 300 "
        "epochs of "
        "batches of 32, Adam at a rate of .01 (the source states neither). A net solves it when its largest error over all "
        "10,000 pairs is below ½: right when rounded.\n\n"
        "For every λ, λ (a - ReLU(a - b)) + (1 - λ) (b - ReLU(b - a)) is min(a, b): λ = 1 is the source's short form, 0 its "
        "mirror, ½ Equation 1. So the function does not tell λ. It is read from the weights: the part of the bend along "
        "a = b "
        "that lies in units that are on where a > b. A form counts as reached within .05 of its λ; beyond means below 0 or "
        "above 1.",
        [
            Table(["form", "seeds", "share of those that solve it"], forms),
            Table(["best net of the form", "λ", "unit 1: a, b, bias", "unit 2", "output: a, b, units, bias"], rows),
            Table(["wired form, λ", "largest error on all pairs", "ReLUs in use"], exact),
        ],
        {"minimum": (figure, "λ of the nets that solve it, and the largest errors of all nets.")},
    )  # fmt: skip


def _row(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


def _variants_section(source: dict[str, Any], variants: dict[str, Any]) -> Section:
    every = {"as above": source, **variants}
    columns = 5
    n_rows = -(-len(every) // columns)
    figure, axes = pictures.axes(n_rows, columns, 10, 1.9 * n_rows)
    for axis in axes.flat[len(every) :]:
        axis.set_visible(False)
    rows = []
    for axis, (name, found) in zip(axes.flat, every.items(), strict=False):
        _histogram(axis, found["lambda"], name)
        solved = found["solved"]
        rows.append(
            [
                name,
                str(rate(solved, found["n"])),
                *(f"{found['forms'][form] / solved:.0%}" if solved else "" for form in FORMS),
                found["one_used"],
                found["printed"],
            ]
        )
    axes.flat[0].set_ylabel("seeds")
    return Section(
        "min(a, b): weight decay, width, rate",
        "Each net differs from the source's by what its name says. Of the nets that solve it: their forms; how many use one "
        "unit alone (no other moves the output by .05); and how many are as the source prints its net, all weights of all "
        "units but one 0.00 in two decimals. With more units than two, λ is the sum over all units on one side. L2 adds the "
        "weights to the gradient before Adam scales it; AdamW shrinks the weights apart from it.",
        [Table(["net", "solve it", *FORMS, "one used", "as printed"], rows)],
        {"variants": (figure, "λ of the nets that solve it; values beyond -.2 … 1.2 are put at these ends.")},
    )


def _square_section(found: dict[str, Any]) -> Section:
    weights = found["weights"]
    rows = [
        [f"hidden {i + 1}" + (", bends" if i == found["bends"] else ""), *W, b, v]
        for i, (W, b, v) in enumerate(zip(weights["W"], weights["b"], weights["v"], strict=True))
    ]
    rows.append(["output", None, None, weights["c"][0], None])
    return Section(
        "min(a, b) without the skip",
        "The output reads the two hidden units only, trained on the unit square. a - ReLU(a - b) then takes a second "
        "unit that is "
        "on all over the square and carries a past the layer. A net solves it when its mean squared error is below 1e-5: "
        f"{rate(found['solved'], found['n'])}. Of these, {rate(found['carries'], found['solved'], 'solved seeds')} have one "
        "unit that bends along a = b and one that is on all over the square. The first table has the net of the least error; "
        "the second the greatest errors of the formulas, and of the nets that solve it (the median over nets), on the square "
        "and beyond it.",
        [
            Table(["best net", "weight of a", "weight of b", "bias", "output weight"], rows),
            Table(["greatest error on", "½ (a + b - |a - b|)", "a - ReLU(a - b)", "trained"], found["errors"]),
        ],
    )


def _parity_section(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 9, 2.8)
    x, out = np.array(found["x"]), np.array(found["out"])
    right = np.abs(out - x % 2) < 1e-9
    axis.axvspan(-0.5, 15.5, color="#eeeeee")
    axis.plot(x, out, color=pictures.COLOURS[6], lw=0.7)
    for which, colour, label in ((right, 2, "x mod 2"), (~right, 1, "another number")):
        axis.scatter(x[which], out[which], color=pictures.COLOURS[colour], s=14, zorder=3, label=label)
    axis.set(xlabel="x", ylabel="output", title="five folds at 8, 4, 2, 1, 1; grey: the range 0 … 15")
    axis.legend(frameon=False, fontsize=7)
    first, last = found["exact"]
    told = " and ".join(str(most) for _, most in found["told"])
    table = [
        [
            str(r["n"]),
            2 ** r["n"],
            r["relus"],
            r["right"],
            r["n"],
            r["chain_right"],
            r["chain_pieces"],
            r["random_pieces"],
        ]
        for r in found["table"]
    ]
    columns = [
        "n", "integers 2ⁿ", "article's net: ReLUs", "integers right", "with skips: ReLUs", "integers right", "its pieces",
        "most pieces of random nets",
    ]  # fmt: skip
    return Section(
        "Parity: folding the line",
        "|x - 8| maps the integers above 8 onto those below and keeps their parity; folding again at 4, 2, 1, 1 leaves x "
        "mod 2. "
        f"The network has {found['n_parameters']} parameters and is right on the integers from {first} to {last}.\n\n"
        "The article counts |x - i| as one neuron. It takes two ReLUs, |x - i| = ReLU(i - x) + ReLU(x - i), so its net "
        "for 2⁴ "
        "integers has 11 ReLUs, not 6. Where a unit may also read x and all units before it, |u| = 2 ReLU(u) - u folds "
        "with one "
        "ReLU: folds at 2ⁿ⁻¹ - 1, then 2ⁿ⁻², …, 2, 1 take n. Each further ReLU at most doubles the pieces of a function "
        "of one "
        "number; parity on 2ⁿ integers crosses ½ 2ⁿ - 1 times, and a piece crosses it once at most, so fewer than n ReLUs "
        "cannot do it. A single hidden layer has one more piece per ReLU and takes 2ⁿ - 2 of them. The article's own proof "
        "is another one, by induction: it drops a neuron of the first layer where that is off, or wires x past it where it "
        f"is on. For one ReLU and two, linear programs go through all weights (with skips): they tell {told} consecutive "
        "integers at most.",
        [
            Table(columns, table),
            Table(
                ["layer", "weights, a row each unit", "biases"],
                [[str(i + 1), str([[round(v) for v in r] for r in W]), str([round(v) for v in b])]
                 for i, (W, b) in enumerate(found["weights"])],
            ),
        ],
        {"parity": (figure, "The wired network on the integers.")},
    )  # fmt: skip


def _ways_section(ways: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 2, 9, 2.6)
    bins = np.linspace(0, 0.55, 56).tolist()
    for axis, name in zip(axes, (SOURCE, LINEAR), strict=True):
        axis.hist(ways[name]["error"], bins=bins, color=pictures.COLOURS[0])
        axis.set(xlabel="mean squared error at the end", title=name)
    axes[0].set_ylabel("seeds")
    rows = [
        [
            name,
            str(rate(sum(way["right"]), len(way["right"]))),
            sum(way["right_before"]),
            sum(abs(e - 0.25) <= 0.01 for e in way["error"]),
            sum(abs(e - 0.5) <= 0.01 for e in way["error"]),
            sum(way["constant"]),
            float(np.median(way["error"])),
            float(np.min(way["error"])),
        ]
        for name, way in ways.items()
    ]
    return Section(
        "Parity: trained on 0 … 15",
        "The same net from random weights, with the ReLU after the output as in the article, and without it. A constant "
        "½ has an "
        "error of .25, a constant 0 one of .5. Then other ways to train the net without that ReLU: "
        "SGD with momentum .9 for Adam; noise of .01 on all weights before each step, falling to 0; the integers 0 … 3, "
        "then 0 … 7, then all; the input (x - 7.5) / 8; the sine for the ReLU; a beginning near the wired weights; eight "
        "units in each of the five layers. These change one thing each. The nets of three layers of 32 change at least "
        "three: the number of layers, their width, and Adam's rate, .003 instead of .01; and what else their names say. A run "
        "solves it when all 16 are right, rounded; the table has how many are so before training, too.",
        [
            Table(
                ["way", "solve it", "before training", "at .25", "at .5", "constant", "median error", "least error"],
                rows,
            )
        ],
        {"ways": (figure, "Where training ends, with and without a ReLU after the output.")},
    )
