"""Sections of the page on the search: gradient descent, objectives, other maps, and a bound."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import shown
from pipeline.toy.mnist_rotation.maps import BARRIERS, LOG_LIKE, NORMS, SCALES
from pipeline.toy.mnist_rotation.page_several import estimated, strip
from pipeline.toy.page import Section, Table

_WAYS = {
    "descent": "gradient descent, 1e-4", "adam": "Adam, 1e-4", "adam_fast": "Adam, 1e-2", "solver": "our solver",
}  # fmt: skip


def descent_section(found: Mapping[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 7.5, 3.4)
    rows = []
    for i, (way, name) in enumerate(_WAYS.items()):
        curves = np.array(found["by"][way]["curve"])
        x = np.arange(curves.shape[1]) if way == "solver" else np.array(found["points"])
        axis.plot(x + 1, curves.T, color=pictures.COLOURS[i], lw=0.5, alpha=0.35)
        axis.plot(x + 1, curves.mean(0), color=pictures.COLOURS[i], lw=2, label=name)
        seconds = found["by"][way]["seconds"]
        rows.append(
            [
                name,
                str(int(x[-1])),
                float(np.median(seconds)),
                float(curves[:, -1].mean()),
                estimated(found["by"][way]["heldout"], False),
            ]
        )
    axis.set(xscale="log", xlabel="passes over the fitted Jacobians, plus 1", ylabel="objective, fitted inputs")
    axis.legend(frameon=False, fontsize=8)
    last, null = found["last"], float(np.mean(found["null"]))
    names = {
        "from_identity": "gradient descent, 1e-4, from the identity",
        "by_mean": "the same of the mean over entries",
        "from_random": "gradient descent, 1e-4, from a random rotation",
        "solver_from_random": "our solver, from a random rotation",
    }
    agreed = [[name, estimated(last[key], False)] for key, name in names.items()]
    return Section(
        "The source's search beside ours",
        "R = exp(B - Bᵀ) with B from 0, by gradient descent at the source's rate of 1e-4, by Adam at this rate, and by Adam at "
        f"a rate of 1e-2; {len(found['before'])} nets, R₂ of the middle layer. Ours: {found['passes']} passes, MSP first (it "
        "raises ΣG⁴), then Adam on the measure itself. The source does not say how its objective is scaled, on which plain "
        "descent depends: here it is a sum over entries, the mean over inputs. Without rotating, the held-out objective is "
        f"{np.mean(found['before']):.3f}. Seconds are of one core and differ from run to run.\n\n"
        "The second table: agreement of the last layer's rotation with the identity, its inputs the neurons, mean |cosine| of "
        f"axes matched one to one; two random bases have {null:.2f}. The gradient of a mean over entries is that of the sum "
        "divided by their number: as many steps at the same rate move B that much less from its start at the identity, "
        "so this line has no part in a claim.",
        [
            Table(["R₂ by", "passes", "CPU seconds, median", "objective, fitted", "objective, held-out (95%)"], rows),
            Table(["last layer by", "agreement with the identity (95%)"], agreed),
        ],
        {"descent": (figure, "The objective against passes: thin lines are nets, thick ones their means.")},
    )


def objectives_section(found: Mapping[str, Any]) -> Section:
    names = {"neurons": "neurons", "log": "log(1 + (J/ε)²)", "rational": "|J| / (|J| + ε)", "l1": "L1", "l4": "-L4"}
    names["hoyer"] = "Hoyer, L1 / L2"
    figure, axes = pictures.axes(1, 2, 9, 3)
    for axis, key in zip(axes, ("below_0.01", "below_0.1"), strict=True):
        for i, name in enumerate(("neurons", *LOG_LIKE, *NORMS)):
            strip(axis, i, [100 * v for v in found["by"][name][key]], pictures.COLOURS[i])
        axis.set_xticks(range(len(names)), ["neurons", "log", "rational", "L1", "-L4", "Hoyer"])
        axis.set(ylabel="entries, %", title=f"|J| {key.replace('_', ' ')} of the root mean square")
    rows = [
        [names[name], estimated(by["below_0.01"]), estimated(by["below_0.1"])]
        + [float(np.mean(by[key])) for key in ("log", "l1", "l4", "mass_in_1%")]
        for name, by in found["by"].items()
    ]
    return Section(
        "Which objective gives zeros?",
        "R₂ of the middle layer by each objective, R₁ the same. Counted are the entries near 0 on held-out inputs, each "
        "input's Jacobian in units of its root mean square. ε = .1 in the two measures that like zeros. L2 is not among the "
        "norms: no rotation changes it. Lower values of the columns log, L1 and -L4 are sparser.",
        [Table(["objective", "below .01 (95%)", "below .1 (95%)", "log", "L1", "-L4", "J² in the largest 1%"], rows)],
        {"objectives": (figure, "Share of entries near 0: one mark a net, lines: means.")},
    )


def maps_section(found: Mapping[str, Any]) -> Section:
    starts = {
        "identity": "the identity",
        "random": "a random rotation",
        "qr": "QR of W₂",
        "svd": "singular vectors of W₂",
    }
    names = {"before": "neurons, R₁ too"} | {f"from_{key}": f"rotation, from {name}" for key, name in starts.items()}
    names |= {f"invertible_{b:g}": f"invertible map, penalty {b:g}" for b in BARRIERS}
    rows = []
    for key, name in names.items():
        condition = found.get(key.replace("invertible", "condition")) if key.startswith("invertible") else None
        rows.append(
            [
                name,
                estimated(found[key], False),
                estimated(found[f"rows_{key}"], False),
                estimated(found[f"next_{key}"], False),
                float(np.median(condition or [1.0])),
            ]
        )
    scaled = [[f"{c:g}", estimated(found[f"scaled_{c:g}"], False)] for c in SCALES]
    return Section(
        "Other starts, and affine maps",
        "An affine map in the place of R₂. Its rows have unit length and each input's Jacobian is measured in units of its "
        "root mean square, so that a global scale changes nothing; a penalty on log(1/|det|) keeps the rows apart, larger or "
        "smaller. Rows of unit length may still lie where little happens: the second column has each axis in units of its own "
        "root mean square. What reads the new coordinates has to undo the map: the next column has the objective of the last "
        "layer by itself, J₃ R₂⁻¹. The condition number is the largest stretch of a direction over the smallest: 1 for a "
        "rotation. A translation has no derivative: the largest change of an entry that one makes is "
        f"{shown(max(found['translation']))} of the largest entry, computed through the moved layer.\n\n"
        "The second table: the objective without these units, of the neurons' Jacobian times c.",
        [
            Table(
                [
                    "R₂",
                    "objective, held-out (95%)",
                    "axes in own units",
                    "the next layer's",
                    "condition number, median",
                ],
                rows,
            ),
            Table(["c", "objective without a normaliser"], scaled),
        ],
    )


def bounds_section(found: Mapping[str, Any]) -> Section:
    rows = [
        [name]
        + [estimated(f["share"]), float(np.mean(f["share_eigen"])), float(np.mean(f["random"]))]
        + [estimated(f["beyond_random"])]
        + [float(np.mean(f[key])) if key in f else None for key in ("planted", "agreement")]
        for name, f in found.items()
    ]
    figure, axis = pictures.axes(1, 1, 8, 2.8)
    for i, f in enumerate(found.values()):
        strip(axis, i - 0.2, f["random"], pictures.COLOURS[6], "random rotations" if i == 0 else None)
        strip(axis, i, f["share"], pictures.COLOURS[0], "best found" if i == 0 else None)
    axis.axhline(1, color="#999999", lw=0.8, ls="--")
    axis.set_xticks(range(len(found)), [name.replace(", ", ",\n") for name in found], fontsize=8)
    axis.set(ylabel="ΣG⁴ over the bound", ylim=(0, 1.05))
    axis.legend(frameon=False, fontsize=8)
    return Section(
        "How far from the best?",
        "For ΣG⁴ over one side's rotations there is a bound from above. The squares of the axes, rrᵀ, are orthonormal in the "
        "space of symmetric matrices and sum up to the identity; what a projector with these two properties can reach is a sum "
        "of eigenvalues. Forms that vanish on every rrᵀ may be added, and the least bound over them is sought (the dual of a "
        "semidefinite relaxation). The best found is that of several starts of MSP.\n\n"
        "Planted: vectors of 8 dimensions, rotated; of each vector one entry, a tenth of the entries or all of them are not 0. "
        "With one entry the planted rotation is the best there is. Middle layers: R₂, of nets of 8 and of 16 neurons a layer. "
        "Beyond random: how much of the way from random rotations up to the bound is found.",
        [
            Table(
                [
                    "case",
                    "found / bound (95%)",
                    "eigenvalues alone",
                    "random / bound",
                    "beyond random (95%)",
                    "planted / found",
                    "agreement of axes",
                ],
                rows,
            )
        ],
        {"bounds": (figure, "1: the bound. One mark a seed or a net, lines: means.")},
    )
