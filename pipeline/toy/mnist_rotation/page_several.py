"""Sections of the page: what rotations do to many nets, to kinds of training, and what a change of coordinates is good for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean
from pipeline.toy.mnist_rotation.checks_regimes import NAMES
from pipeline.toy.mnist_rotation.equivalent import STRENGTHS
from pipeline.toy.mnist_rotation.several import LAYERS
from pipeline.toy.page import Section, Table

_WAYS = {"turn": "from the pixels", "back": "from the logits", "own": "each for itself"}


def estimated(values: Sequence[float], percent: bool = True) -> str:
    """Their mean and its interval, as text."""
    found = mean(values)
    scale, digits = (100, 1) if percent else (1, 3)
    low, high = (f"{scale * v:.{digits}f}" for v in (found.low, found.high))
    return f"{scale * found.value:.{digits}f}{'%' if percent else ''} ({low} to {high})"


def strip(axis: Any, place: float, values: Sequence[float], colour: str, label: str | None = None) -> None:
    """A mark for each net and a line at their mean."""
    shift = np.linspace(-0.08, 0.08, len(values))
    axis.scatter(place + shift, values, s=6, color=colour, alpha=0.5, lw=0)
    axis.plot([place - 0.13, place + 0.13], [np.mean(values)] * 2, color=colour, lw=2, label=label)


def layers_section(found: Mapping[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 10, 3.4)
    for w, (way, label) in enumerate(_WAYS.items()):
        for i, layer in enumerate(LAYERS):
            values = [100 * v for v in found[f"{way}_{layer}"]["gain"]]
            strip(left, i + 0.28 * (w - 1), values, pictures.COLOURS[w], label if i == 0 else None)
    left.axhline(0, color="#999999", lw=0.8)
    left.set_xticks(range(3), [f"{layer} layer" for layer in LAYERS])
    left.set(ylabel="fall of the objective, %", title="what rotations reach")
    left.legend(frameon=False, fontsize=8)
    cosines = {
        "last layer and identity,\nin turn": found["identity_turn"],
        "…, its inputs\nthe neurons": found["identity_alone"],
    }
    cosines |= {f"output, next input,\nhidden {i}": found[f"hidden_{i}"] for i in (1, 2)}
    nulls = [found["null_10"]] * 2 + [found["null"]] * 2
    for i, (values, null) in enumerate(zip(cosines.values(), nulls)):
        strip(right, i - 0.15, values, pictures.COLOURS[0], "found" if i == 0 else None)
        strip(right, i + 0.18, null, pictures.COLOURS[6], "random bases" if i == 0 else None)
    right.set_xticks(range(len(cosines)), list(cosines), fontsize=7)
    right.set(ylim=(0, 1.03), ylabel="mean |cosine|, matched", title="do bases agree?")
    right.legend(frameon=False, fontsize=8)
    rows = []
    for layer in LAYERS:
        turn = found[f"turn_{layer}"]
        rows.append(
            [f"{layer} layer", *(float(np.mean(turn[key])) for key in ("before", "random"))]
            + [float(np.mean(found[f"{way}_{layer}"]["after"])) for way in _WAYS]
            + [estimated(turn["gain"])]
        )
    alone = found["alone"]
    rows.append(
        [
            "last, its inputs the neurons",
            float(np.mean(alone["before"])),
            float(np.mean(alone["random"])),
            None,
            None,
            float(np.mean(alone["after"])),
            estimated(alone["gain"]),
        ]
    )
    return Section(
        f"All layers, {len(found['unchanged'])} nets",
        "From the pixels: R₀ = I, then one layer after another. From the logits: R₃ = I, then backwards; then the axes of the "
        "pixels are turned too. For itself: both sides of a layer are free but pixels and logits. The objective is the mean of "
        "log(1 + (J/ε)²), each input's Jacobian in units of its root mean square, ε = .1: lower is sparser. Random rotations "
        "stand in the places of the chain's from the pixels.\n\n"
        "Do bases agree? Axes are matched one to one, signs left out: 1 is the same basis. A layer's output axes and the next "
        "one's input axes are those of layers rotated each for itself.",
        [Table(["objective", "neurons", "random", *_WAYS.values(), "fall, from the pixels (95%)"], rows)],
        {"layers": (figure, "One mark a net (right, grey: a pair of random bases), lines: means.")},
    )


def inputs_section(found: Mapping[str, Any]) -> Section:
    rows = [[str(row["n"]), estimated(row["fitted"]), estimated(row["heldout"])] for row in found["rows"]]
    return Section(
        "Rotations from few inputs",
        "R₁ and R₂ are fitted to the first n training inputs. The fall of the middle layer's objective from neurons, at these "
        "inputs and at held-out ones, mean over nets and its 95% interval.",
        [Table(["n", "at the fitted inputs", "at held-out inputs"], rows)],
    )


def regimes_section(numbers: Mapping[str, Any]) -> Section:
    kinds = {name: numbers[f"regime_{name}"] for name in NAMES if f"regime_{name}" in numbers}
    figure, axis = pictures.axes(1, 1, 10, 3.6)
    for i, found in enumerate(kinds.values()):
        for j, (key, colour) in enumerate((("random", 6), ("before", 1), ("after", 0))):
            label = {"random": "random rotations", "before": "neurons", "after": "rotated"}[key] if i == 0 else None
            strip(axis, i + 0.26 * (j - 1), found[key], pictures.COLOURS[colour], label)
    axis.set_xticks(range(len(kinds)), [NAMES[name] for name in kinds], rotation=35, ha="right")
    axis.set(ylabel="objective, held-out (lower is sparser)")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    rows = [
        [NAMES[name], float(np.mean(f["accuracy"])), float(np.mean(f["loss"]))]
        + [float(np.mean(f[key])) for key in ("random", "before", "after")]
        + [estimated(f["gain"]), float(np.mean(f["mass_after"]))]
        for name, f in kinds.items()
    ]
    n = len(next(iter(kinds.values()))["gain"])
    return Section(
        "Which training makes it local?",
        f"{n} nets of each kind, which differs from the small nets (plain) in one thing. The layers between two hidden ones, "
        "rotated in the chain from the pixels; mean over these layers where there are several. Objectives are means over "
        "entries, so that widths can be compared. A wider net has more axes to choose from. Claims compare "
        "kinds that differ in one thing, rotated and in neurons, by Welch's intervals, made wider so that all of them hold at "
        "once with 95%.",
        [
            Table(
                [
                    "kind",
                    "accuracy",
                    "training loss, nats",
                    "random",
                    "neurons",
                    "rotated",
                    "fall (95%)",
                    "J² in 1%, rotated",
                ],
                rows,
            )
        ],
        {"regimes": (figure, "Sparsity of hidden layers by kind of training: one mark a net, lines: means.")},
    )


def equivalent_section(attacked: Mapping[str, Any], tuned: Mapping[str, Any]) -> Section:
    rows = [
        [f"{s:g}", *(estimated(attacked[f"{name}_{s:g}"]) for name in ("neurons", "rotated"))] for s in (0, *STRENGTHS)
    ]
    trained = [
        [f"{label}, rate {tuned['rates'][kind]:g}"]
        + [
            estimated(tuned[f"{name}_{kind}_{what}"], what == "accuracy")
            for what in ("accuracy", "loss")
            for name in ("neurons", "rotated")
        ]
        for kind, label in (("sgd", "gradient descent"), ("adam", "Adam"))
    ]
    return Section(
        "Attacks, and training that goes on",
        "Each pixel of a test image is moved by a fixed amount in the direction that raises the loss (fast gradient sign "
        "method). The direction and the prediction are those of the net in its neurons, or of the net in rotated coordinates. "
        "Both are the same function, so their gradients by the pixels are the same.\n\n"
        f"Training that goes on: nets stopped after a quarter of the steps are trained {tuned['n_steps']} steps more, the "
        "weights free in neurons or in rotated coordinates. Gradient descent moves alike in all orthogonal coordinates; Adam, "
        "which treats each coordinate by itself, does not have to.",
        [
            Table(["pixels moved by", "accuracy, neurons", "accuracy, rotated"], rows),
            Table(
                [
                    "trained on by",
                    "accuracy, neurons",
                    "accuracy, rotated",
                    "training loss, neurons",
                    "training loss, rotated",
                ],
                trained,
            ),
        ],
    )
