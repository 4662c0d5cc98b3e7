"""The page of the synthetic toy: what of known features is found again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.score.pairs import MCS_BINS
from pipeline.toy import pictures
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.synthetic import real_activations


def page(numbers: Mapping[str, Any]) -> Page:
    grid = numbers["grid"]
    c = grid["data"]
    return Page(
        "Known features in superposition",
        f"{c['G']} directions in {c['d']} dimensions, {c['k']:g} of them active in a row: an ordinary activation store whose "
        "ground truth is a dictionary. The ordinary train and score stages work on it; every MMCS with the truth is the "
        "score stage's own. Source: Sharkey, Braun, Millidge 2022.\n\n"
        "MMCS, unless said otherwise: the mean over the true features of the largest cosine with any live feature of the "
        "dictionary. It is 1 when all are found; what as many random directions give stands beside it.",
        [
            _grid(grid),
            _histograms(grid),
            _source(numbers["source"]),
            _original(numbers["original"]),
            _curve(numbers["curve"], grid),
            _interference(numbers["interference"]),
            _variants(numbers["variants"]),
            _families(numbers["families"], grid),
            _inits(numbers["inits"]),
            _real(numbers["real"]),
        ],
    )


def _grid(found: dict[str, Any]) -> Section:
    rows, columns = [str(d) for d in found["d_sae"]], [f"{a:g}" for a in found["alpha"]]
    figure, axes = pictures.axes(2, 3, 10, 5.2)
    maps = [
        ("MMCS, truth → dictionary", [[c["mmcs"] for c in row] for row in found["cells"]], 2, (0.3, 1.0)),
        ("MMCS, dictionary → truth", [[c["mmcs_back"] for c in row] for row in found["cells"]], 2, (0.3, 1.0)),
        ("MMCS with the next larger", found["larger"], 2, (0.3, 1.0)),
        ("dead features", [[c["dead"] for c in row] for row in found["cells"]], 0, (None, None)),
        ("L0", [[c["l0"] for c in row] for row in found["cells"]], 1, (None, None)),
        ("FVU", [[c["fvu"] for c in row] for row in found["cells"]], 2, (0.0, 1.0)),
    ]
    for axis, (title, values, digits, (low, high)) in zip(axes.flat, maps):
        pictures.heat(axis, values, rows, columns, digits, low, high)
        axis.set_title(title)
    for axis in axes[1]:
        axis.set_xlabel("alpha")
    for axis in axes[:, 0]:
        axis.set_ylabel("d_sae")
    best = [columns[int(np.argmax([c["mmcs"] for c in row]))] for row in found["cells"]]
    named = {"pca": "PCA", "ica": "ICA", "random-s0": "random rotation"}
    floors = [[named[key], f["mmcs"], f["floor"], f["d_sae"]] for key, f in found["floors"].items()]
    last = found["cells"][-1]
    return Section(
        "Size against sparsity penalty",
        f"A ReLU autoencoder (relu_l1) for each size and penalty, {found['n_steps']} steps of 256 rows. alpha weighs the mean "
        "of the code against the mean squared error, as in the source. A feature of strength v is worth its penalty while "
        "alpha < 2 d_sae v / d, so larger dictionaries want a larger alpha "
        f"(best: {', '.join(f'{b} at {r}' for b, r in zip(best, rows))}): hence the ridge. The next larger dictionary, which "
        "can be had without the truth, tells where the truth is found: MMCS with it is high along the ridge too, but also "
        "where both dictionaries keep only the same few strong features. "
        f"Random directions as many as the largest dictionary has: {last[0]['floor']:.2f}.",
        [Table(["without training (|cosine|)", "MMCS, truth → it", "random", "directions"], floors)],
        {"grid": (figure, "The grid, scored on held-out rows. Means over live features; dead ones are left out.")},
    )


def _histograms(found: dict[str, Any]) -> Section:
    n, m = len(found["d_sae"]), len(found["alpha"])
    figure, axes = pictures.axes(n, m, 10, 1.35 * n + 0.4)
    edges = np.linspace(0, 1, MCS_BINS + 1)
    for i in range(n):
        for j in range(m):
            axis = np.atleast_2d(axes)[i][j]
            counts = np.array(found["histograms"][i][j])
            axis.stairs(counts / max(1.0, counts.sum()), edges, fill=True, color=pictures.COLOURS[0])
            axis.set(xlim=(0, 1), ylim=(0, 0.6), xticks=[0, 0.5, 1], yticks=[])
            if i == 0:
                axis.set_title(f"alpha = {found['alpha'][j]:g}")
            if j == 0:
                axis.set_ylabel(f"d_sae {found['d_sae'][i]}")
            if i < n - 1:
                axis.set_xticklabels([])
    return Section(
        "The distribution behind the mean",
        "For each cell of the grid, the largest cosine of every true feature. A mean of .8 can be features that are all nearly "
        "found, or most that are found exactly and some that are not there at all. Dictionaries that are too small are of "
        "the second kind, with a hump at what chance gives; large ones with too small a penalty are of the first.",
        figures={"histograms": (figure, "Largest cosines of the true features; bars above .6 are cut.")},
    )


def _original(found: dict[str, Any]) -> Section:
    data = found["data"]
    floors = found["floors"]
    return Section(
        "The source's own size",
        f"The same autoencoder on {data['G']} features in {data['d']} dimensions, which features come together drawn once for "
        f"{'each row' if data['correlation'] == 'sample' else 'each 256 rows'}; {found['n_steps']} steps, where the source "
        "took 20,000. More features take longer to be found: after as many steps as above MMCS is lower, and a dictionary of "
        "four features a dimension is not yet best at the stronger penalty that is best for it above. Without training: PCA "
        f"{floors['pca']['mmcs']:.2f}, a random rotation {floors['random-s0']['mmcs']:.2f}.",
        [_cells(found)],
    )


def _cells(found: dict[str, Any]) -> Table:
    rows = [
        [str(d_sae), f"{alpha:g}", c["mmcs"], c["mmcs_back"], c["floor"], c["silent"], c["dead"], c["l0"], c["fvu"]]
        for d_sae, row in zip(found["d_sae"], found["cells"], strict=True)
        for alpha, c in zip(found["alpha"], row, strict=True)
    ]
    return Table(["d_sae", "alpha", "MMCS, truth → it", "it → truth", "random", "silent", "dead", "L0", "FVU"], rows)


def _source(found: dict[str, Any]) -> Section:
    return Section(
        "The source's own autoencoder",
        "No decoder bias, decoder rows made unit after each step, a penalty that is there from the first one: features die "
        "where the penalty is strong, and die for good. The family of the grid above lets decoder norms carry the strength "
        "and warms the penalty up; at the same alpha it keeps more features alive. Silent: active on none of 4,096 held-out "
        "rows; dead: on none of all. Where the penalty is strong most features are rare, and the two differ much.",
        [_cells(found)],
    )


def _curve(found: dict[str, Any], grid: dict[str, Any]) -> Section:
    """The grid's own cell is the last point."""
    figure, axis = pictures.axes(1, 1, 6.5, 3.2)
    steps = [*found["steps"], grid["n_steps"]]
    for i, (d_sae, shorter) in enumerate(found["rows"].items()):
        row = grid["cells"][grid["d_sae"].index(int(d_sae))]
        rows = [*shorter, row[grid["alpha"].index(found["alpha"][i])]]
        label = f"{d_sae} features, alpha = {found['alpha'][i]:g}"
        axis.plot(steps, [r["mmcs"] for r in rows], marker="o", ms=3, color=pictures.COLOURS[i], label=label)
        axis.axhline(rows[0]["floor"], color=pictures.COLOURS[i], lw=0.6, ls=":")
    axis.set(
        xscale="log",
        xlabel="steps of training, each point a run of its own",
        ylabel="MMCS with the truth",
        ylim=(0.2, 1),
    )
    axis.set_xticks(steps, [str(s) for s in steps])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=7)
    return Section(
        "Undertraining",
        "MMCS against the number of steps, each size at its best alpha. Each point is a whole training of that length, its "
        "schedule included; it takes thousands of steps from chance to found, and the larger dictionary starts later. One "
        "that is compared too early looks as if its size or penalty were wrong.",
        figures={"curve": (figure, "How long it takes; dotted: random directions.")},
    )


def _interference(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9.5, 3.2)
    ratios = [int(r) for r in found["ratios"]]
    kinds = {"topk": "TopK, 2 G features", "ica": "ICA", "pca": "PCA", "random": "random rotation"}
    table = []
    for i, (kind, label) in enumerate(kinds.items()):
        values = []
        for ratio in ratios:
            rows = found["ratios"][str(ratio)]["rows"]
            values.append(next(v for name, v in rows.items() if name.split("-")[0] == kind))
        colour = pictures.COLOURS[(0, 2, 3, 6)[i]]
        left.plot(ratios, [v["mmcs"] for v in values], marker="o", ms=3, color=colour, label=label)
        if kind == "topk":
            left.plot(ratios, [v["floor"] for v in values], color=colour, ls=":", lw=1, label="2 G random directions")
            for ratio, v in zip(ratios, values):
                table.append(
                    [str(ratio), ratio * found["d"], v["mmcs"], v["mmcs_back"], v["floor"], v["dead"], v["fvu"]]
                )
    left.set(xscale="log", xlabel="G / d, features a dimension", ylabel="MMCS with the truth", ylim=(0.2, 1))
    left.set_xticks(ratios, [str(r) for r in ratios])
    left.minorticks_off()
    left.legend(frameon=False, fontsize=7)
    edges = np.linspace(0, 1, MCS_BINS + 1)
    for i, ratio in enumerate(ratios):
        counts = np.array(found["ratios"][str(ratio)]["histogram"])
        right.stairs(counts / counts.sum(), edges, color=pictures.COLOURS[i], label=f"G / d = {ratio}")
    right.set(xlabel="largest cosine of a true feature", ylabel="fraction", xlim=(0.3, 1))
    right.legend(frameon=False, fontsize=7)
    return Section(
        "More features a dimension",
        f"Two features a dimension is little superposition. Here d = {found['d']} stays and G grows; three features are "
        "active in a row, and TopK gets twice as many features as there are. As features crowd, chance directions come "
        "closer to them (dotted), so a figure without its floor says less and less.",
        [Table(["G / d", "G", "MMCS, truth → TopK", "TopK → truth", "random", "dead", "FVU"], table)],
        {"interference": (figure, "What is found as features crowd, and the distribution behind TopK's line.")},
    )


def _variants(found: dict[str, Any]) -> Section:
    rows = []
    for name, row in found.items():
        by_kind = {key.split("-")[0]: value for key, value in row["rows"].items()}
        topk = by_kind["topk"]
        rows.append(
            [name, row["n_truth"], row["nearest"], row["active"], topk["mmcs"], topk["mmcs_back"], topk["floor"],
             by_kind["ica"]["mmcs"], by_kind["pca"]["mmcs"]]
        )  # fmt: skip
    columns = ["data", "true features", "nearest |cos|", "active", "TopK", "back", "random", "ICA", "PCA"]
    return Section(
        "Other data",
        "Which features come together can follow a random correlation for each row, or one draw for each 256 rows as in the "
        "source's code, where batches are shuffled together here; or be independent and rarer. In the last line the "
        "directions are not random: a toy model of superposition was trained to keep the features, and they lie where it put "
        "them: with twice as many features as dimensions, in opposite pairs (nearest |cos|, the mean over features of the "
        "largest |cosine| with another, is 1), each pair in a dimension of its own. ICA and PCA are compared by |cosine|, so "
        "that one of their directions counts for both of a pair.",
        [Table(columns, rows)],
    )


def _families(found: dict[str, Any], grid: dict[str, Any]) -> Section:
    rows = [
        [name, r["mmcs"], r["mmcs_back"], r["floor"], r["l0"], r["fvu"], r["dead"]] for name, r in found["rows"].items()
    ]
    return Section(
        "Other families",
        f"{found['n_steps']} steps on the grid's data, twice as many features as there are. "
        '--set synthetic.families=\'["gated", "p_anneal"]\' takes any of the recipe\'s methods. The truth itself, with the '
        f"best linear reading of its strengths: L0 {grid['truth']['l0']:.1f}, FVU {grid['truth']['fvu']:.3f}.",
        [Table(["family", "MMCS, truth → it", "it → truth", "random", "L0", "FVU", "dead"], rows)],
    )


def _inits(found: dict[str, Any]) -> Section:
    rows = [
        [init, *(v for r in lengths for v in (r["mmcs"], r["fvu"], r["dead"]))]
        for init, lengths in found["rows"].items()
    ]
    columns = [f"{what}, {n} steps" for n in found["steps"] for what in ("MMCS", "FVU", "dead")]
    floor = next(iter(found["rows"].values()))[0]["floor"]
    return Section(
        "Where directions begin",
        f"relu_l1 of {found['d_sae']} features from other beginnings: directions drawn uniformly, the rows of random "
        "rotations, rows of the data, or principal components. MMCS, truth → it; as many random directions: "
        f"{floor or 0:.2f}.",
        [Table(["init", *columns], rows)],
    )


def _real(found: dict[str, Any]) -> Section:
    figure, (values, norms, spectrum) = pictures.axes(1, 3, 10, 3.2)
    names = {"toy": "the toy's rows", **{name: name for name in found["rows"] if name != "toy"}}
    for (name, row), colour in zip(found["rows"].items(), pictures.COLOURS):
        values.stairs(row["values"], real_activations.VALUES, color=colour, label=names[name])
        norms.stairs(row["norms"], real_activations.NORMS, color=colour)
        spectrum.plot(np.arange(1, row["d"] + 1) / row["d"], row["spectrum"], color=colour)
    bell = np.exp(-(real_activations.VALUES**2) / 2)
    values.plot(real_activations.VALUES, bell / bell.sum(), color="#bbbbbb", ls=":", zorder=0, label="normal")
    values.set(yscale="log", ylim=(1e-6, 1), xlabel="a coordinate, in its standard deviations", ylabel="fraction")
    norms.set(xlabel="distance from the mean row, in its mean", ylabel="fraction of rows")
    spectrum.set(xlabel="fraction of principal components", ylabel="share of the variance", ylim=(0, 1.02))
    figure.legend(*values.get_legend_handles_labels(), frameon=False, fontsize=7, loc="outside lower center", ncols=5)
    columns = ["kurtosis", "kurtosis_random", "participation", "norm_spread", "cosine"]
    table = [[names[name], row["d"], *(row[c] for c in columns)] for name, row in found["rows"].items()]
    heads = ["", "d", "kurtosis", "… along random axes", "participation", "spread of norms", "|cos| of rows"]
    toy, post = found["rows"]["toy"], list(found["rows"].values())[1]
    return Section(
        "How real activations are distributed",
        f"The toy's rows beside those of the {found['model']} model at three hook points of one layer, "
        f"{toy['n']:,} rows each. Kurtosis is 3 for a normal distribution; participation is the share of dimensions that carry "
        "the variance; |cos| is the mean of two rows' |cosine| about the mean, 1 for random directions. The toy's features "
        f"lie in random directions, so its coordinates look like any others ({toy['kurtosis']:.1f} and "
        f"{toy['kurtosis_random']:.1f}), while an MLP's neurons are axes of their own ({post['kurtosis']:.1f} and "
        f"{post['kurtosis_random']:.1f}). Its variance is spread over all dimensions; a model's lies in few. What works on "
        "the toy has not been tried on either.",
        [Table(heads, table)],
        {"real": (figure, "Coordinates, norms and principal components.")},
    )
