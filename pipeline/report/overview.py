"""What the index shows: all rows of scores.json, and for each dictionary what its features make together."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.artefacts import Run
from pipeline.report.conclusions import conclusions

PER_DECADE = 5  # bins of density
GOOD_RULE, GOOD_LABEL = 0.7, 0.9  # F1 from which a rule, a label counts as found


def overview(run: Run) -> dict[str, Any]:
    """The value of data/index.js."""
    rows, labels = [], {}
    control = {(g["site"], name): g["control"] for g in run.scores.get("groups", []) for name in g["names"]}
    for dictionary in run.dictionaries:
        row = finite(dictionary.row)
        row["control"] = control.get((row["site"], row["name"]))
        row["page"] = f"{dictionary.place}/index.html" if dictionary.described else None
        if dictionary.described:
            features = dictionary.features()
            row |= found_features(features)
            row["densities"] = densities(features["density"].to_numpy(), row["n_rows"])
            if (probes := dictionary.probes()) is not None:
                labels[dictionary.place] = probed(probes)
                row["labels_found"] = n_labels(labels[dictionary.place])
        rows.append(row)
    return {
        "run": run.folder.resolve().name,
        "rows": rows,
        "pairs": [finite(pair) for pair in run.scores.get("pairs", [])],
        "sets": [finite(row) for row in run.scores.get("sets", [])],
        "labels": labels,
        "documentation": run.scores.get("documentation", {}),
        "conclusions": conclusions(rows, run.scores),
    }


def found_features(features: pa.Table) -> dict[str, Any]:
    """rules_found: how many features have a rule of F1 ≥ GOOD_RULE; null where none was sought."""
    if "rule_f1" not in features.column_names or features["rule_f1"].null_count == len(features):
        return {"rules_found": None}
    f1 = features["rule_f1"].to_numpy()
    return {"rules_found": int((np.nan_to_num(f1) >= GOOD_RULE).sum())}


def densities(density: np.ndarray, n_rows: int) -> dict[str, Any]:
    """dead, and counts of the others in bins of log10 density: PER_DECADE a decade from low, the last ending at 0."""
    alive = density[density > 0]
    low = -math.ceil(math.log10(max(n_rows, 2)))
    n_bins = -low * PER_DECADE
    place = np.floor((np.log10(alive) - low) * PER_DECADE).astype(int).clip(0, n_bins - 1)
    return {"low": low, "counts": np.bincount(place, minlength=n_bins).tolist(), "dead": int((density == 0).sum())}


def probed(probes: pa.Table) -> dict[str, Any]:
    """Its columns as lists: label, n_positive, and for each size K of a feature set f1_K, auroc_K, features_K."""
    kept = [c for c in probes.column_names if c.split("_")[0] in ("label", "n", "f1", "auroc", "features")]
    return {name: [finite_number(value) for value in probes[name].to_pylist()] for name in kept}


def n_labels(labels: dict[str, Any]) -> int | None:
    """How many labels a single feature finds with F1 ≥ GOOD_LABEL."""
    if "f1_1" not in labels:
        return None
    return sum(f1 is not None and f1 >= GOOD_LABEL for f1 in labels["f1_1"])


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: a number that is not finite is null."""
    return {key: finite_number(value) for key, value in row.items()}


def finite_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
