"""The page of features as directions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.page import Page, Section, Table


def page(numbers: Mapping[str, Any]) -> Page:
    return Page(
        "Features as directions",
        "If an activation is a sum of features times directions, features can be read by dot products: exactly when the "
        "directions are orthogonal, with interference when there are more of them than dimensions. A code need not be "
        "linear; this page puts one that is not beside one that is, and looks for one direction in a real embedding.",
        [
            _decomposition_section(numbers["decomposition"]),
            _compression_section(numbers["compression"]),
            _plurality_section(numbers["plurality"]),
        ],
    )


def _decomposition_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 7, 3)
    for i, (x, y) in enumerate(found["triangle"]):
        left.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": pictures.COLOURS[i]})
        left.annotate(f"$F_{i + 1}$", (1.12 * x, 1.12 * y), ha="center", va="center")
    left.set(aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), title="three directions in a plane")
    pictures.heat(right, found["interference"], ["1", "2", "3"], ["1", "2", "3"], digits=1, low=-1, high=1, cmap="RdBu")
    right.set(xlabel="active feature, strength 1", ylabel="read as", title="F Fᵀ: what is read")
    rows = [[name, *values] for name, values in found["errors"].items()]
    return Section(
        "Decomposability",
        f"Orthogonal features in a random basis: no neuron is a feature (mean largest |cosine| with one: "
        f"{found['neuron_cosine']:.2f}), and yet dot products with the feature directions give back every strength exactly. "
        "Three features in two dimensions: each reading is off by minus half of the others. When features are rare, and "
        "negative readings are cut off, little of that is left: this is what superposition lives on.",
        [Table(["features", "greatest error", "mean error", "mean error, negative readings cut off"], rows)],
        {"triangle": (figure, "Three features in two dimensions, and how each is read when one is active.")},
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
        [name, found["recovered"][name], found["greatest_error"][name], found["mse"][name]]
        for name in found["recovered"]
    ]
    return Section(
        "Two numbers in one: linear and not",
        "t = (floor(Z x) + y) / Z, Z = 10, keeps x to one decimal and y whole: all 100 pairs of one-decimal numbers "
        "come back. The curve is what decoding can reach as t runs from 0 to 1: it fills the square by jumping. A linear map "
        "reaches a line and keeps half of the variance. A ReLU net trained to do the same folds its curve through the square "
        "and lies between them. The price of the first: an error of 0.01 in t is one of 0.1 in y, and y ≥ 1 spills over: "
        f" (0.3, {found['over'][-1][0]}) comes back as "
        f"({found['over'][-1][1]:.1f}, {found['over'][-1][2]:.1f}).",
        [Table(["map", "of 100 pairs recovered to 0.05", "greatest error", "MSE"], rows)],
        {"compression": (figure, "What one number can be decoded to (orange), and the pairs to be kept (grey).")},
    )


def _first(ranks: list[int]) -> float:
    return float(np.mean(np.array(ranks) == 1))


def _plurality_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3.1)
    bins = np.linspace(-0.6, 0.9, 46)
    for key, label, colour in (
        ("cosine_held_out", "held-out plural pairs", 0),
        ("cosine_random_pairs", "random pairs of words", 6),
        ("cosine_null_direction", "held-out pairs, direction of random pairs", 4),
    ):
        values = np.array(found[key])
        left.hist(
            values, bins, weights=np.full(len(values), 1 / len(values)), histtype="step", color=pictures.COLOURS[colour],
            label=f"{label} ({values.mean():.2f})",
        )  # fmt: skip
    left.set(xlabel="cosine of the pair's offset with the direction", ylabel="fraction of pairs", ylim=(0, 0.3))
    left.legend(frameon=False, fontsize=7, loc="upper right")
    for key, label, colour in (("rank_with_offset", "singular + offset", 0), ("rank_without", "singular alone", 6)):
        ranks = np.sort(found[key])
        right.step(ranks, np.arange(1, len(ranks) + 1) / len(ranks), color=pictures.COLOURS[colour], label=label)
    right.set(
        xscale="log", xlabel="rank of the plural among all tokens", ylabel="fraction of pairs up to it", ylim=(0, 1)
    )
    right.legend(frameon=False, fontsize=7)
    return Section(
        f"Plurality as a direction ({found['model']})",
        f"The vocabulary has {found['n_pairs']} words that are there with an s as well. The mean offset of {found['n_fit']} "
        "of these pairs is a direction; the others are held out. Their own offsets point along it: a held-out pair is "
        f"above a random pair of words with probability {found['auc']:.3f} (½ by chance; with a direction made from random "
        f"pairs {found['auc_null_direction']:.3f}). Of all tokens, the plural is the nearest to its "
        f"singular for {_first(found['rank_without']):.0%} of the held-out pairs, to the singular plus the direction for "
        f"{_first(found['rank_with_offset']):.0%}.",
        [
            Table(["held-out pair, best", "cosine"], found["best"]),
            Table(["held-out pair, worst", "cosine"], found["worst"]),
        ],
        {"plurality": (figure, "Offsets of held-out pairs against the direction, and where it leads.")},
    )
