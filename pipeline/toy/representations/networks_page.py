"""Sections on what small networks do with qualities, and with two numbers in one."""

from typing import Any

import numpy as np
import torch

from pipeline.toy import pictures
from pipeline.toy.findings import mean, rate
from pipeline.toy.page import Section, Table
from pipeline.toy.representations.computing import DECODED, FUNCTIONS, NOT_DECODED, grid, value


def qualities_section(found: dict[str, Any], other: dict[str, Any]) -> Section:
    examples = found["examples"]
    figure, axes = pictures.axes(1, len(examples), 9, 1.3)
    for i, (axis, example) in enumerate(zip(axes, examples)):
        axis.imshow(np.array(example, dtype=np.uint8))
        axis.set(xticks=[], yticks=[], title="trained on" if i == 0 else "never seen" if i == 6 else "")
    read = [
        ["the net", found["net"]],
        ["a linear probe of its layer", found["probe"]],
        ["the same, of nets that memorise random labels", other["probe"]],
        ["the same, of nets that were not trained", found["untrained"]],
        ["look-up table: the nearest picture", found["table"]],
    ]
    columns = ["read by", "ground", "shape", "shape on purple"]
    rows = [[name, *(str(mean(v[key])) for key in ("ground_new", "shape_new", "shape_purple"))] for name, v in read]
    second, (left, middle, right) = pictures.axes(1, 3, 10, 3)
    left.boxplot(list(found["unit_auc"].values()), tick_labels=list(found["unit_auc"]))
    left.set(ylabel="AUC of the best unit", ylim=(0.5, 1.02), title="single units")
    units = np.array(found["purple_units"])
    middle.scatter(units[:, 0], units[:, 1], s=8, color=pictures.COLOURS[3], alpha=0.6, lw=0)
    middle.set(xlabel="the unit for red", ylabel="the unit for blue", title="answer to purple, 1: as to its own colour")
    right.hist(found["interaction"], 20, color=pictures.COLOURS[0], alpha=0.7, label="no sum of ground and shape")
    right.hist(
        1 - np.array(found["shade_component"]), 20, color=pictures.COLOURS[1], alpha=0.7, label="shades off one line"
    )
    right.set(xlabel="share of variance", ylabel="nets", title="what is left of linearity")
    right.legend(frameon=False, fontsize=7)
    return Section(
        "Ground and shape: do discrete qualities generalise?",
        f"Pictures of 12 by 12 pixels: a circle or a triangle of equal area on a red or a blue ground; place, size and both "
        f"shades vary. Each net (two hidden layers of 48) gets {found['n_pictures']} pictures of its own and learns to name "
        f"which of the four kinds a picture is; the share that it names rightly is {mean(found['fitted'])}. "
        "The layer is the last hidden one. "
        "Purple, half red and half blue, is in no training picture. The nets that memorise get the same pictures with random "
        f"labels; the share of these that they know is {mean(other['fitted'])}. The share of new pictures that they name as "
        f"the nearest picture of their own is labelled is {mean(other['as_table'])}; by chance it would be "
        f"{mean(other['as_table_chance'])}.\n\n"
        "A net reads the shape on purple as the more probable of its two shapes, over both grounds. Probes are fitted on the "
        "training pictures. Left: for each quality the best unit's probability to be higher in a picture that has it. Middle: "
        "a net a point. Right: share of the variance between the four kinds' mean activations that is no sum of a part of "
        "the ground and one of the shape; share of the variance over shades of red that is off its first principal direction. "
        f"In untrained nets the first of these is {mean(found['interaction_untrained'])}, and the share on the first direction "
        f"{mean(found['shade_component_untrained'])}. "
        f"P(blue) that nets give a purple ground: {mean(found['purple_blue'])}.",
        [Table(columns, rows)],
        {
            "pictures": (figure, "Pictures of one net's training, and two with a ground that it has not seen."),
            "qualities": (second, "Units, purple, and how linear the layer is."),
        },
    )


def sizes_section(by_hand: dict[str, Any], found: dict[str, Any]) -> Section:
    figure, axes = pictures.axes(1, 3, 9, 2.6)
    x, y, t = grid(10)
    for axis, name in zip(axes, FUNCTIONS):
        axis.plot(
            t.numpy(), value(name, x, y).to(torch.double).numpy(), color=pictures.COLOURS[0], lw=1, marker=".", ms=3
        )
        axis.set(title=name, xlabel="t = (floor(10 x) + y) / 10")
    axes[0].set_ylabel("value")
    bases = by_hand["base"]
    hand = [[name, *(f"{units} ({turns})" for units, _, turns in by_hand["found"][name])] for name in FUNCTIONS]
    rows = [
        [f"{name}, {label}", *(_share(found[code].get(str(base), {}).get(name)) for base in found["base"])]
        for name in FUNCTIONS
        for code, label in (("code", "from t"), ("linear", "from the pair (x, y)"))
    ]
    return Section(
        "Computing on two numbers that share one: the size of nets",
        "x has Z values 0, 1/Z, …; y is 0, .1, … .9; t = (floor(Z x) + y) / Z, so Z = 10 is the source's grid of 100 pairs. As "
        "functions of t the sum, the product and x > y turn again and again (above). One layer of ReLUs of t can do each "
        "exactly: one unit wherever the slope changes. A layer of n ReLUs of one number turns at most n times.\n\n"
        f"Trained nets have hidden layers of {' and '.join(map(str, found['widths']))} and see all points. A net counts if it "
        "is within .05 everywhere; for x > y, when it is on the right side of ½.",
        [
            Table(
                ["ReLUs written by hand, one layer (turns: fewer units cannot)", *(f"Z = {base}" for base in bases)],
                hand,
            ),
            Table(["nets that learn it", *(f"Z = {base}" for base in found["base"])], rows),
        ],
        {"functions": (figure, "Three functions of two numbers, against the one number that holds both; Z = 10.")},
    )


def _share(good: list[bool] | None) -> str:
    return "" if good is None else str(rate(sum(good), len(good), "nets"))


def regimes_section(found: dict[str, Any]) -> Section:
    names = list(found["r2"])
    figure, axes = pictures.axes(1, len(found["widths"]), 9, 3.2)
    for layer, axis in enumerate(np.atleast_1d(axes)):
        for shift, key, colour, label in ((-0.15, "r2_before", 6, "before training"), (0.15, "r2", 0, "after")):
            for i, name in enumerate(names):
                values = np.clip(np.array(found[key][name])[:, layer], 0, 1)
                jitter = np.linspace(-0.1, 0.1, len(values))
                axis.scatter(
                    i + shift + jitter, values, s=4, color=pictures.COLOURS[colour], lw=0, alpha=0.6,
                    label=label if i == 0 else None,
                )  # fmt: skip
        for bound in (DECODED, NOT_DECODED):
            axis.axhline(bound, color="#cccccc", lw=0.8, zorder=0)
        axis.set_xticks(range(len(names)), [name.replace(" function", "\nfunction") for name in names])
        axis.set(ylim=(-0.05, 1.05), title=f"hidden layer {layer + 1}", ylabel="R² of y, linear, held out")
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=7, loc="lower left")
    rows = []
    for name in names:
        good, after, before = (np.array(found[key][name]) for key in ("computed", "r2", "r2_before"))
        learned, began = after[good], before[good]
        rows.append(
            [
                name,
                _share(list(good)),
                str(rate(int((learned.max(1) >= DECODED).sum()) if len(learned) else 0, len(learned), "nets")),
                str(rate(int((began.max(1) >= DECODED).sum()) if len(began) else 0, len(began), "nets")),
                str(rate(int((learned.max(1) <= NOT_DECODED).sum()) if len(learned) else 0, len(learned), "nets")),
                str(mean(learned[:, 0].tolist(), "nets")),
                str(mean(began[:, 0].tolist(), "nets")),
            ]
        )
    return Section(
        "Decompressing first, or computing in the compressed state?",
        f"Nets as above, Z = {found['base']}. x is nearly t, so only y tells whether a layer has taken t apart: from t itself "
        f"a line reads y with R² = {found['r2_of_t']:.2f}. A layer counts as decompressed if a linear map reads y from it with "
        f"R² ≥ {DECODED} (figure 8 of the source); a net computes in the compressed state when no hidden layer does so with "
        f"R² > {NOT_DECODED} (figure 9). Each point is predicted from all others. Grey lines: the two bounds.\n\n"
        "Two controls. The same nets before training: what their kinks hold that are not made for it. Nets that are "
        "trained on another function of t, with as many teeth, that begin halfway between those of y. The table has the nets "
        "that learn their function; the figure has all.",
        [
            Table(
                [
                    "function", "nets that learn it", "of these: decompressed", "so before training",
                    "of these: compressed", "their R² of y, first layer", "the same before training",
                ],
                rows,
            )
        ],
        {"regimes": (figure, "How well y is read from the hidden layers, a point a net; values below 0 are drawn there.")},
    )  # fmt: skip
