"""Scores as the cells of a table, in the terminal and in a model card."""

from collections.abc import Sequence
from typing import Any

from pipeline.plus_minus import plus_minus

TITLES = {"fvu": "FVU", "ce_score_zero": "CE score (zero)", "kl": "KL", "top1": "top-1", "mmcs": "MMCS"}
CLOSE = "~: not apart from the next worse of about its L0, by Welch's t at 95%, or by one seed alone"
Row = dict[str, Any]


def group_cells(
    rows: Sequence[Row], groups: Sequence[Row], compared: Sequence[Row]
) -> tuple[list[str], list[list[str]], list[str]]:
    """(titles of columns, a line per group of seeds, what ± and ~ in them mean). Of one site: rows, groups and comparisons of
    scores.json."""
    sparsities = sorted(
        int(k.removeprefix("fvu_at_l0_")) for k in {k for r in rows for k in r} if k.startswith("fvu_at_l0_")
    )
    columns = ["dictionary", "n", "d_sae", "L0", "FVU", "CE score (zero)", "(mean)", "KL", "top-1", "dead", "rare",
               *["MMCS"] * any("mmcs" in group["scores"] for group in groups),
               *(f"FVU at L0 {k}" for k in sparsities)]  # fmt: skip
    keys = ["l0", "fvu", "ce_score_zero", "ce_score_mean", "kl", "top1", "dead", "ultra_low_density",
            *["mmcs"] * ("MMCS" in columns), *(f"fvu_at_l0_{k}" for k in sparsities)]  # fmt: skip
    by_name = {row["name"]: row for row in rows}
    shown = [c for c in compared if c["relation"] == "next" and c["score"] in TITLES]
    names = {group["name"] for group in groups}
    close = {(c["a"], c["score"]) for c in shown if not c["apart"] and c["a"] in names}
    table = []
    for group in groups:
        members = [by_name[name] for name in group["names"]]
        name = group["name"] + " !" * any(row["warnings"] for row in members)
        cells = ["~" * ((group["name"], key) in close) + _spread(group, members[0], key) for key in keys]
        table.append([name, str(group["n"]), str(group["d_sae"]), *cells])
    notes = []
    if any(group["n"] > 1 for group in groups):
        mmcs = "; of MMCS √n times the jackknife's standard error" * ("MMCS" in columns)
        notes.append(f"±: standard deviation over n seeds{mmcs}")
    return columns, table, notes + [CLOSE] * bool(close)


def _spread(group: Row, row: Row, key: str) -> str:
    """0.117 ± .002 of several seeds, 0.117 of one, as its row has it."""
    if group["n"] == 1 or key not in group["scores"]:
        return number(row, key, 1 if key == "l0" else 3)
    digits = 1 if key in ("l0", "dead", "ultra_low_density") else 3
    return plus_minus(group["scores"][key]["mean"], group["scores"][key]["std"], digits)


def ablations(row: Row) -> str:
    """What the model loses without the activations, for a title; empty where no language model made them."""
    if "ce" not in row:
        return ""
    return (
        f"; CE on {row['n_predictions']:,} predictions: clean {row['ce_clean']:.3f}, zero ablation {row['ce_zero']:.3f}, "
        f"mean ablation {row['ce_mean']:.3f} nats"
    )


def number(row: Row, key: str, digits: int = 3) -> str:
    value = row.get(key)
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.000
    return "" if value is None else str(value)
