"""The page of the known layer: the features, the axes of rotations and the latents of dictionaries beside each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, rate
from pipeline.toy.known_layer.dictionaries import FAMILIES
from pipeline.toy.known_layer.recovery import FOUND
from pipeline.toy.known_layer.sharing_page import almost_section, sharing_section
from pipeline.toy.page import Page, Section, Table

_NAMES = {
    "jacobian, in": "rotation, sparse Jacobians: input side",
    "jacobian, out": "rotation, sparse Jacobians: output side",
    "quartimax": "rotation, sparse activations (L4)",
    "ica": "ICA",
    "pca": "PCA",
    "neurons": "the neurons' axes",
    "truth": "best one-to-one rotation, truth in hand",
}


def page(numbers: Mapping[str, Any]) -> Page:
    layer = numbers["in_superposition"]
    n, d = layer["n_features"], layer["d"]
    return Page(
        "A layer that is known to be in superposition",
        f"Does a hand-constructed example of a layer in superposition exist whose features are known, so that one sees "
        f"whether there is a robust way to disentangle it? The discussion of Baker 2022 asks for one. Here {n} features lie "
        f"in {d} dimensions. Rotations that make the layer's Jacobians sparse and sparse dictionaries of its input are "
        "scored against the features. Further: two exclusive features in one number, and when sharing pays. There are no "
        "transcoders in this project yet, so no dictionary maps the input to the output.",
        [
            _layer_section(layer, numbers["control"]),
            _methods_section(numbers),
            _look_section(numbers),
            _one_dimension_section(numbers["one_dimension"]),
            sharing_section(numbers["shared"]),
            almost_section(numbers["shared"]["almost"]),
        ],
    )


def _layer_section(layer: dict[str, Any], control: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 4, 10.5, 2.8)
    for pair, found, title in ((axes[:2], control, "orthogonal"), (axes[2:], layer, "in superposition")):
        top = max(float(np.max(found["example"][key])) for key in ("before", "after"))
        for axis, key, name in zip(pair, ("before", "after"), ("neurons", "rotated"), strict=True):
            image = axis.imshow(np.array(found["example"][key]), vmin=0, vmax=top, cmap="viridis")
            axis.set(title=f"{title}: {name}", xlabel="input axis", ylabel="output axis" if axis is axes[0] else "")
            figure.colorbar(image, ax=axis, shrink=0.7)
    rows = [
        [f"{title}, {name}", *(str(mean(values[key])) for key in ("log", "mass_in_1%"))]
        for title, found in (("orthogonal", control), ("in superposition", layer))
        for name, values in found["sparsity"].items()
    ]
    return Section(
        f"The layer: {layer['n_features']} features in {layer['d']} dimensions",
        "x = Σ sᵢ Fᵢ, a = ReLU(F x - μ) / (1 - μ), y = Σ aᵢ Gᵢ: the layer reads each feature through a ReLU of its own and "
        "writes it on in another direction. The rows of F and G are unit vectors that are packed as far apart as they go: the "
        f"largest cosine of two features, μ, is {np.min(layer['mu']):.3f} to {np.max(layer['mu']):.3f}, the smallest "
        f"{np.min(layer['opposite']):.2f} to {np.max(layer['opposite']):.2f}. A strength is 0, or uniform in [½, 1]; a feature "
        "that is active alone is read exactly, several at once interfere. The control has as many features as dimensions, at "
        "right angles, off the axes of the neurons, and as many features active on average.\n\n"
        "The rotation of both sides makes the Jacobian ∂y/∂x sparse on average over inputs in which a feature is active; the "
        "table has held-out inputs, each input's Jacobian in units of its root mean square. The measure log(1 + (J/ε)²), ε = "
        ".1, is lower where more entries are 0; of 64 entries, the largest 1% is one.",
        [Table(["held-out Jacobians", "log(1 + (J/ε)²)", "share of J² in the largest entry"], rows)],
        {"jacobians": (figure, "Mean |∂y/∂x| of the first layer of each kind, in units of the root mean square of J.")},
    )


def _methods_section(numbers: Mapping[str, Any]) -> Section:
    columns = ("mmcs", "floor_mmcs", "found", "floor_found", "matched", "back_mmcs", "floor_back_mmcs", "back_found")
    found = [
        (f"{name}{title}", numbers[part]["recovery"][key])
        for part, title in (("in_superposition", ""), ("control", "; orthogonal features"))
        for key, name in _NAMES.items()
    ]
    learned = [(f"{name}, {numbers[name]['d_sae']} latents", numbers[name]["rows"]) for name in FAMILIES]
    n_super = len(_NAMES)
    ordered = [*found[:n_super], *learned, *found[n_super:]]
    table = [[name, *(float(np.mean(rows[key])) for key in columns)] for name, rows in ordered]
    latents = [
        [name, *(str(mean(numbers[name]["rows"][key])) for key in ("live", "l0", "true_l0", "fvu"))]
        for name in FAMILIES
    ]
    d, n = numbers["in_superposition"]["d"], numbers["in_superposition"]["n_features"]
    return Section(
        "What is found",
        f"A feature is found when some direction has a cosine above {FOUND:g} with it; an axis of a rotation stands for both "
        "of its ends, a latent for one. MMCS: the mean of each feature's greatest cosine, and back, of each direction's; "
        "floors: of as many random directions (for rotations, of a random rotation). One to one: the largest share of "
        f"the features that have directions of their own. {d} orthogonal axes can have at most {d} of {n} features one to one, "
        f"{d / n:.0%}. The best rotation is matched to the features themselves, in turns of Hungarian matching and Procrustes, "
        "the best of 60 starts: a lower bound of what any rotation can do. Dictionaries: dead latents are left out.",
        [
            Table(
                [
                    "",
                    "MMCS",
                    "floor",
                    "found",
                    "floor",
                    "one to one",
                    "MMCS back",
                    "floor",
                    "directions that are a feature",
                ],
                table,
            ),
            Table(["", "live latents", "active latents", "active features", "FVU"], latents),
        ],
        {
            "found": (
                _found_figure(ordered),
                "Share of the features that are found. A point is a layer, the bar the mean; grey: of random directions.",
            )
        },
    )


def _found_figure(ordered: list[tuple[str, Any]]) -> Any:
    figure, axis = pictures.axes(1, 1, 9, 0.26 * len(ordered) + 0.8)
    rng = np.random.default_rng(0)
    for i, (_, rows) in enumerate(ordered):
        shares = np.array(rows["found"])
        axis.scatter(
            shares, i + rng.uniform(-0.25, 0.25, len(shares)), s=6, alpha=0.35, lw=0, color=pictures.COLOURS[0]
        )
        for value, colour in ((shares.mean(), pictures.COLOURS[1]), (np.mean(rows["floor_found"]), "#999999")):
            axis.plot([value, value], [i - 0.38, i + 0.38], color=colour, lw=2)
    axis.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize=7)
    axis.invert_yaxis()
    axis.set(xlabel=f"share of features found (cosine > {FOUND:g})", xlim=(-0.03, 1.03))
    return figure


def _look_section(numbers: Mapping[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 10, 4.2)
    axes_cosine = np.array(numbers["in_superposition"]["example"]["cosine"])
    order = np.abs(axes_cosine).argmax(1).argsort()
    for axis, values, title, label in (
        (left, axes_cosine[order], "axes of the Jacobian's rotation", "axis"),
        (right, np.array(numbers["topk"]["example"]), "live latents of topk", "latent"),
    ):
        image = axis.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axis.set(title=title, xlabel="feature", ylabel=label, xticks=range(0, values.shape[1], 5))
        figure.colorbar(image, ax=axis, label="cosine", shrink=0.8)
    other, axis = pictures.axes(1, 1, 8, 2.8)
    bins = np.linspace(0, 1, 41)
    for i, name in enumerate(FAMILIES):
        axis.hist(numbers[name]["mcs"], bins, histtype="step", density=True, color=pictures.COLOURS[i], label=name)
    axis.axvline(FOUND, color="#999999", lw=0.8)
    axis.set(xlabel="greatest cosine of a feature with any live latent", ylabel="density of features")
    axis.legend(frameon=False, loc="upper left")
    return Section(
        "Axes and latents beside the features",
        "The first layer. Rows are ordered by the feature that they have the greatest cosine with. A row with one full colour "
        "is one feature; a row of several shades is a mixture. Both ends of an axis count, so it may be blue or red.",
        figures={
            "cosines": (figure, "Cosine of each axis (left) and of each live latent (right) with each feature."),
            "mcs": (other, f"Over all layers. The line is at {FOUND:g}."),
        },
    )


def _one_dimension_section(found: dict[str, Any]) -> Section:
    rule = found["rule"]
    figure, axis = pictures.axes(1, 1, 8, 2.6)
    edges = np.linspace(-rule["offset"] - 5, rule["offset"] + 5, len(rule["histogram"]) + 1)
    axis.stairs(rule["histogram"], edges, fill=True, color=pictures.COLOURS[5])
    axis.axvline(0, color="black", lw=1)
    axis.set(xlabel="z", ylabel="inputs")
    for x, name in ((-rule["offset"], "first event: x = -z - N"), (rule["offset"], "second event: y = z - N")):
        axis.annotate(name, (x, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    rows = [
        [
            name,
            str(rate(sum(k == 2 for k, _ in seeds), len(seeds))),
            *(float(np.mean([k == n for k, _ in seeds])) for n in (1, 0)),
            str(mean([apart for _, apart in seeds])),
        ]
        for name, seeds in found["methods"].items()
    ]
    return Section(
        "Two features that exclude each other, in one number",
        "With probability ½ a number x is observed, else a number y, both from N(0, 1). z = -(x + N) or z = y + N, N = "
        f"{rule['offset']:g}; negative z means x. The text that survives has the rule in words and not in formulas. The rule "
        f"takes one event for the other with a probability of Φ(-N) = {rule['theory']:.1e}: {rule['wrong']} times in "
        f"{rule['n_rows']} inputs here. When both events happen and the codes are added, z = y - x, and the rule gives back "
        f"both within .1 in {rule['both_recovered']} of {rule['n_rows']} inputs.\n\n"
        "A method has a feature when one latent is on (not 0) for its event and off for the other, each in 99% of inputs, and "
        "follows the number there (r² ≥ .99). Codes of rotations, PCA and ICA are signed, and on whatever happens. Told apart: "
        "P(on | event) - P(on | the other) of the best latent, for the worse of the two features. All methods see z less its "
        "mean, which is 0.",
        [Table(["", "both features", "one", "none", "told apart"], rows)],
        {"one_number": (figure, "The distribution of z, and how it is decoded.")},
    )
