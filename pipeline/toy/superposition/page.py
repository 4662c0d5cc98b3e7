"""The page of the toy models of superposition: how many features fit, and in what geometry."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.superposition.geometry import STICKY


def page(numbers: Mapping[str, Any]) -> Page:
    return Page(
        "Toy models of superposition",
        "A linear map into m dimensions, a ReLU on the way back, n sparse features: how many of them does the model keep, and "
        "how does it arrange them?",
        [
            _sticky_section(numbers["sticky"], numbers["shared"]),
            _pentagon_section(numbers["pentagon"]),
            _importance_section(numbers["importance"]),
            _phase_section(numbers["phase"]),
            _pairs_section(numbers["pairs"]),
        ],
    )


def _sticky_section(found: dict[str, Any], shared: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 9, 4)
    for name, value in STICKY.items():
        axis.axhline(value, color="#cccccc", lw=1, zorder=0)
        axis.annotate(name, (1, value), xycoords=("axes fraction", "data"), fontsize=7, va="center", color="#666666")
    for p, D in zip(found["p"], found["D"]):
        jitter = np.linspace(-0.06, 0.06, len(D)) if D else []
        axis.scatter(np.exp(np.log(1 / p) + jitter), D, s=5, color=pictures.COLOURS[0], alpha=0.5, lw=0)
    axis.plot([1 / p for p in found["p"]], found["per_feature"], color=pictures.COLOURS[1], lw=1, label="D* = m / |W|²")
    axis.set(
        xscale="log", xlabel="1 / p, one over the probability that a feature is active", ylabel="D", ylim=(0, 1.05)
    )
    axis.set_xticks([1, 2, 5, 10, 20, 30], ["1", "2", "5", "10", "20", "30"])
    axis.minorticks_off()
    axis.legend(frameon=False, loc="upper center")
    rows = [
        [f"{p:g}", star, n, float(np.median(D)) if D else None, D[0] if D else None, D[-1] if D else None, total]
        for p, star, n, D, total in zip(
            found["p"], found["per_feature"], found["represented"], found["D"], found["total_dimensions"]
        )
    ]
    return Section(
        f"Dimensions per feature, {found['n']} features in {found['m']} dimensions",
        "Each point is a feature with norm above 1/2, placed at its dimensionality D: the share of a dimension that it has "
        "for itself. Grey lines: the D of regular polytopes, m / n for n features in m dimensions. All features are of equal "
        "importance. The picture and the first table have one instance of each p; the second table has several instances of "
        f"two values of p, and the share of their features with D within {shared['within']:g} of one polytope's.",
        [
            Table(["p", "D*", "represented", "median D", "least", "greatest", "Σ D"], rows),
            Table(
                ["p", "D of the polytope", "share of features near it"],
                [
                    [f"{p:g}", f"{D:g}", str(mean(near, "instances"))]
                    for p, D, near in zip(shared["p"], shared["D"], shared["near"], strict=True)
                ],
            ),
        ],
        {"sticky": (figure, "D of every represented feature against sparsity; lines: polytopes.")},
    )


def _pentagon_section(found: dict[str, Any]) -> Section:
    best = int(np.argmin(found["loss"]))
    figure, (left, middle, right) = pictures.axes(1, 3, 10, 3.1)
    W = np.array(found["W"][best])
    for x, y in W.T:
        left.plot([0, x], [0, y], color=pictures.COLOURS[0], marker="o", ms=4, markevery=[1])
    left.set(aspect="equal", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), title="columns of W, best instance")
    D = np.array(found["D_over_training"])
    middle.plot(found["steps"], D, lw=1.2)
    middle.axhline(0.4, color="#cccccc", zorder=0)
    middle.set(xlabel="step", ylabel="D", ylim=(0, 1.05), title="its features over training")
    for i, losses in enumerate(np.array(found["loss_over_training"]).T):
        smooth = np.convolve(losses, np.ones(5) / 5, mode="valid")
        right.plot(found["steps"][2:-2], smooth, lw=0.8, color=pictures.COLOURS[i % 8])
    right.set(yscale="log", xlabel="step", ylabel="loss", title="loss of ten instances")
    D_last = np.array(found["D"])[best]
    return Section(
        "Five features in two dimensions, over training",
        f"In a pentagon every D is 2/5. p = {found['p']}; {len(found['D'])} instances, D of the best: {D_last.min():.3f} to "
        f"{D_last.max():.3f}.",
        figures={"pentagon": (figure, "The pentagon, and how training finds it.")},
    )


def _importance_section(found: dict[str, Any]) -> Section:
    n = len(found["p"])
    figure, axes = pictures.axes(2, n, 10, 4)
    for j, p in enumerate(found["p"]):
        image = axes[0][j].imshow(np.array(found["gram"][j]), cmap="RdBu", vmin=-1, vmax=1)
        axes[0][j].set(title=f"p = {p:g}", xticks=[], yticks=[])
        axes[1][j].bar(range(len(found["norm"][j])), found["norm"][j], color=pictures.COLOURS[0])
        axes[1][j].axhline(0.5, color="#999999", lw=0.8)
        axes[1][j].set(ylim=(0, 1.3), xlabel="feature")
    figure.colorbar(image, ax=axes[0], shrink=0.8)
    axes[0][0].set_ylabel("WᵀW")
    axes[1][0].set_ylabel("|W_i|")
    return Section(
        "Twenty features of falling importance in five dimensions",
        "Importance falls as 0.7^i. A feature counts as kept when its column of W is longer than 1/2; colours off the "
        "diagonal are interference.",
        [
            Table(
                ["p", "features with norm > 1/2", "of those within 5% of its loss"],
                [
                    [f"{p:g}", k, f"{least} to {most}" if least < most else str(most)]
                    for p, k, (least, most) in zip(found["p"], found["represented"], found["close"], strict=True)
                ],
            )
        ],
        {"importance": (figure, "WᵀW and the norms of the features, from dense to sparse.")},
    )


def _phase_section(found: dict[str, Any]) -> Section:
    from matplotlib.colors import ListedColormap

    figure, (left, right) = pictures.axes(1, 2, 9, 3.8)
    colours = ListedColormap([pictures.COLOURS[5], pictures.COLOURS[4], pictures.COLOURS[2]])
    p, weight = np.array(found["p"]), np.array(found["importance"])
    for axis, key in ((left, "theory"), (right, "trained")):
        axis.pcolormesh(weight, p, np.array(found[key]), cmap=colours, vmin=0, vmax=2, shading="nearest")
        curve = weight[weight <= 1]
        axis.plot(curve, 4 * curve / (2 + 5 * curve), color="black", lw=1)
        axis.set(xscale="log", yscale="log", xlabel="importance of the second feature", title=key, ylim=(p[0], p[-1]))
    left.set_ylabel("p")
    unclear = ~np.array(found["clear"])
    rows, columns = np.nonzero(unclear)
    right.scatter(weight[columns], p[rows], marker="x", s=10, color="black", lw=0.7)
    for i, name in enumerate(("first alone", "second alone", "antipodal pair")):
        left.scatter([], [], marker="s", color=colours(i / 2), label=name)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return Section(
        "Two features in one dimension: theory against training",
        "Three ways to use one dimension, and their losses in closed form: keep the first, loss I (p/3 - p²/4); keep the "
        "second, p/3 - p²/4; keep both as opposites, (1 + I) p²/6. Up to I = 1 the pair wins below p = 4I / (2 + 5I), the "
        f"black line. The best of several trained instances agrees in {found['agreement']:.0%} of the {found['n_clear']} cells "
        f"where the two best losses differ by more than a tenth ({found['agreement_all']:.0%} of all; crosses: too close to "
        "call).",
        figures={"phase": (figure, "What wins, by theory (left) and by training (right).")},
    )


def _pairs_section(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(2, 3, 9, 4.6)
    rows = []
    for j, (name, row) in enumerate(found.items()):
        for i, (x, y) in enumerate(np.array(row["W"]).T):
            axes[0][j].plot([0, x], [0, y], color=pictures.COLOURS[i // 2], marker="o", ms=4, markevery=[1])
        axes[0][j].set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), title=name, xticks=[], yticks=[])
        cosine = np.array(row["cosine"])
        axes[1][j].hist(cosine, bins=np.linspace(-1.05, 1.05, 22), color=pictures.COLOURS[6])
        axes[1][j].set(xlabel="cosine within a pair", xlim=(-1.1, 1.1))
        every = np.array(row["cosine_of_all"])
        rows.append(
            [name, *(float(x.mean()) for x in (abs(cosine) < 0.2, cosine < -0.8, abs(every) < 0.2, every < -0.8))]
        )
    axes[1][0].set_ylabel("pairs")
    return Section(
        "Features that come together, and features that exclude each other",
        "Four features in two dimensions, in two pairs (colours), the best of twelve instances each time. The features of a "
        "pair are active independently, always together, or never together. The independent ones are the control. The last "
        "two columns count all instances, not only the best ones.",
        [
            Table(
                [
                    "pairs are",
                    "orthogonal (|cos| < .2)",
                    "antipodal (cos < -.8)",
                    "orthogonal, all instances",
                    "antipodal, all instances",
                ],
                rows,
            )
        ],
        {"pairs": (figure, "One instance of each kind, and the cosine within the pairs of the best instances.")},
    )
