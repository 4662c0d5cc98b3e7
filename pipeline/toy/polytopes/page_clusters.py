"""The sections on clusters, and on a language model's layers scaled."""

from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.page import Section, Table


def channels_section(found: dict[str, Any]) -> Section:
    row, column = found["place"]
    keys = ("accuracy", "n_clusters", "noise", "share", "excess")
    rows = [[state, *(str(mean(found[state][key], "nets")) for key in keys)] for state in ("trained", "untrained")]
    return Section(
        "Clusters of channel vectors at one place",
        "A small convolutional network reads digits. Its second layer's channels at one place (row "
        f"{row}, column {column}, of {found['side']} by {found['side']}, counted from 0) make one vector of "
        f"{found['n_channels']} numbers of each of {found['n_rows']} pictures, and HDBSCAN clusters them. A cluster's share is "
        "that of its commonest digit; beside it what this share is over clusters of the same sizes with shuffled digits. The "
        "source clustered InceptionV1's channels at a fixed place in this way; one place of a picture need not tell which "
        "digit it is of.",
        [
            Table(
                ["nets", "accuracy", "clusters", "in none", "share of the commonest digit", "over shuffled digits"],
                rows,
            )
        ],
    )


def clusters_section(found: dict[str, Any]) -> Section:
    rows = [
        [str(size), repr(token), f"{share:.0%}", " · ".join(repr(e) for e in examples[:2])]
        for size, token, share, examples in found["largest"]
    ]
    distances = ""
    if found["within"] is not None:
        distances = (
            f" A clustered activation is {found['within']:.2f} from its cluster's mean and {found['between']:.2f} from the "
            "nearest other one."
        )
    options = found["settings"]
    return Section(
        f"Clusters of activations, {found['hook_point']}",
        f"HDBSCAN (min_cluster_size {options['min_cluster_size']}, min_samples {options['min_samples']}) of whole activation "
        f"vectors, {found['d']} numbers, at positions {', '.join(map(str, found['positions']))} of sequences of "
        f"{found['context']}: {found['n_clusters']} clusters of {found['n_rows']} rows, {found['noise']:.0%} in none."
        f"{distances} "
        "The source took 6 of 1,024 positions, evenly spaced, none of the first 100, of GPT-2; a model with fewer positions "
        "gives 6 of what it has. The largest clusters, with the token that most of their rows stand at:",
        [Table(["rows", "commonest token", "its share", "contexts, ending at the token"], rows)],
    )


def validity_section(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 2, 9, 3.2)
    factors = found["factors"]
    for axis, site in zip(axes, ("hook_resid_post", "mlp.hook_post")):
        layers = [(name, np.mean(values, axis=1)) for name, values in found["kl"].items() if name.endswith(site)]
        for i, (name, values) in enumerate(layers):
            colour = pictures.COLOURS[i % len(pictures.COLOURS)]
            drawn = np.where(values > 1e-7, values, np.nan)
            axis.plot(factors, drawn, marker=".", color=colour, label=f"layer {name.split('.')[1]}")
        axis.set(xscale="log", yscale="log", xlabel="factor", title=site)
        axis.set_xticks([0.1, 0.5, 1, 2, 10], ["0.1", "0.5", "1", "2", "10"])
        axis.minorticks_off()
    axes[0].set_ylabel("KL of the output, nats a token")
    axes[0].legend(frameon=False, fontsize=7)
    low, high = min(min(axis.get_ylim()) for axis in axes), max(max(axis.get_ylim()) for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
    rows = [[name, *(float(np.mean(v)) for v in values)] for name, values in found["kl"].items()]
    return Section(
        f"Scaling an activation: the language model ({found['model']})",
        "The distribution of validity: how far an activation can be scaled before the output is another one. One model, one "
        "layer scaled at a time. A layer norm follows every residual stream, so that a factor leaves the next layer's input as "
        "it is; the output changes because later layers add to a stream of another length. Behind the last residual stream "
        "comes nothing but the layer norm: a curve below 1e-7 is not drawn.",
        [Table(["KL, nats a token", *(f"factor {factor:g}" for factor in factors)], rows)],
        {"validity": (figure, f"KL over {found['n_tokens']:,} tokens when one layer is scaled.")},
    )
