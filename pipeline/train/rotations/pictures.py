"""Pictures of what rotations do to Jacobians. matplotlib is imported late: who only trains does not wait for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}
_BEFORE, _AFTER, _RANDOM, _MEAN = "#d55e00", "#0072b2", "#aaaaaa", "#56b4e9"


def rotation_figure(
    title: str,
    magnitude: Mapping[str, Float[np.ndarray, "b a"]],
    measures: Mapping[str, Mapping[str, Any]],
    *,
    history: tuple[str, Sequence[tuple[int, float]]] = ("", ()),
    by_n_fit: Sequence[Mapping[str, Any]] = (),
    kurtoses: Mapping[str, Sequence[float]] | None = None,
    objective: str = "log",
) -> Any:
    """A matplotlib figure of one layer's Jacobian before and after.

    magnitude: {"before", "after"}, mean |Jacobian|. measures: {"train", "heldout"} × {"before", "after",
    "random": one or several, and maybe "mean_svd"} of measure(). history: what was minimised, its steps and values.
    by_n_fit: rows {"n", "train", "heldout"} of measure(); or in their place kurtoses, {name of activations: [before,
    after]}. Rows and columns of the two images are sorted by their largest entries.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 6.2), layout="constrained")
        (first, second, curve), (bars, steps, inputs) = figure.subplots(2, 3)
        top = float(np.quantile(np.concatenate([m.ravel() for m in magnitude.values()]), 0.999))
        for axis, name in ((first, "before"), (second, "after")):
            image = axis.imshow(
                _sorted(magnitude[name]), vmin=0, vmax=top, cmap="magma", aspect="auto", interpolation="nearest"
            )
            axis.set(title=f"mean |Jacobian| {name}", xlabel="input axis, sorted", ylabel="output axis, sorted")
        figure.colorbar(image, ax=second, shrink=0.8, label="in units of its root mean square")
        for name, colour in (("before", _BEFORE), ("after", _AFTER)):
            values = np.sort(magnitude[name].ravel())[::-1]
            curve.plot(np.arange(1, len(values) + 1) / len(values), values, color=colour, label=name)
        curve.set(xscale="log", xlabel="rank / number of entries", ylabel="mean |Jacobian|", title="entries, sorted")
        curve.legend(frameon=False)
        _mass(bars, measures)
        _history(steps, history)
        if kurtoses is None:
            _by_n_fit(inputs, {"": by_n_fit}, measures["heldout"], objective)
        else:
            _kurtoses(inputs, kurtoses)
        figure.suptitle(title)
        return figure


def _sorted(magnitude: Float[np.ndarray, "b a"]) -> Float[np.ndarray, "b a"]:
    rows, columns = magnitude.max(1).argsort()[::-1], magnitude.max(0).argsort()[::-1]
    return magnitude[rows][:, columns]


def _mass(axis: Any, measures: Mapping[str, Mapping[str, Any]]) -> None:
    groups = list(measures)
    kinds = {
        "random": ("random rotations", _RANDOM),
        "before": ("before", _BEFORE),
        "mean_svd": ("mean's singular vectors", _MEAN),
        "after": ("after", _AFTER),
    }
    kinds = {name: shown for name, shown in kinds.items() if all(name in m for m in measures.values())}
    width = 0.81 / len(kinds)
    for i, (name, (label, colour)) in enumerate(kinds.items()):
        values = [np.mean([m["mass_in_1%"] for m in _as_list(measures[g][name])]) for g in groups]
        places = np.arange(len(groups)) + width * (i - (len(kinds) - 1) / 2)
        drawn = axis.bar(places, values, 0.93 * width, color=colour, label=label)
        axis.bar_label(drawn, fmt="%.2f", fontsize=7)
    axis.set_xticks(range(len(groups)), ["fitted inputs" if g == "train" else "held-out inputs" for g in groups])
    axis.set(ylabel="share of Σ J²", title="in the largest 1% of entries")
    axis.margins(y=0.25)
    axis.legend(
        frameon=False,
        fontsize=8,
        ncols=len(kinds) // 2 + len(kinds) % 2,
        loc="upper left",
        columnspacing=1,
        handlelength=1,
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _history(axis: Any, history: tuple[str, Sequence[tuple[int, float]]]) -> None:
    what, course = history
    if not course:
        axis.set_axis_off()
        return
    axis.plot(*zip(*course), color=_AFTER, lw=1)
    axis.set(xlabel="step", ylabel=what, title="sparsity against steps")


def n_fit_figure(title: str, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """groups: by name, what write_findings found for rotations of one layer that differ in n_fit."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    first = next(iter(groups.values()))[0]
    measured = first["heldout"]
    shown = first["objective"] if first["objective"] in measured["before"] else "log"
    rows = {
        name: [{"n": m["n_fit"], **{where: m[where]["after"] for where in ("train", "heldout")}} for m in group]
        for name, group in groups.items()
    }
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 3.6), layout="constrained")
        objective, mass = figure.subplots(1, 2)
        _by_n_fit(objective, rows, measured, shown)
        _by_n_fit(mass, rows, measured, "mass_in_1%")
        mass.get_legend().remove()
        objective.set(title="lower is sparser", ylabel=f"mean {shown}")
        mass.set(title="higher is sparser", ylabel="share of Σ J² in the largest 1% of entries")
        figure.suptitle(title)
        return figure


def _by_n_fit(
    axis: Any, groups: Mapping[str, Sequence[Mapping[str, Any]]], heldout: Mapping[str, Any], measure: str
) -> None:
    """groups: by name, rows {"n", "train", "heldout"} of measure(). heldout: of the layer, whatever was fitted."""
    counts = sorted({row["n"] for rows in groups.values() for row in rows})
    if not counts:
        axis.set_axis_off()
        return
    for (name, rows), colour in zip(groups.items(), (_AFTER, "#009e73", "#cc79a7", "#e69f00", "#56b4e9") * len(groups)):
        n = [row["n"] for row in rows]
        before = f"{name}, " if len(groups) > 1 else ""
        for where, style, label in (("train", "--", "on those inputs"), ("heldout", "-", "on held-out inputs")):
            axis.plot(n, [row[where][measure] for row in rows], style, marker=".", color=colour, label=before + label)
    axis.axhline(heldout["before"][measure], color=_BEFORE, lw=1, label="before")
    axis.axhline(
        np.mean([m[measure] for m in _as_list(heldout["random"])]), color=_RANDOM, lw=1, label="random rotations"
    )
    axis.set_xscale("log")
    axis.set_xticks(counts, [f"{m:,}" for m in counts])
    axis.minorticks_off()
    axis.set(
        xlabel="inputs that the rotation was fitted to", ylabel=f"measure ({measure})", title="does it generalise?"
    )
    axis.margins(y=0.25)
    axis.legend(frameon=False, fontsize=8)


def _kurtoses(axis: Any, kurtoses: Mapping[str, Sequence[float]]) -> None:
    for i, (name, colour) in enumerate((("before", _BEFORE), ("after", _AFTER))):
        places = np.arange(len(kurtoses)) + 0.36 * (i - 0.5)
        drawn = axis.bar(places, [values[i] for values in kurtoses.values()], 0.34, color=colour, label=name)
        axis.bar_label(drawn, fmt="%.1f", fontsize=7)
    axis.axhline(3, color=_RANDOM, lw=1, label="normal distribution")
    axis.set_xticks(range(len(kurtoses)), list(kurtoses))
    axis.set(ylabel="kurtosis, mean over axes", title="activations along the axes")
    axis.margins(y=0.25)
    axis.legend(frameon=False, fontsize=8)


def agreement_figure(agreements: Mapping[str, Mapping[str, Any]]) -> Any:
    """{"name": {"output_input": value, "random": values}}: does the basis in which one layer writes agree with that in which
    the next reads, beside random bases?"""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 1.3 + 0.5 * len(agreements)), layout="constrained")
        axis = figure.subplots()
        for i, found in enumerate(agreements.values()):
            label = ("random bases", "output basis and the next input basis") if i == 0 else (None, None)
            axis.scatter(found["random"], [i] * len(found["random"]), color=_RANDOM, s=14, label=label[0])
            axis.scatter(found["output_input"], i, color=_AFTER, marker="D", s=30, label=label[1], zorder=3)
        axis.set_yticks(range(len(agreements)), agreements)
        # to 1, the same basis, so that what is hardly above chance looks so
        axis.set(xlabel="mean |cosine|, matched one to one", xlim=(0, 1), ylim=(-0.6, len(agreements) - 0.4))
        figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
        return figure
