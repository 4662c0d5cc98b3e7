"""The page of features as directions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, shown
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.representations.intensity import CODES
from pipeline.toy.representations.language_page import neurons_section, relations_section
from pipeline.toy.representations.networks_page import qualities_section, regimes_section, sizes_section


def page(numbers: Mapping[str, Any]) -> Page:
    return Page(
        "Features as directions",
        "An activation may be a sum of features times directions. Then features are read by dot products. A code need not be "
        "linear: this page puts one that is not beside one that is, asks what networks choose and what they compute on each, "
        "and looks for directions in a small language model.",
        [
            _decomposition_section(numbers["decomposition"]),
            _rows_section(numbers["rows"]),
            qualities_section(numbers["qualities"], numbers["memorised"]),
            _intensity_section(numbers["intensity"]),
            _compression_section(numbers["compression"]),
            sizes_section(numbers["by_hand"], numbers["sizes"]),
            regimes_section(numbers["regimes"]),
            relations_section(numbers["relations"]),
            neurons_section(numbers["neurons"]),
        ],
    )


def _decomposition_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 7, 3)
    for i, (x, y) in enumerate(found["triangle"]):
        left.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": pictures.COLOURS[i]})
        left.annotate(f"$F_{i + 1}$", (1.12 * x, 1.12 * y), ha="center", va="center")
    left.set(aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), title="three directions in a plane")
    pictures.heat(right, found["interference"], ["1", "2", "3"], ["1", "2", "3"], digits=1, low=-1, high=1, cmap="RdBu")
    figure.colorbar(right.images[0], ax=right, label="strength")
    right.set(xlabel="active feature, strength 1", ylabel="read as", title="F Fᵀ: what is read")
    rows = [[name, *values] for name, values in found["errors"].items()]
    return Section(
        "Decomposability",
        "Features with directions F (rows of length 1) and strengths z, uniform in [0, 1) and active with probability p, make "
        "the activation x = z F; dot products x Fᵀ read them. Orthogonal: as many random orthogonal directions as dimensions; "
        f"the largest |cosine| of a feature with a neuron is {mean(found['neuron_cosine'], 'features')}. Triangle: three "
        "features in two dimensions, each reading off by minus half of the others (right).\n\n"
        f"Three random directions of a plane: the largest |cosine| of a pair is {mean(found['drawn_cosine'], 'draws')}; the "
        f"best linear read-out loses {mean(found['drawn_lost'], 'draws')} of the variance.",
        [Table(["features", "greatest error", "mean error", "mean error, negative readings cut off"], rows)],
        {"triangle": (figure, "Three features in two dimensions, and how each is read when one is active.")},
    )


def _rows_section(found: dict[str, Any]) -> Section:
    rows = [
        [task, *(str(mean(values[key])) for key in ("row_cosine", "written_cosine"))] for task, values in found.items()
    ]
    return Section(
        "Where a layer keeps its features",
        "A linear layer y = W x learns, by gradient descent, to write the strengths of orthogonal features in x. Once each "
        "output is one feature (a neuron each); once the features are to come out along given orthogonal directions.\n\n"
        "Row i of W is what output i reads of x. The direction that feature f gets in the output is W f. The source says that "
        "features are the rows; in its example, W = I, rows, columns and directions are the same vectors.",
        [
            Table(
                ["task", "|cosine| of a feature and the nearest row", "cosine of W f and the direction asked for"], rows
            )
        ],
    )


def _intensity_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3.3)
    for i, code in enumerate(CODES[1:]):
        colour = pictures.COLOURS[i]
        left.plot(found["k"], found["closed"][code], color=colour, lw=1, label=f"{code}, best possible")
        k = sorted(found["trained"][code], key=int)
        means = [mean(found["trained"][code][n]) for n in k]
        low, high = ([abs(getattr(m, side) - m.value) for m in means] for side in ("low", "high"))
        left.errorbar(
            [int(n) for n in k], [m.value for m in means], [low, high], color=colour, ls="", marker="o", ms=4, capsize=2,
            label=f"{code}, trained: mean, 95%",
        )  # fmt: skip
    length = mean(found["trained"]["length"]["1"])
    left.plot([1], [length.value], ls="", marker="s", color=pictures.COLOURS[2], label="length, trained")
    left.set(yscale="log", xlabel="dimensions for one quality", ylabel="variance of the strength that is lost")
    left.legend(frameon=False, fontsize=7)
    for code, colour in (("length", 2), ("binary", 0)):
        right.plot(
            found["noise"], found["in_noise"][code], marker="o", ms=3, color=pictures.COLOURS[colour], label=code
        )
    right.set(
        xlabel="noise: standard deviation, part of the code's range", ylabel="variance lost, one dimension", ylim=(0, 1)
    )
    right.legend(frameon=False)
    width = found["width"]
    rows = [[code, *(f"{k} ({width // k})" for k in found["dimensions"][code].values())] for code in CODES]
    table = [
        [f"{code}, {k}", str(mean(values)), min(values), found["closed"][code][int(k) - 1]]
        for code, sizes in found["trained"].items()
        for k, values in sizes.items()
    ]
    return Section(
        "The strength of a quality: a length, binary units, or ranges",
        "One quality with a strength uniform in [0, 1]. As a length: one direction, scaled. Binary: k units, on or off, "
        "2^k states. Ranges: k directions of which one is on. n states that cut the range evenly lose 1/n² of the strength's "
        "variance, a length nothing. The source's own binary example, “red is not zero”, has one state for nearly all "
        "strengths, and loses all.\n\n"
        "Left: the best possible, and trained encoders with a linear read-out. Right: one dimension with Gaussian noise, read "
        "by the posterior mean.",
        [
            Table(
                [
                    f"dimensions for a root mean squared error of … of the range (qualities that fit into {width})",
                    *found["dimensions"]["length"],
                ],
                rows,
            ),
            Table(["code, dimensions", "variance lost, trained", "least", "best possible"], table),
        ],
        {"intensity": (figure, "What codes of one quality lose, without noise by their size, and with noise.")},
    )


def _compression_section(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 3, 9, 3.2)
    grid = np.array([[i / 10, j / 10] for i in range(10) for j in range(10)])
    for axis, (name, curve) in zip(axes, found["curves"].items()):
        points = np.array(curve)
        breaks = (np.abs(np.diff(points[:, 1])) > 0.5) & (len(points) > 2)
        for piece in np.split(points, np.nonzero(breaks)[0] + 1):
            axis.plot(piece[:, 0], piece[:, 1], color=pictures.COLOURS[1], lw=1)
        axis.scatter(grid[:, 0], grid[:, 1], s=4, color=pictures.COLOURS[6])
        axis.set(aspect="equal", xlim=(-0.08, 1.05), ylim=(-0.08, 1.05), title=name, xlabel="x")
    axes[0].set_ylabel("y")
    rows = [
        [name, *(str(mean(found[key][name], "nets")) if len(found[key][name]) > 1 else shown(found[key][name][0])
                 for key in ("recovered", "greatest_error", "mse"))]
        for name in found["recovered"]
    ]  # fmt: skip
    y, x_back, y_back = found["over"][-1]
    came_back = [[decimals, f"10^{decimals}", f"{k} of {of}"] for decimals, (k, of) in found["came_back"].items()]
    return Section(
        "Two numbers in one",
        "t = (floor(Z x) + y) / Z. The source's example has Z = 10 and numbers of one decimal. There floor(Z x) = Z x, so "
        f"that t = x + y / Z, a linear map (greatest difference: {shown(found['code_is_linear_by'])}); what is not linear is "
        "its decoding. For x between the steps the code itself is not linear, and of x only the steps come back. y must be "
        f"less than 1: (0.3, {y:g}) comes back as ({x_back:.1f}, {y_back:.1f}).\n\n"
        "The curve is what a decoder can reach as its one number grows. ReLU nets, d: nets 2 → d → 2 with two hidden layers on "
        "each side, trained on uniform pairs. R² of their code as a linear function of x and y: d = 1: "
        f"{mean(found['linear_r2']['1'], 'nets')}, d = 2: {mean(found['linear_r2']['2'], 'nets')}.\n\n"
        "The second table does the source's own arithmetic, in floats and with its rounding; with more decimals Z x may fall "
        "below a whole number that it should reach (100 · 0.29 is 28.999…).",
        [
            Table(["map", "of 100 pairs recovered to .05", "greatest error", "mean squared error"], rows),
            Table(["decimals", "Z", "pairs that come back"], came_back),
        ],
        {"compression": (figure, "What one number can be decoded to (orange), and the pairs to be kept (grey).")},
    )
