"""What the index shows: all rows of scores.json, and for each dictionary what its features make together."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.artefacts import Run
from pipeline.report.conclusions import conclusions
from pipeline.report.margins import COUNTED, margins
from pipeline.score.orderings import published_orderings

PER_DECADE = 5  # bins of density
GOOD_RULE, GOOD_LABEL = 0.7, 0.9  # F1 from which a rule, a label counts as found


def overview(run: Run) -> dict[str, Any]:
    """The value of data/index.js."""
    rows, labels = [], {}
    group_of = {(g["site"], name): g for g in run.scores.get("groups", []) for name in g["names"]}
    close = {(c["site"], c["a"], c["score"]) for c in run.scores.get("comparisons", []) if _is_close(c)}
    for dictionary in run.dictionaries:
        row = finite(dictionary.row)
        group = group_of.get((row["site"], row["name"]), {})
        row["control"] = group.get("control")
        row["close"] = sorted(score for site, name, score in close if (site, name) == (row["site"], group.get("name")))
        row["page"] = f"{dictionary.place}/index.html" if dictionary.described else None
        if dictionary.described:
            features = dictionary.features()
            row |= found_features(features)
            row["densities"] = densities(features["density"].to_numpy(), row["n_rows"])
            if (probes := dictionary.probes()) is not None:
                labels[dictionary.place] = probed(probes)
                row |= found_labels(labels[dictionary.place])
        rows.append(row)
    for row in rows:
        row["spread"] = _spread(row, group_of.get((row["site"], row["name"])), rows)
    found = margins(rows, run.scores)
    return {
        "run": run.folder.resolve().name,
        "rows": rows,
        "pairs": [finite(pair) for pair in run.scores.get("pairs", [])],
        "sets": [finite(row) for row in run.scores.get("sets", [])],
        "labels": labels,
        "documentation": run.scores.get("documentation", {}),
        "margins": [one.row() for one in found],
        "orderings": published_orderings(run.scores),
        "conclusions": conclusions(rows, run.scores, found),
    }


def _is_close(comparison: Mapping[str, Any]) -> bool:
    """Whether the next worse dictionary of about as many active features is no worse than chance allows."""
    return comparison["relation"] == "next" and not comparison["apart"]


def _spread(
    row: Mapping[str, Any], group: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The standard deviation over a dictionary's seeds of each score, and of what is counted of features; empty of one seed."""
    if group is None or len(group["names"]) == 1:
        return {}
    members = [one for one in rows if one["site"] == row["site"] and one["name"] in group["names"]]
    counted = {key: [one[key] for one in members if one.get(key) is not None] for key in COUNTED}
    return {score: found["std"] for score, found in group.get("scores", {}).items()} | {
        key: stdev(values) for key, values in counted.items() if len(values) == len(members)
    }


def found_features(features: pa.Table) -> dict[str, Any]:
    """rules_found: how many features have a rule of F1 ≥ GOOD_RULE; null where none was sought. rules_found_shuffled: how many
    by chance."""
    if "rule_f1" not in features.column_names or features["rule_f1"].null_count == len(features):
        return {"rules_found": None}
    return {
        f"rules_found{end}": int((np.nan_to_num(features[f"rule_f1{end}"].to_numpy()) >= GOOD_RULE).sum())
        for end in ("", "_shuffled")
        if f"rule_f1{end}" in features.column_names
    }


def densities(density: np.ndarray, n_rows: int) -> dict[str, Any]:
    """dead, and counts of the others in bins of log10 density: PER_DECADE a decade from low, the last ending at 0."""
    alive = density[density > 0]
    low = -math.ceil(math.log10(max(n_rows, 2)))
    n_bins = -low * PER_DECADE
    place = np.floor((np.log10(alive) - low) * PER_DECADE).astype(int).clip(0, n_bins - 1)
    return {"low": low, "counts": np.bincount(place, minlength=n_bins).tolist(), "dead": int((density == 0).sum())}


def probed(probes: pa.Table) -> dict[str, Any]:
    """Its columns as lists: label, n_positive, for each size K of a feature set f1_K, auroc_K, features_K, and the same of all
    coordinates (all) and of shuffled codes (shuffled)."""
    kept = [c for c in probes.column_names if c.split("_")[0] in ("label", "n", "f1", "auroc", "features")]
    return {name: [finite_number(value) for value in probes[name].to_pylist()] for name in kept}


def found_labels(labels: dict[str, Any]) -> dict[str, Any]:
    """labels_found: how many labels a single feature finds with F1 ≥ GOOD_LABEL. label_f1: mean F1 of a label's best feature.
    *_shuffled: the same by chance."""
    found: dict[str, Any] = {}
    for end, column in (("", "f1_1"), ("_shuffled", "f1_shuffled")):
        if values := [f1 or 0.0 for f1 in labels.get(column, [])]:
            found |= {f"labels_found{end}": sum(f1 >= GOOD_LABEL for f1 in values), f"label_f1{end}": mean(values)}
    return found


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: a number that is not finite is null."""
    return {key: finite_number(value) for key, value in row.items()}


def finite_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
