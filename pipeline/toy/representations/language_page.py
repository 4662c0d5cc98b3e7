"""Sections on a language model: relations between words, and neurons."""

from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, shown
from pipeline.toy.page import Section, Table


def relations_section(found: dict[str, Any]) -> Section:
    names = list(found["found"])
    layers = ["embedding", *(f"layer {i}" for i in range(len(found["points"]) - 1))]
    tables = {
        "above a random pair": lambda layer: np.mean(layer["above_random"]),
        "offset's cosine, held out": lambda layer: np.mean(layer["cosine"]),
        "b first: a + offset": lambda layer: np.mean(np.array(layer["rank"]) == 1),
        "b first: a alone": lambda layer: np.mean(np.array(layer["rank_without"]) == 1),
    }
    figure, axes = pictures.axes(1, 4, 11, 3.8)
    for i, (axis, (title, of)) in enumerate(zip(axes, tables.items())):
        values = [[float(of(layer)) for layer in found["found"][name]] for name in names]
        labels = [f"{name} ({len(found['pairs'][name])})" for name in names] if i == 0 else [""] * len(names)
        pictures.heat(axis, values, labels, layers, low=0, high=1)
        axis.set_title(title)
        axis.tick_params(axis="x", rotation=60)
    figure.colorbar(axes[-1].images[0], ax=axes[-1], label="share, or cosine")
    rows = [
        [
            name,
            len(found["pairs"][name]),
            str(mean(layer["above_random"], "pairs")),
            layer["p"],
            shown(float(np.median(layer["rank"]))),
            shown(float(np.median(layer["rank_without"]))),
            ", ".join(" → ".join(map(repr, pair)) for pair in found["pairs"][name][:2]),
        ]
        for name in names
        for layer in found["found"][name][:1]
    ]
    return Section(
        f"Relations between words as directions ({found['model']})",
        "Fixed lists of words; of each relation the pairs (a, b) that the model has as single tokens. A word is taken alone "
        "after the beginning-of-text token; its vector is the residual stream there, less the mean over all tokens. The offset "
        "of a relation is the mean of b - a over all pairs but the one that is asked: every pair is held out once. The list of "
        "nouns leaves out words whose form with an s is mostly a verb in the text of programs (calls, returns, uses).\n\n"
        "Above a random pair: the probability that a held-out pair's offset is nearer to the relation's than that of random "
        "words; ½ by chance. b first: whether b is the nearest of all tokens, by cosine, to a + offset, and to a alone. p: how "
        "often words b that are dealt out at random to the words a have as large a mean cosine; their mean offset is the same, "
        "so p asks whether b belongs to its a, not whether the two kinds differ.",
        [
            Table(
                [
                    "relation, embedding",
                    "pairs",
                    "above a random pair",
                    "p",
                    "median rank of b",
                    "of a alone",
                    "for example",
                ],
                rows,
            )
        ],
        {"relations": (figure, "Relations (pairs) in every layer of the residual stream.")},
    )


def neurons_section(found: dict[str, Any]) -> Section:
    qualities = [f"{name} ({n})" for name, n in zip(found["qualities"], found["n_tokens"], strict=True)]
    kinds = ("unit", "rotated", "direction")
    figure, axes = pictures.axes(1, 2, 9, 5)
    for axis, site, name in (
        (axes[0], "mlp.hook_post", "MLP neurons"),
        (axes[1], "hook_resid_post", "residual stream"),
    ):
        rows = [rows for point, rows in found["points"].items() if point.endswith(site)]
        best = np.array([[row[kind] for row in rows] for kind in kinds]).max(1).T
        labels = qualities if axis is axes[0] else [""] * len(qualities)
        pictures.heat(
            axis, best.tolist(), labels, ["one unit", "one unit,\nrotated basis", "a direction"], low=0.5, high=1
        )
        axis.set_title(f"{name}: AUC in the best layer")
    figure.colorbar(axes[1].images[0], ax=axes[1], label="AUC")
    return Section(
        "Are features neurons?",
        "Qualities of tokens that their text tells (in brackets: how many tokens have it), in each token alone after the "
        "beginning-of-text token. One unit: the best neuron. Rotated basis: the best of as many coordinates of a random "
        "rotation. A direction: a linear probe. Units and probes are chosen on half of the tokens, and measured on the other.",
        figures={
            "neurons": (figure, "How well a unit, a unit of a rotated basis and a direction tell qualities apart.")
        },
    )
