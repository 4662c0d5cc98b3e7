"""What the pages and the export are made of: the files of the score and the report stage. No store and no model is read."""

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.compute import call_function

from pipeline.config import UserError
from pipeline.features.files import CONTEXTS, ELSEWHERE, FEATURES, PROBES, TOKENS
from pipeline.unit_files import json_object

LEAST_F1 = 0.1  # of a label or rule that is shown: one with less tells nothing of its feature
_COLUMNS = {
    FEATURES: {"feature", "density", "max"},
    CONTEXTS: {"feature", "group", "value", "sequence", "position", "start", "tokens", "activations"},
    PROBES: {"label", "n_positive"},
}
_ELSEWHERE = {"elsewhere_dictionary", "elsewhere_feature", "elsewhere_cosine"}


@dataclass(frozen=True)
class Dictionary:
    """row: its scores. folder: of its artefacts, and elsewhere, the table of the nearest features of others; neither has to be
    there."""

    row: dict[str, Any]
    folder: Path
    elsewhere: Path

    @property
    def place(self) -> str:
        """SITE/NAME: its folder below the report, and its name in links."""
        return f"{self.row['site']}/{self.row['name']}"

    @property
    def described(self) -> bool:
        """Whether the report stage has described its features."""
        return (self.folder / FEATURES).exists()

    def features(self) -> pa.Table:
        """Row i is feature i; what names none, a label or rule of F1 < LEAST_F1, is null. Raises UserError: it is damaged, or
        rows are missing."""
        table = _table(self.folder / FEATURES)
        found = table["feature"].to_pylist()
        if found != list(range(self.row["d_sae"])):
            raise _wrong(
                self.folder / FEATURES, f"{len(found)} rows that are not features 0 to {self.row['d_sae'] - 1}"
            )
        if self.elsewhere.exists():
            others = _table(self.elsewhere, _ELSEWHERE, len(table))
            for column in others.column_names:
                table = table.append_column(column, others[column])
        return _without_bad_names(table)

    def contexts(self) -> pa.Table:
        """Sorted by feature and group, largest values first. Raises UserError: it is damaged or missing."""
        table = _table(self.folder / CONTEXTS)
        feature, group, value = (table[name].to_numpy() for name in ("feature", "group", "value"))
        order = np.lexsort((-np.abs(value), group, feature))
        return table if (order[1:] > order[:-1]).all() else table.take(order)

    def probes(self) -> pa.Table | None:
        """A row per label; None: there are none. Raises UserError: it is damaged."""
        return _table(self.folder / PROBES) if (self.folder / PROBES).exists() else None


@dataclass(frozen=True)
class Run:
    """A scored run. tokens: token id → its text."""

    folder: Path
    scores: dict[str, Any]
    tokens: dict[int, str]
    dictionaries: list[Dictionary]

    @property
    def report(self) -> Path:
        return self.folder / "report"


def read_run(folder: Path) -> Run:
    """Raises UserError: it is not there, has not been scored, or a file is damaged."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: expected a run folder, such as {Path('runs') / folder.name}")
    path = folder / "score" / "scores.json"
    scores = json_object(path)
    if scores is None or not isinstance(scores.get("dictionaries"), list):
        found = "is damaged" if path.exists() else "is missing"
        raise UserError(f"{path} {found}: run `unmix score` on the recipe of {folder} first")
    features = folder / "features"
    dictionaries = [
        Dictionary(
            row, features / row["site"] / row["name"], features / ELSEWHERE / row["site"] / f"{row['name']}.parquet"
        )
        for row in scores["dictionaries"]
    ]
    return Run(folder, scores, _tokens(features / TOKENS), dictionaries)


def _tokens(path: Path) -> dict[int, str]:
    """Where there are none, tokens are shown by their ids."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {int(token): str(text) for token, text in found.items()}
    except (ValueError, AttributeError):
        raise _wrong(path, 'no {"token id": "text"}') from None


def _table(path: Path, columns: Collection[str] | None = None, n_rows: int | None = None) -> pa.Table:
    """columns: that there have to be; by default those of a file of that name."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else "no parquet file"
        raise _wrong(path, found) from None
    if missing := sorted(set(columns or _COLUMNS[path.name]) - set(table.column_names)):
        raise _wrong(path, f"no column {', '.join(missing)}")
    if n_rows is not None and len(table) != n_rows:
        raise _wrong(path, f"{len(table)} rows for {n_rows} features")
    return table


def _without_bad_names(table: pa.Table) -> pa.Table:
    """Their scores stay."""
    for name in ("label", "rule"):
        if {name, f"{name}_f1"} <= set(table.column_names):
            bad = pa.array(table[f"{name}_f1"].to_numpy() < LEAST_F1)  # nan is not
            kept = call_function("if_else", [bad, pa.scalar(None, pa.string()), table[name]])
            table = table.set_column(table.column_names.index(name), name, kept)
    return table


def _wrong(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} has {found}: run `rm {shlex.quote(str(path))}` and then `unmix report`, which makes it again"
    )
