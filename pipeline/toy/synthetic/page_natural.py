"""Sections of the synthetic toy's page: features of a trained encoder, families, and recovery by coefficients."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.page import Section, Table
from pipeline.toy.synthetic import gathered
from pipeline.toy.synthetic.gathered import naturals, seeds
from pipeline.toy.synthetic.natural import CHOSEN_AT, KINDS

_SHOWN = 12  # rows of the table of disagreements


def natural_section(numbers: Mapping[str, Any]) -> Section:
    parts = naturals(numbers)
    figure, axes = pictures.axes(2, len(parts), 10.5, 4.9)
    for column, part in zip(np.array(axes).reshape(2, -1).T, parts, strict=True):
        for axis, kind in zip(column, KINDS, strict=True):
            image = axis.imshow(np.array(part[kind]["matrix"]), cmap="RdBu", vmin=-1, vmax=1)
            axis.set(title=f"{kind}, G/d = {part['ratio']}", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, shrink=0.7, label="cosine of two features")
    rows = [
        [f"{part['ratio']}, {kind}", part["G"], f"{min(part['kept'])} to {max(part['kept'])}"]
        + [float(np.mean(part[kind][key])) for key in ("nearest", "positive", "total")]
        for part in parts
        for kind in KINDS
    ]
    k, d = parts[0]["k"], parts[0]["d"]
    return Section(
        "Features that a trained encoder put into superposition",
        f"A toy model of superposition was trained to keep one-hot features, {k:g} active on average, in {d} dimensions "
        "(Elhage et al. 2022), and its encoder's columns are the features. Kept: those with a norm above 1/2, least and most "
        "among seeds; only these are looked for. Beside it the same features in random "
        "directions: as many, as long, active in the same rows. Nearest: the mean over features of the largest |cosine| with "
        "another; positive: of the largest cosine; total: of the sum of squared cosines with all others. A ReLU can "
        "remove interference of negative cosine, not that of positive cosine.",
        [Table(["G / d, directions", "G", "kept", "nearest", "positive", "total"], rows)],
        {"interference": (figure, "Cosines of the first features of one seed, like beside like.")},
    )


def _short(values: list[float]) -> str:
    """A mean and its 95% interval in few characters."""
    found = mean(values)
    return f"{found.value:.2f} ± {found.high - found.value:.2f}"


def family_section(numbers: Mapping[str, Any]) -> Section:
    parts = naturals(numbers)
    ratios = [part["ratio"] for part in parts]
    names = list(parts[0]["trained"]["families"])
    figure, axes = pictures.axes(1, 3, 10.5, 3.3)
    for kind, style in zip(KINDS, ("-", "--"), strict=True):
        for i, name in enumerate(names):
            colour = pictures.COLOURS[i % 8] if name != "pca" else "black"
            for axis, key in zip(axes[:2], ("mmcs", "found"), strict=True):
                line = [np.mean([c[key] for c in part[kind]["families"][name]]) for part in parts]
                axis.plot(ratios, line, ls=style, lw=1, color=colour, label=name if style == "-" else None)
        floor = [np.mean([c["floor"] for c in part[kind]["families"][names[0]]]) for part in parts]
        axes[0].plot(ratios, floor, ls=":", color="#999999", label="random directions" if style == "-" else None)
        values = [mean(gathered.recovery(part, kind)) for part in parts]
        middle = [v.value for v in values]
        reach = np.clip([[v.value - v.low for v in values], [v.high - v.value for v in values]], 0, 1)
        axes[2].errorbar(ratios, middle, yerr=reach, ls=style, capsize=2, color=pictures.COLOURS[0], label=kind)
    for axis, title in zip(
        axes, ("MMCS", "share of features found", "above chance, mean of the families"), strict=True
    ):
        axis.set(xscale="log", xlabel="G / d, features a dimension", title=title, ylim=(0, 1.02))
        axis.set_xticks(ratios, [str(r) for r in ratios])
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=7, loc="outside lower center", ncols=5)
    axes[2].legend(frameon=False, fontsize=7)
    rows = [
        [name, *(_short([c["mmcs"] for c in part[kind]["families"][name]]) for part in parts for kind in KINDS)]
        for name in names
    ]
    rows.append(
        ["random directions"]
        + [f"{np.mean([c['floor'] for c in part[kind]['families'][names[0]]]):.2f}" for part in parts for kind in KINDS]
    )
    G, d, n_steps = CHOSEN_AT.values()
    return Section(
        f"What {len(names) - 1} families and PCA recover of them",
        f"{len(names) - 1} families of the train stage, and PCA, which no mean of the families has. The families "
        f"learn as many features as there are, in {parts[0]['n_steps']} steps of 128 rows, "
        f"{len(parts[0]['kept'])} seeds with other features each. Solid: trained directions; dashed: random ones; dotted: as "
        "many directions that were drawn without learning. The right picture has MMCS above these: 0 is what they give, 1 is "
        "all found. In the table: 95% intervals. The families' rates and penalties were chosen so that most of "
        f"{G} features in random directions in {d} dimensions (G/d = {G // d}) are found in {n_steps:,} steps. They are the "
        f"same at every ratio, and so are the {parts[0]['n_steps']} steps: what changes with the ratio includes what "
        "settings do that no longer fit.",
        [Table(["MMCS", *(f"G/d = {part['ratio']}, {kind}" for part in parts for kind in KINDS)], rows)],
        {"families": (figure, "Recovery as features crowd.")},
    )


def _dictionaries(numbers: Mapping[str, Any]) -> dict[str, list[tuple[str, dict[str, float]]]]:
    """Names and figures, means over seeds: of the table, and of the families."""
    first = seeds(numbers, "table")[0]
    keys = ("mmcs", "correlation", "error", "error_scaled")
    averages = {key: gathered.average(numbers, key) for key in keys}
    table = [
        (f"{d_sae}, alpha = {alpha:g}", {key: float(averages[key][i, j]) for key in keys})
        for i, d_sae in enumerate(first["d_sae"])
        for j, alpha in enumerate(first["alpha"])
    ]
    families = [
        (f"{name}, {kind}, G/d = {part['ratio']}", {key: float(np.mean([c[key] for c in own])) for key in keys})
        for part in naturals(numbers)
        for kind in KINDS
        for name, own in part[kind]["families"].items()
        if name != "pca"
    ]
    return {"sizes and penalties": table, "families": families}


def coefficients_section(numbers: Mapping[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 3, 10, 3.2)
    apart = []
    for (kind, found), colour in zip(_dictionaries(numbers).items(), pictures.COLOURS):
        m = np.array([f["mmcs"] for _, f in found])
        for axis, key in zip(axes, ("correlation", "error_scaled", "error"), strict=True):
            axis.scatter(m, [f[key] for _, f in found], s=10, color=colour, lw=0, label=kind)
        ranks = [
            np.argsort(np.argsort([f[key] for _, f in found])) / max(1, len(found) - 1)
            for key in ("mmcs", "correlation")
        ]
        apart += [(r_c - r_m, name, f) for r_m, r_c, (name, f) in zip(*ranks, found, strict=True)]
    titles = ("correlation with the strengths", "error after the best scale", "error as they are")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlabel="MMCS, truth → dictionary", title=title)
    axes[2].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=7)
    apart.sort(key=lambda one: -abs(one[0]))
    rows = [
        [name, f["mmcs"], f["correlation"], f["error_scaled"], f["error"], f"{float(by):+.2f}"]
        for by, name, f in apart[:_SHOWN]
    ]
    columns = ["dictionary", "MMCS", "correlation", "error, scaled", "error", "rank by correlation less rank by MMCS"]
    return Section(
        "Recovery told by coefficients",
        "MMCS looks at directions alone. With unit features all scale lies in the coefficients, and one can compare these: "
        "each true feature is matched with one code, one to one, so that the sum of the correlations of codes with true "
        "strengths is largest; on rows that were not learned from. Error: the sum of (code - strength)² over that of "
        "strength², after the best factor for each feature and without it; it is 1 for a code that is 0, and can be more. A "
        "feature that is left without a code counts with correlation 0 and error 1. Means over seeds. The table has the "
        "dictionaries on which the two measures disagree most: ranks from 0, the worst of its kind, to 1, the best.",
        [Table(columns, rows)],
        {"coefficients": (figure, "Each point is a dictionary, by both measures.")},
    )
