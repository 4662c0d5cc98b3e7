"""The sections on affine maps: across a boundary, scaled activations, GELU's expectation, maps at centres, decoupled."""

from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.page import Section, Table

_STYLES = {"trained": "-", "untrained": "--"}


def neighbours_section(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 5.5, 3.2)
    rows = []
    for i, (state, style) in enumerate(_STYLES.items()):
        row = found[state]
        by_number = [np.mean(values) if values else np.nan for values in map(_known, row["by_number"])]
        axis.plot(found["crossed"], by_number, style, marker=".",
                  color=pictures.COLOURS[i], label=state)  # fmt: skip
        axis.axhline(np.mean(row["random"]), ls=":", color=pictures.COLOURS[i], lw=0.9, label=f"random pairs, {state}")
        rows.append(
            [state, *(str(mean(row[key], "nets")) for key in ("neighbours", "random", "ratio")), *row["by_layer"]]
        )
    axis.set(xscale="log", yscale="log", xlabel="boundaries crossed", ylabel="relative difference of the maps")
    axis.set_xticks(found["crossed"], [str(n) for n in found["crossed"]])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=7)
    layers = [f"layer {i + 1}" for i in range(found["n_hidden_layers"])]
    return Section(
        "Across a boundary",
        "A and A' are the affine maps on the two sides of one boundary. Where neuron i of layer l turns on, A' - A = "
        "(what the neuron writes to the output) (what it reads of the input)ᵀ: a matrix of rank one. The weight matrices of "
        "neighbouring polytopes differ in one row, as the source says, when each layer's gates are counted to its matrix; of "
        "the whole network's map, A, all rows may differ.\n\n"
        "The source proposes |A - A'|_F, and finds against it that it grows with the weights. Here it is divided by the "
        "maps' own size: |A - A'|_F / √((|A|²_F + |A'|²_F) / 2). This lies in 0 … 2 whatever the weights are, does not change "
        "when a layer is scaled (its biases, and those of later layers, with it), and is √2 for two unrelated maps of one norm "
        "and many entries. Random pairs are the polytopes of the two digits that a path joins. Figures are medians over "
        "boundaries, then means over nets; the layer is that of the neuron that turns.",
        [Table(["nets", "neighbours", "random pairs", "neighbours over random pairs", *layers], rows)],
        {"neighbours": (figure, "Relative difference of the maps at the ends of a walk across so many boundaries.")},
    )


def _known(values: list[float]) -> list[float]:
    return [value for value in values if value == value]  # nan: no path crosses as many


def _reciprocals(factors: list[float]) -> list[tuple[int, int]]:
    """Places of pairs f < 1 and 1/f."""
    return [
        (i, j)
        for i, small in enumerate(factors)
        for j, large in enumerate(factors)
        if small < 1 and abs(small * large - 1) < 1e-9
    ]


def scaling_section(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 3, 9, 3)
    factors = found["factors"]
    labels = {"flipped": "share of later codes flipped", "answers": "share of answers changed", "kl": "KL, nats"}
    for i, name in enumerate(("with biases", "without biases")):
        for axis, (key, label) in zip(axes, labels.items()):
            axis.plot(factors, np.mean(found[name][key], axis=1), marker=".", color=pictures.COLOURS[i], label=name)
            axis.set(xscale="log", xlabel="factor", ylabel=label)
            axis.set_xticks([0.1, 0.5, 1, 2, 10], ["0.1", "0.5", "1", "2", "10"])
            axis.minorticks_off()
    axes[0].legend(frameon=False, fontsize=7)
    own = found["with biases"]
    rows = [
        [f"{factors[i]:g} and {factors[j]:g}"]
        + [str(mean(own[key][k], "nets")) for key in ("flipped", "answers") for k in (i, j)]
        for i, j in _reciprocals(factors)
    ]
    return Section(
        "Scaling an activation: the digits nets",
        "A direction means the same at any length only as long as scaling it crosses no boundary. The first hidden layer is "
        "scaled and what follows is computed. Without biases a factor leaves every later code as it is and scales the logits. "
        "The table has, for nets with biases, factors beside their reciprocals.",
        [
            Table(
                ["factors", "flipped, made small", "flipped, made large", "answers, made small", "answers, made large"],
                rows,
            )
        ]
        if rows
        else [],
        {"scaling": (figure, "Codes and output against the factor: means over nets.")},
    )


def gate_section(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 5.5, 3)
    axis.plot(found["h"], found["q"], color=pictures.COLOURS[0], label="soft code q = gelu(h) / h")
    axis.plot(found["h"], found["slope"], color=pictures.COLOURS[1], label="slope gelu'(h)")
    relu = (np.array(found["h"]) > 0).astype(float)
    axis.plot(found["h"], relu, color="#aaaaaa", lw=0.8, ls="--", label="ReLU's code")
    axis.set(xlabel="h", ylabel="gate, slope")
    axis.legend(frameon=False, fontsize=7)
    return Section(
        "Soft codes for GELU",
        "GPT-2's activation is h times a gate q between 0 and 1: a polytope's boundary made soft. The gate is what the value "
        "is multiplied by; a small change is multiplied by the slope, which is another function and runs from "
        f"{found['slope_range'][0]:.3f} to {found['slope_range'][1]:.3f}: no probability.",
        figures={"gelu": (figure, "The gate and the slope.")},
    )


def expectation_section(found: dict[str, Any]) -> Section:
    one, layers = found["one_layer"], found["layers"]
    rows = [[f"{row['n_layers']}", row["n_codes"], row["held"], str(mean(row["followed"], "nets"))] for row in layers]
    return Section(
        "GELU's map as an expectation over codes",
        "A neuron is on with probability q, independently of the others. The affine map of each of the 2ⁿ codes of a layer of "
        f"n neurons is built, n = {one['n_codes'].bit_length() - 1}, and averaged with the codes' probabilities. For "
        "independent gates the mean of a product is the product of the means, so that the sum must be the soft code's map.\n\n"
        "Over several layers there are two readings. Held: gates of every layer have the probabilities of the network's own "
        "forward pass; the mean is then still a product of means. Followed: a layer reads what the drawn gates before it let "
        "through, and its probabilities follow from that; then the gates of two layers depend on each other. Both are summed "
        "over all codes of all layers at once. The map at an input is not its Jacobian, which has slopes for gates: relative "
        f"Frobenius difference {mean(one['slope'], 'nets')}.",
        [
            Table(
                ["layers", "codes", "held: largest difference of the output", "followed: relative difference of the output"],
                rows,
            )
        ],
    )  # fmt: skip


def centres_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3.2)
    learned, own = found["learned"], found["own"]
    for i, (kind, label) in enumerate((("maps", "maps at k-means centres, learned"), ("nets", "ReLU nets"))):
        points = [(row[kind]["n_parameters"], mean(row[kind]["accuracy"])) for row in learned]
        value = np.array([[n, e.value, e.value - e.low, e.high - e.value] for n, e in points]).T
        left.errorbar(value[0], value[1], yerr=value[2:], marker=".", color=pictures.COLOURS[i], label=label, capsize=2)
    left.set(xscale="log", xlabel="parameters", ylabel="accuracy on unseen digits")
    left.legend(frameon=False, fontsize=7)
    n = [row["n"] for row in own["rows"]]
    wrong = np.array([1 - np.mean(row["agrees"]) for row in own["rows"]])
    right.plot(n, wrong, marker=".", color=pictures.COLOURS[2], label="other answers than the net's")
    right.plot(
        n,
        [1 - np.mean(row["accuracy"]) for row in own["rows"]],
        marker=".",
        color=pictures.COLOURS[3],
        label="wrong answers",
    )
    right.axhline(1 - np.mean(own["accuracy"]), ls="--", color="#666666", lw=0.9, label="wrong answers of the net")
    right.set(xscale="log", yscale="log", xlabel="N, a net's own maps at N digits", ylabel="share of unseen digits")
    right.legend(frameon=False, fontsize=7)
    rows = [
        [str(row["n"]), row["maps"]["n_parameters"], row["maps"]["rate"], str(mean(row["maps"]["accuracy"])), row["width"],
         row["nets"]["n_parameters"], row["nets"]["rate"], str(mean(row["nets"]["accuracy"]))]
        for row in learned
    ]  # fmt: skip
    own_rows = [
        [str(row["n"]), row["n_parameters"], str(mean(row["agrees"], "nets")), str(mean(row["accuracy"], "nets"))]
        for row in own["rows"]
    ]
    keep = wrong > 0
    power = (
        f"{np.polyfit(np.log(np.array(n)[keep]), np.log(wrong[keep]), 1)[0]:.2f}" if keep.sum() > 1 else "not measured"
    )
    return Section(
        "N linear maps at N centres",
        "The nearest of N centres decides which affine map reads a digit. Learned: k-means centres of the training digits, and "
        "maps of the same loss as the nets; beside them ReLU nets of three equal hidden layers with at most as many parameters "
        "(centres are counted too); of each kind and size, with the learning rate that reads the training digits best. "
        "Own: the affine maps of a trained net at N training digits, taken for what they are; how N has to grow until they "
        "stand for the net. Slope of the line of other answers on the two logarithms: "
        f"{power}. The net has {own['n_parameters']} parameters.",
        [
            Table(
                ["N learned maps", "parameters", "rate", "accuracy", "width of the net", "its parameters", "rate", "accuracy"],
                rows,
            ),
            Table(["N own maps", "parameters", "agrees with the net", "accuracy"], own_rows),
        ],
        {"centres": (figure, "Left: accuracy by parameters, bars: 95% intervals. Right: a net's own maps, by their number.")},
    )  # fmt: skip


def decoupled_section(found: dict[str, Any]) -> Section:
    rows = [[name, str(mean(values, "nets"))] for name, values in found["accuracy"].items()]
    return Section(
        "Codes and maps taken apart",
        "A gated linear network takes its gates from the spline code of one network and its weights from another: "
        f"{found['n_units']} gates choose one of 2^{found['n_units']} linear maps. Maps anew: weights are trained from another "
        "draw, under gates that stay. One map: all gates are open, a linear network. In the last row nothing is trained "
        "anew.",
        [Table(["network", "accuracy on unseen digits"], rows)],
    )
