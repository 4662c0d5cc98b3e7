"""What a Jacobian rotation did, written beside its dictionary: jacobian.json and jacobian.png."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.mlp import MLP
from pipeline.train.logs import METRICS, records
from pipeline.train.rotations.jacobians import OfMLP
from pipeline.train.rotations.measures import compare, mean_magnitude
from pipeline.train.rotations.objectives import kurtosis
from stores.manifest import commit_bytes, commit_json

N_INPUTS = 128  # of each kind: a product of GPT-2 small's shape with all columns takes 3.6 GFLOP an input

_NAMES = {"train": "training", "heldout": "held-out"}
DOCUMENTATION = {
    "train, heldout": f"the Jacobians at {N_INPUTS} rows, each in units of its root mean square",
    "before, after, random": "in the model's own coordinates, rotated, and under as many random rotations as listed",
    "rational, log, l1, l4, hoyer": "the objectives, epsilon 0.1; lower is sparser",
    "mass_in_1%": "share of the squared Jacobian in the largest 1% of an input's entries",
    "kurtosis": "of activations at held-out rows along the axes, mean over axes; 3 for normal ones; [before, after]",
}


def jacobians_at(mlp: MLP, x: Tensor, layer_norm: bool) -> OfMLP:
    """x: (n_inputs, d_model) rows of hook_resid_mid. See OfMLP for layer_norm."""
    return OfMLP(mlp, x if layer_norm else mlp.read(x), layer_norm)


def write_findings(
    folder: Path,
    hook_point: str,
    mlp: MLP,
    rows: dict[str, Tensor],
    R: dict[str, Tensor],
    layer_norm: bool,
    objective: str,
) -> None:
    """rows: {"train", "heldout"} (n, d_model) of hook_resid_mid, the second where the store has some: Jacobians at
    N_INPUTS of them, kurtosis of all. R: {"in", "out"}. The objective's course is taken from the folder's metrics.jsonl."""
    from pipeline.train.rotations.pictures import rotation_figure  # imported late: who only trains does not wait for it

    mlp = mlp.to("cpu", torch.float32)
    R_in, R_out = R["in"].cpu(), R["out"].cpu()
    apart = {name: x[:: max(1, len(x) // N_INPUTS)][:N_INPUTS] for name, x in rows.items()}
    J = {name: jacobians_at(mlp, x, layer_norm) for name, x in apart.items()}
    eye = torch.eye(mlp.d_model, dtype=torch.float64)
    where = "heldout" if "heldout" in rows else "train"
    x = rows[where]
    y = mlp(x)
    found: dict[str, Any] = {name: compare(part, R_in, R_out) for name, part in J.items()}
    found["kurtosis"] = {
        "input": [kurtosis(x), kurtosis(x @ R_in.T.float())],
        "output": [kurtosis(y), kurtosis(y @ R_out.T.float())],
    }
    log = [(r["step"], r[objective]) for r in records(folder / METRICS) if objective in r]
    figure = rotation_figure(
        f"The MLP after {hook_point}: its Jacobian at {len(apart[where])} {_NAMES[where]} rows",
        {
            "before": mean_magnitude(J[where], eye, eye).numpy(),
            "after": mean_magnitude(J[where], R_in, R_out).numpy(),
        },
        {name: found[name] for name in J},
        history=(f"mean {objective}", log),
        kurtoses=found["kurtosis"],
        objective=objective,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    commit_bytes(folder / "jacobian.png", picture.getvalue())
    commit_json(folder / "jacobian.json", {"documentation": DOCUMENTATION, **found})
