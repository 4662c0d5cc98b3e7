"""Sections of the synthetic toy's page: the source's generator, beginnings, real activations."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import difference, mean
from pipeline.toy.page import Section, Table
from pipeline.toy.synthetic import real_activations
from pipeline.toy.synthetic.beginnings import OWN, STARTS
from pipeline.toy.synthetic.coefficients import FOUND
from pipeline.toy.synthetic.gathered import saved, seeds
from pipeline.toy.synthetic.generator import CHANGES


def generator_section(numbers: Mapping[str, Any]) -> Section:
    found = seeds(numbers, "changed")
    cells = found[0]["at"]
    rows = []
    for name in CHANGES:
        of = [one["changes"][name] for one in found]
        row = [name, float(np.mean([o["active"] for o in of])), float(np.mean([o["strength"] for o in of]))]
        for i in range(len(cells)):
            values = [o["cells"][i]["mmcs"] for o in of]
            plain = [one["changes"]["none"]["cells"][i]["mmcs"] for one in found]
            row += [float(np.mean(values)), "" if name == "none" else str(difference(values, plain))]
        rows.append(row)
    heads = ["what is changed", "active", "mean strength"]
    for d_sae, alpha in cells:
        heads += [f"MMCS ({d_sae}, {alpha:g})", "moved by"]
    return Section(
        "The source's generator, one change at a time",
        "Ours draws each row's probabilities from a random covariance. The source's code does otherwise: its covariance is "
        "(A + Aᵀ) / 2 of uniform A, where ours mirrors one half of A; one draw of probabilities serves a whole batch of 256 "
        "rows, within which the features are then independent; the mean probability is made k / G within each batch; a "
        "strength is a product of two uniforms. Each change is made alone, and all together. Where one draw serves 256 rows, "
        "they are shuffled with the others, or kept together in a step of training, as the source has them. The source draws "
        f"anew for each step. Here the rows are made once: {found[0]['n_draws']} times 256, a draw each where a draw serves "
        f"256, and each row is seen {found[0]['n_steps'] / found[0]['n_draws']:.1f} times on average. MMCS at (d_sae, "
        f"alpha), after {found[0]['n_steps']} steps, the same true features each time; moved by: against no change, seed by "
        "seed.",
        [Table(heads, rows)],
    )


def beginnings_section(numbers: Mapping[str, Any]) -> Section:
    kinds = {"random": "features in random directions", "axes": "features near the axes"}
    figure, axes = pictures.axes(1, 2, 10, 3.6)
    tables, colours = [], dict(zip(STARTS["random"], pictures.COLOURS, strict=True))
    for axis, (kind, title) in zip(axes, kinds.items(), strict=True):
        found = seeds(numbers, f"begin_{kind}")
        rows = []
        for name in STARTS[kind]:
            curve = np.mean([one[name]["curve"] for one in found], axis=0)
            style = "--" if name.endswith(OWN) else "-"
            axis.plot(found[0]["steps"], curve, lw=1.2, ls=style, color=colours[name], label=name)
            than = f"orthogonal{OWN}" if name.endswith(OWN) else "orthogonal"
            rows.append(
                [
                    name,
                    str(mean([one[name]["reached"] for one in found])),
                    sum(one[name]["at_all"] for one in found),
                    "" if name == than else str(saved(numbers, kind, name, than)),
                    float(curve[0]),
                    float(curve[-1]),
                ]
            )
        axis.axhline(FOUND, color="#bbbbbb", lw=0.7, zorder=0)
        axis.set(title=title, xlabel="step of training", ylabel="MMCS, truth → dictionary", ylim=(0.25, 1.0))
        heads = [title, f"steps to MMCS {FOUND}", "seeds that reach it", "saved against orthogonal, share"]
        tables.append(Table([*heads, "MMCS at first", "at the end"], rows))
    axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    return Section(
        "Where directions begin",
        f"The source's autoencoder, {len(seeds(numbers, 'begin_random'))} seeds, from other beginnings. With its own encoder: "
        "the decoder alone begins so, and the encoder as torch's Linear does, as in the source. Else the encoder begins as the "
        "decoder's transpose. pca: principal components and their opposites, then draws with the rows' covariance; writer: "
        "noised left singular vectors of the matrix that writes the rows, and their opposites; privileged: noised unit vectors "
        "and their opposites; data: rows. Features near the axes are sums of two coordinates with random signs: there the "
        "coordinates are a privileged basis. Saved: the share of steps to the MMCS that both reach, the "
        "lower of their ends, against the orthogonal beginning with the same kind of encoder. A run that does not reach the "
        "mark counts in the first column with all its steps.",
        tables,
        {"beginnings": (figure, "MMCS over training, means over seeds; the grey line is the mark.")},
    )


def real_section(found: Mapping[str, Any]) -> Section:
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
    return Section(
        "How real activations are distributed",
        f"The toy's rows beside those of the {found['model']} model at three hook points of one layer, "
        f"{found['rows']['toy']['n']:,} rows each. Kurtosis is 3 for a normal distribution; where the coordinates are a "
        "privileged basis it is larger along them than along random axes. Participation is the share of dimensions that carry "
        "the variance, 1 where all carry the same; |cos| is the mean of two rows' |cosine| about the mean, 1 for random "
        "directions.",
        [Table(heads, table)],
        {"real": (figure, "Coordinates, norms and principal components.")},
    )
