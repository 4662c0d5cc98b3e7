"""The page of the digits net's rotations: what one sees through them, and what they miss."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.toy.mnist_rotation import page_few as few
from pipeline.toy.mnist_rotation import page_search as search
from pipeline.toy.mnist_rotation import page_several as several
from pipeline.toy.page import Page, Section, Table
from pipeline.train.rotations.pictures import agreement_figure, rotation_figure


def page(numbers: Mapping[str, Any]) -> Page:
    found = numbers["rotation"]
    c, widths, accuracies = found["config"], found["widths"], found["accuracy"]
    whose = f" The net is {c['model']}; all others on this page are trained here." if c["model"] else ""
    return Page(
        "Rotations that make a small net's layers local",
        f"A net of {len(widths) - 1} layers ({' → '.join(map(str, widths))}, {c['activation']}) reads digits, "
        f"{accuracies['test']:.1%} of the held-out ones rightly. Its neurons need not be the axes of what it computes. Here "
        "each layer's activations are rotated so that each output axis depends on few input axes: Rₗ Jₗ Rₗ₋₁ᵀ, the layer's "
        "Jacobian in the new axes, is to have as many entries near 0 as it can, on average over inputs. Pixels keep their "
        f"own axes, then R₁, R₂, R₃ … follow. Source: Baker 2022, and its discussion.{whose}\n\n"
        f"Claims are decided over {c['n_nets']} nets of {c['small_width']} neurons a layer, which differ in their first "
        f"weights; their rotations are fitted to {c['small_fit']} training inputs. What a rotation reaches is the fall of "
        f"the objective ({c['objective']}) from neurons, on held-out inputs. The source's text does not say which measure "
        "of sparsity it took.",
        [
            several.layers_section(numbers["chains"]),
            several.inputs_section(numbers["few_inputs"]),
            few.section(numbers["few"]),
            search.descent_section(numbers["descent"]),
            search.objectives_section(numbers["objectives"]),
            search.maps_section(numbers["maps"]),
            search.bounds_section(numbers["bounds"]),
            several.regimes_section(numbers),
            several.equivalent_section(numbers["attacked"], numbers["finetuned"]),
            _middle_section(found, numbers["by_n_fit"]["rows"]),
            _maps_section(found, numbers["starts"]),
            _layers_section(found, numbers["agreements"]),
            _agreement_section(numbers["agreements"]["hidden"]),
        ],
    )


_SHOWN = ("log", "l1", "hoyer", "mass_in_1%")
_COLUMNS = ("log(1 + (J/ε)²)", "|J|", "Hoyer", "J² in the largest 1%")


def _values(measures: Any) -> list[float]:
    """Of one measure(), or the mean of several."""
    several = measures if isinstance(measures, list) else [measures]
    return [float(np.mean([m[name] for m in several])) for name in _SHOWN]


def _net(found: dict[str, Any]) -> str:
    """Which net the parts on one net look at."""
    return found["config"]["model"] or f"one of {found['config']['width']} neurons a layer, trained here"


def _middle_section(found: dict[str, Any], rows: list[dict[str, Any]]) -> Section:
    middle, c = found["layers"][1], found["config"]
    objective = c["objective"]
    names = {"before": "neurons", "after": "rotated", "random": "random rotations"}
    table = [[label, *_values(middle["heldout"][name])] for name, label in names.items()]
    fitted = [
        [str(row["n"]), row["train"][objective], row["heldout"][objective], row["heldout"]["mass_in_1%"]]
        for row in rows
    ]
    figure = rotation_figure(
        "The middle layer, rotated on both sides",
        {name: np.array(values) for name, values in found["magnitude"].items()},
        middle,
        history=(f"mean {objective}, fitted inputs", list(enumerate(found["history"], 1))),
        by_n_fit=rows,
        objective=objective,
    )
    return Section(
        "One net: its middle layer",
        f"From here on one net is looked at, {_net(found)}: its second layer, rotations fitted to {max(c['n_fit'])} inputs. "
        f"With all of them spliced in, no logit differs by more than {found['unchanged']:.0e}; the largest is "
        f"{found['largest_logit']:.0f}. Means over {c['n_heldout']} inputs that neither training nor fit has seen, each "
        "input's Jacobian in units of its root mean square, ε = 0.1. Lower is sparser but for the last column; -1 is Hoyer's "
        "sparsest. A random rotation says what no axes at all look like. Where a ReLU is off, a neuron's row is 0.\n\n"
        "The second table: rotations fitted to fewer inputs, measured on these and on held-out ones.",
        [
            Table(["held-out inputs", *_COLUMNS], table),
            Table(
                ["fitted to", f"{objective} on these", "on held-out inputs", "J² in the largest 1%, held-out"], fitted
            ),
        ],
        {
            "middle": (
                figure,
                f"Above: the mean |Jacobian| on held-out inputs, and its entries by size. Below, steps: {c['n_iterations']} "
                "that raise ΣJ⁴ (MSP), a bend, then Adam on the measure itself.",
            )
        },
    )


def _maps_section(found: dict[str, Any], starts: dict[str, Any]) -> Section:
    inverse, middle = found["invertible"], found["layers"][1]["heldout"]
    objective = found["config"]["objective"]
    starts, beside = {k: v for k, v in starts.items() if k != "beside"}, starts["beside"]
    ends = [m[objective] for m in (middle["after"], *starts.values())]
    rows = [
        ["neurons", *_values(middle["before"])],
        ["rotation, from the identity", *_values(middle["after"])],
        *([f"rotation, from {init}", *_values(values)] for init, values in starts.items()),
        ["rotation, beside the identity", *_values(beside)],
        ["any invertible map", *_values(inverse["heldout"])],
    ]
    return Section(
        "One net: other starts, and maps that are no rotations",
        "The fit of R₂ from other starts: at random, the QR or singular vectors of the weights, the eigenvectors of the mean "
        f"JJᵀ. These end between {min(ends):.2f} and {max(ends):.2f}, from {middle['before'][objective]:.2f}. All of them "
        "leave their start behind first, by MSP and a large ε. Beside the identity: the descent goes straight from it, "
        f"without these ({beside[objective]:.2f}).\n\n"
        "In the last line R₂ may be any invertible matrix with rows of unit length, kept apart by a penalty on "
        f"log(1/|det|); its condition number is {inverse['condition']:.1f}.",
        [Table(["R₂ on held-out inputs", *_COLUMNS], rows)],
    )


def _layers_section(found: dict[str, Any], agreements: dict[str, Any]) -> Section:
    n, objective = len(found["layers"]), found["config"]["objective"]
    places = ["pixels", *(f"hidden {i}" for i in range(1, n)), "logits"]
    names = [f"{a} → {b}" for a, b in pairwise(places)]
    layers = []
    own, mean = agreements["own"], agreements["mean_svd"]
    for name, layer, alone in zip(names, found["layers"], own, strict=True):
        held = layer["heldout"]
        random = float(np.mean([m[objective] for m in held["random"]]))
        layers.append([name, held["before"][objective], held["after"][objective], alone[objective], random])
    last = found["last"]
    kept = ", ".join(names[i - 1] for i in found["kept"])
    unturned = f"Not turned, for what was found is no sparser on the fitted inputs: {kept}. " if kept else ""
    return Section(
        "One net: all layers",
        f"The mean of {objective} on held-out inputs, of {_net(found)}. {unturned}The last rotation turns the logits: "
        "it agrees with the identity by "
        f"{last['identity']:.2f}, as mean |cosine| of axes matched one to one, random bases by {np.mean(last['random']):.2f}. "
        "In turn, R₁ is chosen for the first layer alone; for itself, both sides of a layer are free but pixels and logits. "
        f"The mean Jacobian has {mean['linear']:.0%} of the middle layer's mean J²: that share is linear. Its singular "
        f"vectors alone reach {mean[objective]:.2f} there ({mean['mass_in_1%']:.2f} of J² in the largest 1%; rotated for "
        f"itself {own[1]['mass_in_1%']:.2f}). Kurtosis of the activations along the axes: 3 is a normal distribution's.",
        [
            Table(["layer", "neurons", "rotated in turn", "rotated for itself", "random rotations"], layers),
            Table(["kurtosis", "neurons", "rotated"], [[name, *values] for name, values in found["kurtosis"].items()]),
        ],
    )


def _agreement_section(found: dict[str, Any]) -> Section:
    rows = [[name, v["output_input"], float(np.mean(v["random"])), max(v["random"])] for name, v in found.items()]
    return Section(
        "One net: does one layer write in the basis in which the next one reads?",
        "Each layer is rotated for itself, both of its sides at once (pixels and logits stay). If there were one basis of "
        "hidden features, the output axes of a layer and the input axes of the next would be the same up to order and signs: "
        "a mean |cosine| of 1.",
        [Table(["mean |cosine|, matched", "output and next input", "random bases", "… largest"], rows)],
        {"agreement": (agreement_figure(found), "One mark each for 20 pairs of random bases.")},
    )
