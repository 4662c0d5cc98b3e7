"""The sections on boundaries: codes, densities, shells, adversarial steps."""

from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, shown
from pipeline.toy.page import Section, Table
from pipeline.toy.polytopes.codes import CORNERS, MARGIN
from stores.manifest import seed_of

_STYLES = {"trained": "-", "untrained": "--"}


def codes_section(found: dict[str, Any]) -> Section:
    plane, side = found["plane"], found["plane"]["side"]
    figure, (left, right) = pictures.axes(1, 2, 9, 4)
    colours = np.random.default_rng(seed_of("polytope colours")).uniform(0.35, 1, (plane["n_polytopes"], 3))
    extent = (-MARGIN, 1 + MARGIN, -MARGIN, 1 + MARGIN)
    image = colours[np.array(plane["polytopes"]).reshape(side, side)]
    left.imshow(image, origin="lower", extent=extent, interpolation="nearest")
    answers = np.array(plane["answers"]).reshape(side, side)
    drawn = right.imshow(
        answers, origin="lower", extent=extent, cmap="tab10", vmin=-0.5, vmax=9.5, interpolation="nearest"
    )
    figure.colorbar(drawn, ax=right, ticks=range(10), label="answer")
    first, second, third = map(str, CORNERS)
    for axis, title in ((left, f"{plane['n_polytopes']} polytopes"), (right, "the net's answer")):
        for (u, v), name in (((0, 0), first), ((1, 0), second), ((0, 1), third)):
            axis.scatter([u], [v], s=90, color="white", edgecolor="black", zorder=3)
            axis.annotate(name, (u, v), ha="center", va="center", fontsize=8, zorder=4)
        axis.set(title=title, xlabel=f"from the {first} to the {second}", ylabel=f"from the {first} to the {third}")
    return Section(
        "Spline codes",
        f"Each net has {found['n_units']} ReLUs in {len(found['widths'])} hidden layers. Accuracy on digits that it has not "
        f"seen: {mean([100 * a for a in found['accuracy']], 'nets')} percent. {found['n_rows']} of these digits lie in "
        f"{mean(found['n_codes'], 'nets')} different polytopes. From each digit's code alone the affine map A x + c is built "
        f"and compared with the net's logits, the largest of which is {shown(found['largest_logit'])}.",
        figures={
            "slice": (
                figure,
                f"The plane through a {first}, a {second} and a {third}, of one net: a colour each polytope, each answer.",
            )
        },
    )


def density_section(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 6, 3.2)
    rows, above = [], []
    for state, kinds in found.items():
        for i, (name, row) in enumerate(kinds.items()):
            t = (np.arange(len(row["along"])) + 0.5) / len(row["along"])
            axis.plot(t, row["along"], _STYLES[state], color=pictures.COLOURS[i], label=f"{name}, {state}")
            rows.append([f"{name}, {state}", str(mean(row["density"], "nets")), *row["by_layer"]])
        within, between = (np.array(kinds[name]["along"]) for name in ("within a class", "between classes"))
        above.append(f"{(between > within).sum()} of {len(within)} places ({state})")
    axis.set(xlabel="place on the path, parts of its length", ylabel="boundaries a unit of length", ylim=(0, None))
    axis.legend(frameon=False, fontsize=7)
    layers = [f"layer {i + 1}" for i in range(len(next(iter(found["trained"].values()))["by_layer"]))]
    return Section(
        "Boundaries between two digits",
        "Straight paths join two digits that no net has seen, of one class or of two. A boundary is crossed where a neuron "
        "turns on or off. Length is the Euclidean distance of pixels in 0 … 1. The curves are means over all paths of all "
        f"nets. The mean curve between classes lies above the one within a class at {' and at '.join(above)}.",
        [Table(["paths", "boundaries a unit of length", *layers], rows)],
        {"density": (figure, "Density of boundaries along the paths.")},
    )


def shell_section(found: dict[str, Any]) -> Section:
    figure, (left, right) = pictures.axes(1, 2, 9, 3.4)
    rows = []
    for state, style in _STYLES.items():
        for i, (centre, row) in enumerate(found[state].items()):
            colour = pictures.COLOURS[i]
            left.plot(found["radii"], row["density"], style, color=colour, label=f"{centre}, {state}")
            right.plot(found["radii"], row["reached"], style, color=colour)
            rows.append(
                [f"{centre}, {state}", row["densest"]]
                + [str(mean([x for x in row[key] if x is not None], "nets")) for key in ("inner", "outer", "farthest")]
            )
    for axis in (left, right):
        axis.set(xscale="log", xlabel="distance from the centre, digits' mean distance from the origin")
        axis.axvline(1, color="#999999", lw=0.8, ls=":")
    left.set(yscale="log", ylabel="boundaries a unit of length")
    right.set(ylabel="share of neurons with a boundary there", ylim=(0, 1.05))
    left.legend(frameon=False, fontsize=6.5)
    first, last = found["radii"][0], found["radii"][-1]
    return Section(
        "The shell",
        "Short segments of random directions begin at random places of a sphere; boundaries that they cross are counted "
        "(left). A neuron has a boundary on the sphere when it is on at some of these places and off at others (right). Three "
        "centres: the origin, the mean digit, and single digits. All lengths are in digits' mean distance from the origin, "
        f"{found['unit']:.2f} (dotted line); their mean distance from the mean digit is {found['spread']:.2f} of it. A shell "
        "would be a maximum of the density between the centre and the outside. A hyperplane crosses all spheres beyond its "
        "own distance, and far away its density falls with one over the distance. Untrained nets have the biases that they "
        "were drawn with, uniform in ±1/√d_in, as those of the layer are: without biases all boundaries go through the "
        "origin.",
        [
            Table(
                ["centre", "densest at", f"density at {first:g} over the densest", f"at {last:g} over the densest",
                 f"neurons with a boundary at {last:g} over where most have"],
                rows,
            )
        ],
        {"shell": (figure, "Boundaries by distance from three centres, before (dashed) and after training.")},
    )  # fmt: skip


def adversarial_section(found: dict[str, Any]) -> Section:
    names = [name for name, row in found["steps"][0].items() if isinstance(row, dict)]
    figure, axes = pictures.axes(1, 3, 9, 3)
    norms = found["norms"]
    rows = []
    for i, name in enumerate(names):
        steps = [step[name] for step in found["steps"]]
        for axis, key in zip(axes, ("crossed", "wrong", "turned")):
            axis.plot(norms, [np.mean(s[key]) for s in steps], marker=".", color=pictures.COLOURS[i], label=name)
        for norm, s in zip(norms, steps, strict=True):
            rows.append([f"{norm:g}, {name}", str(mean(s["crossed"], "nets")), *s["by_layer"]])
    for axis, label in zip(axes, ("boundaries crossed", "share of wrong answers", "cosine, last hidden layer")):
        axis.set(xscale="log", xlabel="L2 norm of the step", ylabel=label)
        axis.set_xticks(norms, [f"{norm:g}" for norm in norms])
        axis.minorticks_off()
    axes[0].legend(frameon=False, fontsize=7)
    layers = [f"layer {i + 1}" for i in range(len(found["steps"][0][names[0]]["by_layer"]))]
    rows.sort(key=lambda row: norms.index(float(row[0].split(",")[0])))
    return Section(
        "Adversarial steps",
        "From digits that a net reads rightly, steps of one length are taken: adversarial ones (projected gradient ascent of "
        "the cross-entropy, Madry et al. 2018), random ones, the adversarial ones turned round (back), and ones towards "
        f"another digit. The digits are {found['typical']:.2f} from the origin on average. Boundaries are counted on the "
        "straight way. As the source says, this is near to a tautology: a boundary is where a neuron turns on or off. The "
        "steps back tell how much of it is due to raising the loss, and how much to following its gradient.",
        [Table(["norm, step", "boundaries crossed", *layers], rows)],
        {"adversarial": (figure, "Steps of four kinds: means over nets.")},
    )
