"""The page of the polytopes toy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.page import Page, Section, Table
from stores.manifest import seed_of


def page(numbers: Mapping[str, Any]) -> Page:
    language = numbers["language"]
    sections = [
        _codes(numbers["codes"]),
        _density(numbers["density"]),
        _scaling(numbers["scaling"]),
        _gelu(numbers["gelu"]),
    ]
    sections.append(_clusters(language["clusters"]))
    if language["validity"]:
        sections.append(_validity(language["validity"]))
    return Page(
        "The polytope lens",
        "A ReLU network is affine on each polytope of its input space. Which polytope an activation lies in, its spline code, "
        "is another unit to read a network by than a direction: it needs no assumption that features add up. The first "
        "sections use a small net that reads digits, the last two a language model. Source: Black et al. 2022.",
        sections,
    )


def _codes(found: dict[str, Any]) -> Section:
    side = found["side"]
    figure, (left, right) = pictures.axes(1, 2, 9, 4.2)
    colours = np.random.default_rng(seed_of("polytope colours")).uniform(0.35, 1, (found["n_polytopes"], 3))
    image = colours[np.array(found["polytopes"]).reshape(side, side)]
    extent = (-0.3, 1.3, -0.3, 1.3)
    left.imshow(image, origin="lower", extent=extent, interpolation="nearest")
    answers = np.array(found["answers"]).reshape(side, side)
    right.imshow(answers, origin="lower", extent=extent, cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
    for axis, title in ((left, f"{found['n_polytopes']} polytopes"), (right, "the net's answer")):
        for (u, v), name in (((0, 0), "0"), ((1, 0), "1"), ((0, 1), "7")):
            axis.scatter([u], [v], s=90, color="white", edgecolor="black", zorder=3)
            axis.annotate(name, (u, v), ha="center", va="center", fontsize=8, zorder=4)
        axis.set(title=title, xticks=[], yticks=[])
    return Section(
        "Spline codes",
        f"The net has {found['n_units']} hidden ReLUs and reads {found['accuracy']:.1%} of the digits that it has not seen. "
        f"The {found['n_rows']} of them lie in {found['n_codes']} different polytopes. From each code alone the affine map A x "
        f"+ c is built, and equals the network to {found['greatest_error']:.0e}.",
        figures={
            "slice": (figure, "The plane through a 0, a 1 and a 7: a colour each polytope; a colour each answer.")
        },
    )


def _density(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3)
    for i, (name, row) in enumerate(found["paths"].items()):
        t = (np.arange(len(row["along"])) + 0.5) / len(row["along"])
        left.plot(
            t,
            row["along"],
            color=pictures.COLOURS[i],
            label=f"{name}: {row['density']:.1f} ± {row['standard_error']:.1f}",
        )
    left.set(
        xlabel="place on the path", ylabel="code flips a unit of length", title="between two digits", ylim=(0, None)
    )
    left.legend(frameon=False, fontsize=7, loc="lower center")
    right.plot(found["radius"], found["radial"], color=pictures.COLOURS[2])
    right.axvline(found["data_radius"], color="#999999", lw=0.8, ls="--")
    right.annotate(" digits", (found["data_radius"], right.get_ylim()[0]), fontsize=7, color="#666666", va="bottom")
    right.set(xlabel="distance from the mean digit", title="outwards from the mean", ylim=(0, None))
    return Section(
        "Where the boundaries lie",
        "Boundaries crossed on straight paths. They are denser between digits of two classes than within one, almost all along "
        "the path. Outwards they thin out beyond the data: all of them pass near it, and far away the network is a few "
        "large cones.",
        figures={
            "density": (figure, "Boundaries crossed a unit of length (left: mean ± standard error in the legend).")
        },
    )


def _scaling(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3)
    for i, (name, row) in enumerate(found.items()):
        curve = np.array(row["curve"])
        left.plot(curve[:, 0], curve[:, 1], marker=".", color=pictures.COLOURS[i], label=name)
        right.plot(
            curve[:, 0], np.where(curve[:, 2] > 1e-9, curve[:, 2], np.nan), marker=".", color=pictures.COLOURS[i]
        )
    for axis in (left, right):
        axis.set(xscale="log", xlabel="factor")
        axis.set_xticks([0.1, 0.5, 1, 2, 10], ["0.1", "0.5", "1", "2", "10"])
        axis.minorticks_off()
    left.set(ylabel="fraction of the code flipped")
    left.legend(frameon=False)
    right.set(ylabel="KL of the output, nats", yscale="log")
    greatest = max(row[1] for row in found["without biases"]["curve"])
    return Section(
        "Scaling an activation: the digits net",
        "A direction means the same at any length only as long as scaling it crosses no boundary. The first hidden layer is "
        "scaled and what follows is computed. Without biases the code cannot change "
        f"(greatest fraction flipped: {greatest:g}), only the output's scale; with biases it does, mostly where the "
        "activation is made small and the biases take over.",
        figures={"scaling": (figure, "Codes and output of the digits net against the factor.")},
    )


def _gelu(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 5.5, 3)
    axis.plot(found["h"], found["q"], color=pictures.COLOURS[0], label="soft code q = gelu(h) / h")
    axis.plot(found["h"], found["slope"], color=pictures.COLOURS[1], label="slope gelu'(h)")
    axis.plot(
        found["h"], (np.array(found["h"]) > 0).astype(float), color="#aaaaaa", lw=0.8, ls="--", label="ReLU's code"
    )
    axis.set(xlabel="h")
    axis.legend(frameon=False, fontsize=7)
    return Section(
        "Soft codes for GELU",
        "GPT-2's activation is h times a gate q between 0 and 1: a polytope's boundary made soft. The gate is what the value "
        "is multiplied by; a small change is multiplied by the slope, which is another function and runs from "
        f"{found['slope_range'][0]:.3f} to {found['slope_range'][1]:.3f}. Both agree with torch to "
        f"{max(found['value_error'], found['slope_error']):.0e}.",
        figures={"gelu": (figure, "The gate and the slope.")},
    )


def _clusters(found: dict[str, Any]) -> Section:
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
        f"vectors at positions {', '.join(map(str, found['positions']))} of each sequence: {found['n_clusters']} clusters of "
        f"{found['n_rows']} rows, {found['noise']:.0%} in none.{distances} The largest ones, with the token that most of "
        "their rows stand at:",
        [Table(["rows", "commonest token", "its share", "contexts, ending at the token"], rows)],
    )


def _validity(found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 2, 9, 3.2)
    for axis, site in zip(axes, ("hook_resid_post", "mlp.hook_post")):
        layers = [(name, values) for name, values in found["kl"].items() if name.endswith(site)]
        for i, (name, values) in enumerate(layers):
            shown = np.where(np.array(values) > 1e-7, values, np.nan)
            colour = pictures.COLOURS[i % len(pictures.COLOURS)]
            axis.plot(found["factors"], shown, marker=".", color=colour, label=f"layer {name.split('.')[1]}")
        axis.set(xscale="log", yscale="log", xlabel="factor", title=site)
        axis.set_xticks([0.1, 0.5, 1, 2, 10], ["0.1", "0.5", "1", "2", "10"])
        axis.minorticks_off()
    axes[0].set_ylabel("KL of the output, nats a token")
    axes[0].legend(frameon=False, fontsize=7)
    low, high = min(min(axis.get_ylim()) for axis in axes), max(max(axis.get_ylim()) for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
    return Section(
        f"Scaling an activation: the language model ({found['model']})",
        "The distribution of validity: how far an activation can be scaled before the output is another one. A layer norm "
        "follows every residual stream, so a common factor would leave the next layer's input as it is; what changes the "
        "output is that later layers add to a stream of another length. The earlier the layer, the more. Of a residual "
        "stream, making it small is worse than making it large by the same factor; of an MLP's neurons, it is the other way "
        "round in all layers but the first. Behind the last residual stream comes nothing but the layer norm, so it may have "
        "any length (its line is off the picture).",
        figures={"validity": (figure, f"KL over {found['n_tokens']:,} tokens when one layer is scaled.")},
    )
