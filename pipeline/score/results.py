"""What a scored dictionary leaves in its folder: scores.json, its row of the table, and histograms.npz. Of several that are
spliced in together there is a row alone."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.score.arrays import commit_arrays, read_arrays
from pipeline.score.histograms import ActivationHistogram
from pipeline.unit_files import json_object
from stores.manifest import commit_json

ROW, HISTOGRAMS = "scores.json", "histograms.npz"
_COLUMNS = {"site", "name", "method", "d_in", "d_out", "d_sae", "signed", "sparse", "l0", "fvu", "dead", "n_rows"}
SET_COLUMNS = {"site", "name", "method", "sites", "ce", "kl", "top1", "ce_with_errors"}


def write_results(folder: Path, row: dict[str, Any], histogram: ActivationHistogram) -> None:
    commit_arrays(folder / HISTOGRAMS, histogram.arrays())
    write_row(folder, row)


def write_row(folder: Path, row: dict[str, Any]) -> None:
    """Numbers are rounded to six digits after the point; none is -0."""
    commit_json(folder / ROW, {k: round(v, 6) + 0.0 if isinstance(v, float) else v for k, v in row.items()})


def read_row(folder: Path, name: str, columns: Collection[str] = _COLUMNS) -> dict[str, Any]:
    """The scores of this name. columns: some that have to be there. Raises UserError: they are missing or damaged."""
    row = json_object(folder / ROW)
    if row is None or row.get("name") != name or not row.keys() >= set(columns):
        raise _damaged(folder / ROW)
    return row


def read_histogram(folder: Path) -> ActivationHistogram:
    """Raises UserError: it is missing or damaged."""
    try:
        return ActivationHistogram.of(read_arrays(folder / HISTOGRAMS) or {})
    except ValueError:
        raise _damaged(folder / HISTOGRAMS) from None


def _damaged(file: Path) -> UserError:
    found = "is damaged" if file.exists() else "is missing"
    manifest = shlex.quote(str(file.parent / "manifest.json"))
    return UserError(f"{file} {found}: run `rm {manifest}` and then the same command again, which makes it again")
