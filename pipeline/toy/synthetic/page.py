"""The page of the synthetic toy: how much of known features dictionaries recover, and what that turns on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.synthetic import gathered
from pipeline.toy.synthetic.coefficients import FOUND
from pipeline.toy.synthetic.gathered import seeds
from pipeline.toy.synthetic.page_data import beginnings_section, generator_section, real_section
from pipeline.toy.synthetic.page_natural import coefficients_section, family_section, natural_section
from pipeline.toy.synthetic.table import WINDOW

_BINS = np.linspace(0, 1, 41)


def page(numbers: Mapping[str, Any]) -> Page:
    c = numbers["grid"]["data"]
    return Page(
        "Known features in superposition",
        f"{c['G']} directions in {c['d']} dimensions, {c['k']:g} of them active in a row on average: the truth is a "
        "dictionary, and one can see how much of it a learned dictionary recovers.\n\n"
        "MMCS, unless said otherwise: the mean over the true features of the largest cosine with any live feature of the "
        "dictionary. It is 1 when all are found; what as many random directions give stands beside it.",
        [
            _table_section(numbers),
            _histograms_section(numbers),
            _undertraining_section(numbers),
            _jumps_section(numbers),
            generator_section(numbers),
            natural_section(numbers),
            family_section(numbers),
            coefficients_section(numbers),
            beginnings_section(numbers),
            _original_section(numbers["original"]),
            _grid_section(numbers["grid"]),
            real_section(numbers["real"]),
        ],
    )


def _larger(numbers: Mapping[str, Any]) -> list[list[float | None]]:
    found = [[[c.get("larger") for c in row] for row in one["cells"][:-1]] for one in seeds(numbers, "table")]
    n_columns = len(seeds(numbers, "table")[0]["alpha"])
    return [*np.mean(found, axis=0).tolist(), [None] * n_columns]


def _table_section(numbers: Mapping[str, Any]) -> Section:
    tables = seeds(numbers, "table")
    rows, columns = [str(d) for d in tables[0]["d_sae"]], [f"{a:g}" for a in tables[0]["alpha"]]
    figure, axes = pictures.axes(2, 3, 10.5, 5.4)
    maps: list[tuple[str, Any, int, tuple[float | None, float | None]]] = [
        ("MMCS, truth → dictionary", gathered.average(numbers, "mmcs"), 2, (0.3, 1.0)),
        ("MMCS with the next larger", _larger(numbers), 2, (0.3, 1.0)),
        ("correlation of codes with strengths", gathered.average(numbers, "correlation"), 2, (0.0, 1.0)),
        ("dead features", gathered.average(numbers, "dead"), 0, (None, None)),
        ("L0", gathered.average(numbers, "l0"), 1, (None, None)),
        ("FVU", gathered.average(numbers, "fvu"), 2, (0.0, 1.0)),
    ]
    for axis, (title, values, digits, (low, high)) in zip(axes.flat, maps, strict=True):
        pictures.heat(axis, values, rows, columns, digits, low, high)
        axis.set_title(title)
        figure.colorbar(axis.images[0], ax=axis, shrink=0.9)
    for axis in axes[1]:
        axis.set_xlabel("alpha")
    for axis in axes[:, 0]:
        axis.set_ylabel("d_sae")
    best = gathered.best_alphas(numbers)
    table = [
        [str(d), f"{a:g}", str(mean(gathered.cell(numbers, d, a, "mmcs"))), floor]
        for d, a, floor in zip(
            tables[0]["d_sae"], best, gathered.average(numbers, "floor").max(1).tolist(), strict=True
        )
    ]
    table.append(["PCA", "", str(mean([one["pca"]["mmcs"] for one in tables])), tables[0]["pca"]["floor"]])
    return Section(
        "Size against sparsity penalty",
        f"The source's autoencoder: no decoder bias, decoder rows made unit after each step, {tables[0]['steps'][-1]} steps "
        f"of 256 rows. Means over {len(tables)} seeds, each with other features, other rows and another beginning. alpha "
        "weighs the mean of the code against the mean squared error. By algebra a feature of strength v is worth its penalty "
        "while alpha < 2 d_sae v / d, which makes a ridge along which alpha rises with the size. Dead: active on none of "
        "4,096 rows that were not learned from; they are left out of MMCS.",
        [Table(["d_sae", "best alpha", "MMCS at it", "random directions"], table)],
        {"table": (figure, "The table. PCA is compared by |cosine|, for its codes are signed.")},
    )


def _histograms_section(numbers: Mapping[str, Any]) -> Section:
    tables = seeds(numbers, "table")
    sizes, alphas = tables[0]["d_sae"], tables[0]["alpha"]
    figure, axes = pictures.axes(len(sizes), len(alphas), 10, 1.35 * len(sizes) + 0.5)
    for i, d_sae in enumerate(sizes):
        for j, alpha in enumerate(alphas):
            axis = np.array(axes).reshape(len(sizes), len(alphas))[i][j]
            values = np.concatenate([one["cells"][i][j]["mcs"] for one in tables])
            counts = np.histogram(values, _BINS)[0]
            axis.stairs(counts / len(values), _BINS, fill=True, color=pictures.COLOURS[0])
            axis.axvline(float(np.mean(values)), color=pictures.COLOURS[1], lw=1)
            axis.set(xlim=(0, 1), ylim=(0, 0.5), xticks=[0, 0.5, 1], yticks=[])
            if i == 0:
                axis.set_title(f"alpha = {alpha:g}")
            if j == 0:
                axis.set_ylabel(f"d_sae {d_sae}")
            axis.tick_params(labelbottom=i == len(sizes) - 1)
    low, high = gathered.MIDDLING
    rows = [
        [side, sum(map(len, by_seed)), len(by_seed)]
        + [str(mean([float(np.mean([f(c) for c in cells])) for cells in by_seed])) for f in _SHARES.values()]
        for side, by_seed in gathered.middling(numbers).items()
    ]
    return Section(
        "The distribution behind the mean",
        "For each cell of the table, the largest cosine of every true feature, all seeds together; the line is the mean. A "
        "middling mean can be features that are all somewhat represented, or some that are found and some that are not there. "
        f"The table below counts, over the cells with an MMCS from {low} to {high}: found, a cosine above {FOUND}; "
        "absent, none above the 95th percentile of what as many random directions give; somewhat, all others. A seed's cells "
        "are averaged first.",
        [Table(["cells with", "cells", "seeds", *_SHARES], rows)],
        {"histograms": (figure, "Largest cosines of the true features, share of features; bars above .5 are cut.")},
    )


_SHARES = {
    "found": lambda c: c["found"],
    "somewhat": lambda c: 1 - c["found"] - c["absent"],
    "absent": lambda c: c["absent"],
}


def _undertraining_section(numbers: Mapping[str, Any]) -> Section:
    tables = seeds(numbers, "table")
    steps, alphas = tables[0]["steps"], tables[0]["alpha"]
    figure, axis = pictures.axes(1, 1, 7.5, 3.4)
    rows = []
    for i, (d_sae, alpha) in enumerate(zip(tables[0]["d_sae"], gathered.best_alphas(numbers), strict=True)):
        curves = [one["cells"][i][alphas.index(alpha)]["curve"] for one in tables]
        for n, curve in enumerate(curves):
            label = f"{d_sae} features, alpha = {alpha:g}" if n == 0 else None
            axis.plot(steps, curve, lw=1, color=pictures.COLOURS[i], label=label)
        at = int(np.searchsorted(steps, steps[-1] / 10))
        rows.append(
            [
                str(d_sae),
                f"{alpha:g}",
                str(mean([gathered.converged(curve, steps) for curve in curves])),
                *(str(mean([curve[k] for curve in curves])) for k in (at, -1)),
            ]
        )
    axis.set(xlabel="step of training", ylabel="MMCS, truth → dictionary", ylim=(0.2, 1))
    axis.legend(frameon=False, fontsize=7, loc="lower right")
    heads = ["d_sae", "alpha", "steps to 90% of the rise", f"MMCS at step {steps[at]}", "MMCS at the end"]
    return Section(
        "Undertraining",
        "MMCS over training, each size at its best alpha, a line for each seed; dead features are counted in. The rate is "
        "constant, so that each point is also the end of a shorter training.",
        [Table(heads, rows)],
        {"curve": (figure, "How long each size takes.")},
    )


def _jumps_section(numbers: Mapping[str, Any]) -> Section:
    tables = seeds(numbers, "table")
    sizes, alphas, steps = tables[0]["d_sae"], tables[0]["alpha"], tables[0]["steps"]
    best = gathered.best_alphas(numbers)
    figure, axes = pictures.axes(1, len(sizes), 10, 2.8)
    rows = []
    for i, (axis, d_sae, alpha) in enumerate(zip(np.atleast_1d(axes), sizes, best, strict=True)):
        for line in tables[0]["features"][f"{d_sae}, {alpha:g}"]:
            axis.plot(steps, line, lw=0.8)
        axis.set(title=f"d_sae = {d_sae}, alpha = {alpha:g}", xlabel="step", ylim=(0, 1.02))
        cells = [one["cells"][i][alphas.index(alpha)]["jumps"] for one in tables]
        half = [v for cell in cells for v in cell["half"]]
        share = mean(gathered.medians([cell["share"] for cell in cells]))
        spread = np.quantile(half, [0.1, 0.9]) if half else [np.nan, np.nan]
        rows.append([str(d_sae), f"{alpha:g}", str(share), *(float(s * steps[-1]) for s in spread)])
    np.atleast_1d(axes)[0].set_ylabel("largest cosine of a true feature")
    columns = [
        "d_sae",
        "alpha",
        "largest part of the rise in a window",
        "half of it done, step: 10%",
        "90% of features",
    ]
    return Section(
        "How a feature is found, over training",
        "The largest cosine of some true features, of one seed. A feature that is found in a phase transition makes most of "
        f"its rise within a short time. Measured of the features that end found: the largest part of the rise that falls into "
        f"a window of {100 * WINDOW:g}% of training (the median feature of each seed), and the steps between which they are "
        "half way.",
        [Table(columns, rows)],
        {"features": (figure, "Each line is a true feature.")},
    )


def _original_section(found: Mapping[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 6.5, 2.8)
    rows = []
    for d_sae, row in zip(found["d_sae"], found["cells"], strict=True):
        for alpha, c in zip(found["alpha"], row, strict=True):
            axis.plot(found["steps"], c["curve"], lw=1.2, label=f"{d_sae} features, alpha = {alpha:g}")
            keys = ("mmcs", "floor", "found", "absent", "dead", "l0", "fvu")
            rows.append([str(d_sae), f"{alpha:g}", *(c[key] for key in keys)])
    axis.set(xlabel="step of training", ylabel="MMCS, truth → dictionary", ylim=(0.1, 1))
    axis.legend(frameon=False, fontsize=7)
    return Section(
        "The source's own size",
        f"The same autoencoder on {found['G']} features in {found['d']} dimensions, made by the source's own generator, "
        f"{found['steps'][-1]} steps, where the source took 20,000. The source draws anew for each step; here "
        f"{found['n_draws']} draws of 256 rows are each seen {found['steps'][-1] / found['n_draws']:.1f} times on average. "
        f"One seed: no claim turns on it. PCA: {found['pca']['mmcs']:.2f}.",
        [Table(["d_sae", "alpha", "MMCS", "random", "found", "absent", "dead", "L0", "FVU"], rows)],
        {"original": (figure, "MMCS over training at the source's own size.")},
    )


def _grid_section(found: Mapping[str, Any]) -> Section:
    rows = [
        [str(d_sae), f"{alpha:g}", c["mmcs"], c["mmcs_back"], c["floor"], c["dead"], c["l0"], c["fvu"]]
        for d_sae, row in zip(found["d_sae"], found["cells"], strict=True)
        for alpha, c in zip(found["alpha"], row, strict=True)
    ]
    named = {"pca": "PCA", "ica": "ICA", "random-s0": "random rotation"}
    rows += [
        [named[key], "", f["mmcs"], f["mmcs_back"], f["floor"], f["dead"], f["l0"], f["fvu"]]
        for key, f in found["floors"].items()
    ]
    return Section(
        "Through the ordinary stages",
        f"The same kind of rows, {found['n_rows']:,} of them, as an ordinary activation store, on which the ordinary train "
        f"and score stages work: relu_l1, {found['n_steps']} steps, every figure the score stage's own. Its decoder norms "
        "carry the strength, and its penalty is warmed up, unlike the source's. One seed: no claim turns on it. The truth "
        f"itself, with the best linear reading of its strengths: L0 {found['truth']['l0']:.1f}, FVU "
        f"{found['truth']['fvu']:.3f}.",
        [Table(["d_sae", "alpha", "MMCS, truth → it", "it → truth", "random", "dead", "L0", "FVU"], rows)],
    )
