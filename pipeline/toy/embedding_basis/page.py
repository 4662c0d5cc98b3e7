"""The page of the embedding's singular vectors: the weights in their axes, and what the axes are about."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.embedding_basis.claims import NAMES, gains
from pipeline.toy.findings import Estimate
from pipeline.toy.page import Page, Section, Table


def page(numbers: Mapping[str, Any]) -> Page:
    found = numbers["weights"]
    return Page(
        "Singular vectors of the embedding as axes of the residual stream",
        "The discussion of Baker 2022 reports a rotation that takes no search: the right singular vectors of the embedding "
        "matrix turn everything that reads or writes the residual stream. Reported for CLIP ViT-B and GPT-J: sparser weights "
        "near the first layer, less so deeper in, and a top component that is related to token frequency. Here it is done for "
        f"a single small model, {found['model']} (d_model {found['d_model']}, {len(found['random_mean'])} layers). All "
        "intervals are over its matrices, over random rotations or over tokens: they say nothing of other models, "
        "nor whether the effect is weaker in GPT-J, as reported.",
        [
            _weights_section(numbers),
            _matrices_section(numbers),
            _frequency_section(numbers["tokens"]),
            _axes_section(numbers["tokens"]),
        ],
    )


def _weights_section(numbers: Mapping[str, Any]) -> Section:
    found = numbers["weights"]
    figure, axes = pictures.axes(1, len(found["measures"]), 11, 2.9)
    layers = range(len(found["random_mean"]))
    random, spread = (np.array(found[key]) for key in ("random_mean", "random_sd"))
    bases = {"the model's own": found["bases"]["neurons"]}
    bases |= {f"embedding {name}": values for name, values in found["bases"].items() if name != "neurons"}
    for i, (axis, measure) in enumerate(zip(axes, found["measures"], strict=True)):
        for j, (name, values) in enumerate(bases.items()):
            axis.plot(layers, np.array(values)[:, :, i].mean(1), "o-", ms=3, color=pictures.COLOURS[j], label=name)
        middle = random[:, :, i].mean(1)
        half = 2 * np.sqrt((spread[:, :, i] ** 2).sum(1)) / spread.shape[1]
        axis.fill_between(layers, middle - half, middle + half, color="#bbbbbb", lw=0, label="random, ± 2 sd")
        axis.set(title=NAMES[measure], xlabel="layer", xticks=layers)
    axes[0].set_ylabel("mean over six matrices")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
    rows = [
        [name, *(float(np.array(values)[layer, :, i].mean()) for layer in layers for i in (0, 2))]
        for name, values in {**bases, "random rotations": found["random_mean"]}.items()
    ]
    columns = [f"layer {layer}, {name}" for layer in layers for name in ("kurtosis", "Hoyer")]
    return Section(
        "How sparse the weights are, layer by layer",
        "W_Q, W_K, W_V, W_in read the stream: the gain of the layer norm before them is folded in. W_O, W_out write it. A "
        "rotation R makes R W of each, a row a coordinate of the stream, and leaves its sum of squares as it is. Higher is "
        "sparser in all five measures; of independent normal weights the kurtosis is 3 and L2/L1 is 1.25. The kurtosis within "
        "a coordinate is of each row alone: where rows have unequal lengths the other four rise though no row is sparse. The "
        f"grey band has {found['n_rotations']} random rotations.",
        [Table(["mean over six matrices", *columns], rows)],
        {"layers": (figure, "Five measures of sparsity against the layer, in four kinds of axes.")},
    )


def _matrices_section(numbers: Mapping[str, Any]) -> Section:
    found = numbers["weights"]
    figure, axes = pictures.axes(1, 4, 11, 2.9)
    shown = [(baseline, i) for baseline in ("neurons", "random") for i in (0, found["measures"].index("within"))]
    values = [gains(numbers, baseline)[:, :, i] for baseline, i in shown]
    top = max(0.01, float(np.abs(values).max()))
    for axis, (baseline, i), table in zip(axes, shown, values, strict=True):
        layers = [str(layer) for layer in range(len(table))]
        pictures.heat(axis, table.tolist(), layers, found["matrices"], 2, -top, top, "RdBu_r")
        against = "the model's axes" if baseline == "neurons" else "random"
        axis.set_title(f"{NAMES[found['measures'][i]]},\nagainst {against}", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("layer")
    figure.colorbar(axes[-1].images[0], ax=axes, label="log ratio", shrink=0.8)
    n = found["n_rotations"]
    sparser = {name: np.array(values)[:, :, 0] for name, values in found["random_sparser"].items()}
    rows = [
        [f"layer {layer}, {matrix}", *(int(values[layer, j]) for values in sparser.values())]
        for layer in range(len(found["random_mean"]))
        for j, matrix in enumerate(found["matrices"])
    ]
    return Section(
        "Matrix by matrix",
        "The logarithm of the sparsity in the axes of the embedding as it is, over that in the model's own axes (left) and "
        f"over the mean of random rotations (right); red is sparser. The table counts in how many of {n} random rotations the "
        "kurtosis was at least as large as in the axes that its column names.",
        [Table(["", "the model's own", "embedding as it is", "embedding centred"], rows)],
        {"matrices": (figure, "Change of the kurtosis, over all entries and within coordinates, for each matrix.")},
    )


def _frequency_section(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 3, 11, 3.1)
    rows = []
    for axis, colour, (name, one) in zip(axes, pictures.COLOURS, found["embeddings"].items()):
        points = np.array(one["points"])
        axis.scatter(points[:, 0], points[:, 1], s=3, alpha=0.25, lw=0, color=colour)
        axis.set(xlabel="log₁₀ of the token's count", ylabel="coordinate", title=f"top component, embedding {name}")
        axes[2].plot(
            range(1, len(one["frequency"]["each"]) + 1), one["frequency"]["each"], lw=0.8, color=colour, label=name
        )
        level = float(np.quantile(one["random"], 0.975))
        axes[2].axhline(level, lw=0.8, ls=":", color=colour)
        r = Estimate(*one["frequency"]["r"], of=f"{one['frequency']['n_tokens']} tokens")
        rows.append([name, str(r), one["frequency"]["spearman"], level, one["shares"][0], one["mean_cosine"]])
    axes[2].set(xlabel="component", ylabel="|r| with log frequency", xscale="log", ylim=(0, 1))
    axes[2].legend(frameon=False)
    return Section(
        "Is the top component about token frequency?",
        f"Tokens are counted in {found['n_files']} files of the standard library that the model learned from: "
        f"{found['n_tokens']} tokens, {found['n_seen']} of {found['d_vocab']} different ones. A token's coordinate is its "
        "embedding times the first right singular vector; the sign is chosen so that frequent tokens have large ones. The "
        "embedding is taken as it is, and less its mean over tokens. The null are random directions of the same embedding, the "
        "dotted lines their 97.5% quantile. The last column is the |cosine| of the first singular vector with the mean "
        "embedding.",
        [
            Table(
                [
                    "embedding",
                    "|r|, Pearson's",
                    "Spearman's",
                    "random, 97.5%",
                    "share of Σ σ²",
                    "|cos| with the mean",
                ],
                rows,
            )
        ],
        {"frequency": (figure, "Coordinates of tokens along the top component, and |r| of each component.")},
    )


def _axes_section(found: dict[str, Any]) -> Section:
    names = list(found["kinds"])
    figure, axes = pictures.axes(1, 2, 11, 3.4)
    tables = []
    for axis, (name, one) in zip(axes, found["embeddings"].items(), strict=True):
        pictures.heat(axis, one["separation"], [str(i + 1) for i in range(len(one["separation"]))], names, 2, 0.5, 1)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
        axis.set(ylabel="component", title=f"embedding {name}")
        tables.append(
            Table(
                [f"embedding {name}", "largest coordinates", "smallest coordinates"],
                [[f"component {i + 1}", *("  ".join(end) for end in ends)] for i, ends in enumerate(one["axes"])],
            )
        )
    figure.colorbar(axes[1].images[0], ax=axes, label="AUROC", shrink=0.8)
    chance = [
        [name, float(np.max(one["separation"])), *(float(np.quantile(one["best_separation"], q)) for q in (0.5, 0.95))]
        for name, one in found["embeddings"].items()
    ]
    counted = ", ".join(f"{kind} ({n})" for kind, n in found["kinds"].items())
    return Section(
        "What the first components are about",
        "Whether a direction is interpretable is for a reader to say: the tables have the tokens at both ends (␣ a space, ↵ a "
        "new line). What can be counted is how well a component tells a kind of tokens from the others: the AUROC of its "
        "coordinate, of either sign, where ½ is chance. Kinds, and how many of the counted tokens are of them: "
        f"{counted}. The null has as many random directions, and takes the best of them and of all kinds. "
        "Directions of meaning, such as those that are reported of GPT-J (religion - technology, valence), are not asked for: "
        "this model has read a programming language's library.",
        [Table(["embedding", "best AUROC", "random, median", "random, 95%"], chance), *tables],
        {"kinds": (figure, "AUROC of each of the first components for each kind of tokens.")},
    )
