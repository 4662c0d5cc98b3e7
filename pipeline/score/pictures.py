"""The pictures of the score stage, one folder per site. The only importer of matplotlib here."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.pictures import save_figure
from pipeline.score.histograms import ActivationHistogram, bin_edges
from pipeline.score.places import labels
from pipeline.score.shares import centres
from pipeline.score.similarity import MCS_BINS

_COLOURS = {
    "topk": "#0072b2",
    "abs_topk": "#44aa99",
    "batch_topk": "#56b4e9",
    "matryoshka": "#332288",
    "matching_pursuit": "#88ccee",
    "relu_l1": "#d55e00",
    "tied": "#882255",
    "gated": "#e69f00",
    "p_anneal": "#aa4499",
    "jumprelu": "#117733",
    "rotation": "#009e73",
    "jacobian_rotation": "#999933",
    "local_interaction_basis": "#6699cc",
    "ica": "#cc6677",
    "pca": "#cc79a7",
    "neuron_basis": "#666666",
    "random": "#aaaaaa",
    "covariance": "#ddcc77",
}  # fmt: skip  (Okabe-Ito and Tol: readable without colour vision)
_STYLES = ["-", "--", ":", "-."]
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}


def draw(
    folder: Path,
    site: str,
    rows: list[dict[str, Any]],
    histograms: dict[str, ActivationHistogram],
    compared: list[tuple[dict[str, Any], Tensor]],
) -> None:
    """frontier.png, histograms.png, mmcs.png. site: its name."""
    with rc_context(_STYLE):
        _frontier(folder / "frontier.png", site, rows)
        _histograms(folder / "histograms.png", site, rows, histograms)
        _mmcs(folder / "mmcs.png", site, compared)


def draw_shares(path: Path, writes: Sequence[str], live: dict[str, Tensor]) -> None:
    """layers.png: where features write. live: per dictionary (n_alive, n_writes) shares of the features that are not dead."""
    shown = {name: share for name, share in live.items() if len(share)}
    if not shown:
        return
    ticks, names = range(len(writes)), labels(writes)
    with rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.8 + 2.7 * len(shown)), layout="constrained")
        rows = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(3, 2))
        for (left, right), (name, share) in zip(rows, shown.items(), strict=True):
            centre = centres(share)
            sorted_share = share[centre.argsort(stable=True)].T.numpy()
            image = left.imshow(sorted_share, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
            left.set_yticks(ticks, names, fontsize=7)
            left.set_xlabel(f"{len(share):,} live features, by centre of mass")
            left.set_title(name, fontsize=9)
            figure.colorbar(image, ax=left, label="share of decoder norm")
            right.hist(centre.numpy(), np.linspace(0, share.shape[1] - 1, 41), color="#0072b2")
            right.set_xticks(ticks, names, fontsize=7)
            right.set(xlabel="centre of mass of a feature's decoder norm", ylabel="features")
        figure.suptitle("Which hook points features write to, in units of each one's scale")
        save_figure(figure, path)


def _title(site: str, text: str) -> str:
    return fill(f"{site}: {text}", 100)


def _colour(method: str) -> str:
    return _COLOURS.get(method, "#000000")


def _frontier(path: Path, site: str, rows: list[dict[str, Any]]) -> None:
    """FVU and CE score against L0: sparse dictionaries as points, linear ones as what their largest coordinates keep."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    named = set()
    for row in rows:
        method, colour = row["method"], _colour(row["method"])
        label = None if method in named else method
        named.add(method)
        if row["sparse"]:
            size = 18 + 30 * np.log2(max(1.0, row["d_sae"] / row["d_in"]))
            left.scatter(row["l0"], row["fvu"], s=size, color=colour, alpha=0.7, zorder=3, label=label)
            if "ce_score_zero" in row:
                right.scatter(row["l0"], row["ce_score_zero"], s=size, color=colour, alpha=0.7)
        else:
            prefix = "fvu_at_l0_"
            kept = sorted((int(key.removeprefix(prefix)), v) for key, v in row.items() if key.startswith(prefix))
            left.plot(*zip(*kept), color=colour, marker=".", lw=1, label=label)
    left.set(ylabel="FVU, fraction of variance unexplained")
    right.set(ylabel="CE score (zero ablation)")
    for axis in (left, right):
        axis.set(xscale="log", xlabel="L0, active features a token")
        low, high = axis.get_xlim()
        low, high = (low / 2, 2 * high) if high < 4 * low else (low, high)  # else no tick lies in it
        axis.set_xlim(low, high)
        ticks = [t for decade in (1, 10, 100, 1000) for t in (decade, 2 * decade, 5 * decade) if low <= t <= high]
        axis.set_xticks(ticks, [f"{t}" for t in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    right.set_visible(any("ce_score_zero" in row for row in rows))  # no language model made the rows
    left.set_ylim(0, 1.1 * left.get_ylim()[1])
    labelled, _ = left.get_legend_handles_labels()
    if labelled:  # bases of fewer coordinates than score.at_l0 leave no line
        left.legend(frameon=False, fontsize=8)
    figure.suptitle(_title(site, "held-out reconstruction against sparsity (larger points: larger dictionaries)"))
    save_figure(figure, path)


def _histograms(path: Path, site: str, rows: list[dict[str, Any]], histograms: dict[str, ActivationHistogram]) -> None:
    """Firing densities over features, dead ones in a bin of their own, and the values of active features over tokens;
    sparse dictionaries only."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = bin_edges()
    centres = np.sqrt(edges[:-1] * edges[1:])
    sparse = [row for row in rows if row["sparse"]]
    n_rows = max((row["n_rows"] for row in sparse), default=1)
    lowest = np.floor(np.log10(1 / n_rows))
    bins = np.concatenate([[lowest - 1, lowest - 0.6], np.linspace(lowest, 0, 40)])  # the first bin holds the dead
    used = np.zeros(len(centres))
    shown: dict[str, int] = {}
    for row in sparse:
        histogram, colour = histograms[row["name"]], _colour(row["method"])
        style = _STYLES[shown.setdefault(row["method"], 0) % len(_STYLES)]
        shown[row["method"]] += 1
        density = histogram.density.numpy()
        counts, _ = np.histogram(np.where(density > 0, np.log10(np.maximum(density, 1e-300)), lowest - 0.8), bins)
        left.stairs(counts / len(density), bins, color=colour, ls=style, label=f"{row['name']}: {row['dead']} dead")
        values = histogram.counts.sum(0).numpy()
        right.plot(centres, values / max(1, values.sum()), color=colour, ls=style, lw=1)
        used += values
    ticks = np.arange(lowest, 1)
    left.set_xticks([lowest - 0.8, *ticks], ["dead", *(f"{t:.0f}" for t in ticks)])
    left.set(xlabel=f"log10 firing density ({n_rows:,} rows)", ylabel="fraction of features")
    right.set(xlabel="magnitude of an activation, given active", ylabel="fraction of activations", xscale="log")
    if used.any():
        seen = centres[used > 2e-4 * used.sum()]
        right.set_xlim(seen[0] / 1.5, seen[-1] * 1.5)
        figure.legend(frameon=False, fontsize=7, loc="outside lower center", ncols=3)
    figure.suptitle(_title(site, "how often and how strongly features are active"))
    save_figure(figure, path)


def _mmcs(path: Path, site: str, compared: list[tuple[dict[str, Any], Tensor]]) -> None:
    """The table of MMCS as a picture, and the histograms behind the pairs of seeds."""
    if not compared:
        return
    names = list(dict.fromkeys(scores["a"] for scores, _ in compared))
    table = np.full((len(names), len(names)), np.nan)
    for scores, _ in compared:
        table[names.index(scores["a"]), names.index(scores["b"])] = scores["mmcs"]
    side = max(4.0, 0.42 * len(names) + 1.5)
    figure = Figure(figsize=(side + 5, side), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(side, 5))
    image = left.imshow(table, vmin=0, vmax=1, cmap="viridis")
    left.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    left.set_yticks(range(len(names)), names, fontsize=7)
    for i, j in zip(*np.nonzero(~np.isnan(table))):
        colour = "black" if table[i, j] > 0.6 else "white"
        left.text(j, i, f"{table[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color=colour)
    left.set_title("MMCS of the row's features in the column's", fontsize=9)
    figure.colorbar(image, ax=left, shrink=0.6)
    edges = np.linspace(0, 1, MCS_BINS + 1)
    seeds = [(scores, histogram) for scores, histogram in compared if scores["relation"] == "seed"]
    shown: dict[str, int] = {}
    for scores, histogram in seeds:
        method = scores["a"].split("-")[0]
        style = _STYLES[shown.setdefault(method, 0) % len(_STYLES)]
        shown[method] += 1
        label = f"{scores['a']} → {scores['b']}: {scores['mmcs']:.2f}, random {scores['random_floor']:.2f}"
        right.stairs(histogram.numpy() / float(histogram.sum()), edges, color=_colour(method), ls=style, label=label)
    if seeds:
        right.axvspan(
            *_span([scores["random_floor"] for scores, _ in seeds]), color="#bbbbbb", label="random directions"
        )
        figure.legend(frameon=False, fontsize=7, loc="outside lower right", ncols=2)
    right.set(xlabel="maximal cosine with the other seed", ylabel="fraction of features", xlim=(0, 1))
    figure.suptitle(_title(site, "do dictionaries find the same features?"))
    save_figure(figure, path)


def _span(values: list[float]) -> tuple[float, float]:
    return min(values) - 0.004, max(values) + 0.004
