"""What a Jacobian rotation did, written beside its dictionary: jacobian.json and jacobian.png."""

import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pipeline.models.mlp import MLP
from pipeline.pictures import save_figure
from pipeline.train.logs import METRICS, records
from pipeline.train.rotations.measures import compare, mean_magnitude, mean_svd, measure
from pipeline.train.rotations.mlp_jacobians import OfMLP, Weights
from pipeline.train.rotations.objectives import kurtosis
from stores.manifest import commit_json, read_json

N_INPUTS = 128  # of each kind: a product of GPT-2 small's shape with all columns takes 3.6 GFLOP an input

FINDINGS = "jacobian.json"

_NAMES = {"train": "training", "heldout": "held-out"}
DOCUMENTATION = {
    "train, heldout": f"the Jacobians at {N_INPUTS} rows, each in units of its root mean square",
    "before, after, random": "in the model's own coordinates, rotated, and under as many random rotations as listed",
    "mean_svd": "rotated by the singular vectors of the mean Jacobian at training rows: all that a linear layer would need",
    "linear": "|E J|² / E|J|² at training rows: 1 for a linear layer",
    "rational, log, l1, l4, hoyer": "the objectives, epsilon 0.1; lower is sparser",
    "mass_in_1%": "share of the squared Jacobian in the largest 1% of an input's entries",
    "objective, n_fit": "what was minimised, and at how many rows",
    "kept_start": "whether the end was less sparse than the beginning, by the objective, so that the beginning was kept",
    "kurtosis": "of activations at held-out rows along the axes, mean over axes; 3 for normal ones; [before, after]",
}


def jacobians_at(
    mlp: MLP, x: Float[Tensor, "n_inputs d_model"], layer_norm: bool, weights: Weights | None = None
) -> OfMLP:
    """x: rows of hook_resid_mid. See OfMLP for layer_norm and weights."""
    return OfMLP(mlp, x if layer_norm else mlp.read(x), layer_norm, weights)


def write_findings(
    folder: Path,
    site: str,
    mlp: MLP,
    rows: dict[str, Float[Tensor, "_ d_model"]],
    n_fit: int,
    R: dict[str, Float64[Tensor, "d_model d_model"]],
    kept_start: bool,
    layer_norm: bool,
    objective: str,
) -> None:
    """rows: {"train", "heldout"} of hook_resid_mid, the second where the store has some: Jacobians at
    N_INPUTS of them, kurtosis of all. n_fit: rows that R was learned from. R: {"in", "out"}; kept_start: whether that is
    where the search began. The objective's course is taken from the folder's metrics.jsonl."""
    from pipeline.train.rotations.pictures import rotation_figure  # imported late: who only trains does not wait for it

    mlp = mlp.to("cpu", torch.float32)
    R_in, R_out = R["in"].cpu(), R["out"].cpu()
    apart = {name: x[:: max(1, len(x) // N_INPUTS)][:N_INPUTS] for name, x in rows.items()}
    J = {name: jacobians_at(mlp, x, layer_norm) for name, x in apart.items()}
    eye = torch.eye(mlp.d_model, dtype=torch.float64)
    where = "heldout" if "heldout" in rows else "train"
    x = rows[where]
    y = mlp(x)
    found: dict[str, Any] = {name: compare(part, R_in, R_out, n_random=1) for name, part in J.items()}
    *by_mean, found["linear"] = mean_svd(jacobians_at(mlp, rows["train"], layer_norm))
    if not any(torch.equal(side, eye) for side in (R_in, R_out)):
        for name, part in J.items():
            found[name]["mean_svd"] = measure(part, *by_mean)
    found |= {"objective": objective, "n_fit": n_fit, "kept_start": kept_start}
    found["kurtosis"] = {
        "input": [kurtosis(x), kurtosis(x @ R_in.T.float())],
        "output": [kurtosis(y), kurtosis(y @ R_out.T.float())],
    }
    log = [(r["step"], r[objective]) for r in records(folder / METRICS) if objective in r]
    figure = rotation_figure(
        f"{site}: the MLP's Jacobian at {len(apart[where])} {_NAMES[where]} rows"
        + (", in the bases that the search began with" if kept_start else ""),
        {
            "before": mean_magnitude(J[where], eye, eye).numpy(),
            "after": mean_magnitude(J[where], R_in, R_out).numpy(),
        },
        {name: found[name] for name in J},
        history=(f"mean {objective}", log),
        kurtoses=found["kurtosis"],
        objective=objective,
    )
    save_figure(figure, folder / "jacobian.png")
    commit_json(folder / FINDINGS, {"documentation": DOCUMENTATION, **found})


def draw_by_n_fit(folder: Path, site: str) -> None:
    """folder/by_n_fit.png, of the rotations in the folder that differ in n_fit alone, if there are some with a held-out
    part: does what a few inputs teach serve others?"""
    from pipeline.train.rotations.pictures import n_fit_figure

    found = {path.parent.name: read_json(path) for path in sorted(folder.glob(f"*/{FINDINGS}"))}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, measured in found.items():
        if "heldout" in measured:
            groups.setdefault(re.sub(r"-n_fit_\d+", "", name), []).append(measured)
    groups = {name: sorted(group, key=lambda m: m["n_fit"]) for name, group in groups.items() if len(group) > 1}
    if groups:
        save_figure(n_fit_figure(f"Rotations at {site}", groups), folder / "by_n_fit.png")
