"""The section of the page on how few axes decide what the net says."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.mnist_rotation.few import BASES, CHOICES, FILLS, LOSS
from pipeline.toy.mnist_rotation.page_several import estimated
from pipeline.toy.page import Section, Table

_SITES = {"read": "hidden layer 1, which the middle layer reads", "written": "hidden layer 2, which it writes"}


def section(found: Mapping[str, Any]) -> Section:
    n, kept = found["n"], found["kept"]
    figure, axes = pictures.axes(2, 2, 10, 6)
    for row, (site, name) in zip(axes, _SITES.items(), strict=True):
        for i, basis in enumerate(BASES):
            course = found["curves"][f"{site}, {basis}"]
            row[0].plot(n, [100 * v for v in course["accuracy"]], color=pictures.COLOURS[i], lw=1.2, label=basis)
            row[1].plot(n, np.maximum(course["kl"], 1e-6), color=pictures.COLOURS[i], lw=1.2)
        for axis in row:
            axis.axvline(kept, color="#cccccc", zorder=0)
            axis.set(xlabel="axes kept", title=name)
        row[0].axhline(100 * np.mean(found["full"]), color="#999999", lw=0.8, ls="--")
        row[0].set(ylabel="accuracy, %")
        row[1].set(ylabel="KL, nats", yscale="log", ylim=(1e-4, None))
    axes[0][0].legend(frameon=False, fontsize=8)
    rows = [
        [
            f"{site}: {basis}",
            estimated(found["mass"][f"{site}, {basis}"]),
            estimated(at["accuracy"]),
            estimated(at["same"]),
            estimated(at["kl"], False),
            float(np.mean(found["needed"][f"{site}, {basis}"])),
        ]
        for site in _SITES
        for basis in BASES
        for at in [found["at"][f"{site}, {basis}, axes, mean"]]
    ]
    others = [
        [f"{site}: {basis}"]
        + [
            float(np.mean(found["at"][f"{site}, {basis}, {choice}, {fill}"]["accuracy"]))
            for choice in CHOICES
            for fill in FILLS
        ]
        for site in _SITES
        for basis in BASES
    ]
    return Section(
        "How few axes decide?",
        "The discussion reads off the source's picture that fewer than 20 neurons determine most of the output, and asks for "
        f"the effect on performance. {len(found['full'])} nets of {n[-1]} neurons a layer are cut; whole, their accuracy is "
        f"{estimated(found['full'])}. In a basis of one hidden layer n coordinates are kept, those with the most of the middle "
        "layer's mean squared Jacobian; the others are set to their mean over training inputs. KL: of the net's distribution "
        "over digits from that of the cut one. In turn: R₁ and R₂ of the chain from the pixels; for itself: both sides of the "
        f"middle layer free; mean Jacobian: its singular vectors. Needed: the fewest axes that lose at most {LOSS:.0%} of all "
        "inputs.\n\n"
        f"The second table: accuracy with {kept} coordinates when the others are set to their mean or to 0, and when the kept "
        "ones are chosen anew for each input, those farthest from what the others are set to.",
        [
            Table(
                [f"{kept} axes kept", "of J² on them", "accuracy", "same prediction", "KL, nats", "axes needed"], rows
            ),
            Table(
                [
                    f"accuracy, {kept} kept",
                    "same axes, mean",
                    "same axes, 0",
                    "each input's own, mean",
                    "each input's own, 0",
                ],
                others,
            ),
        ],
        {"few": (figure, f"Means over nets against the axes kept; grey: {kept} axes; dashed: nothing cut.")},
    )
