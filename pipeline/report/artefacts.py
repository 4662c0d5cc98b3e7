"""What the pages and the export are made of: the files of the score and the report stage. No store and no model is read."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import UserError
from pipeline.features.files import CONTEXTS, FEATURES, PROBES
from pipeline.unit_files import json_object

TOKENS = "tokens.json"
_COLUMNS = {
    FEATURES: {"feature", "density", "max"},
    CONTEXTS: {"feature", "group", "value", "sequence", "position", "start", "tokens", "activations"},
    PROBES: {"label", "n_positive"},
}


@dataclass(frozen=True)
class Dictionary:
    """row: its scores. folder: of its artefacts, which may not be there."""

    row: dict[str, Any]
    folder: Path

    @property
    def place(self) -> str:
        """SITE/NAME: its folder below the report, and its name in links."""
        return f"{self.row['site']}/{self.row['name']}"

    @property
    def described(self) -> bool:
        """Whether the report stage has described its features."""
        return (self.folder / FEATURES).exists()

    def features(self) -> pa.Table:
        """Row i is feature i. Raises UserError: it is damaged, or rows are missing."""
        table = _table(self.folder / FEATURES)
        found = table["feature"].to_pylist()
        if found != list(range(self.row["d_sae"])):
            raise _wrong(
                self.folder / FEATURES, f"{len(found)} rows that are not features 0 to {self.row['d_sae'] - 1}"
            )
        return table

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
    """Raises UserError: it has not been scored, or a file is damaged."""
    path = folder / "score" / "scores.json"
    scores = json_object(path)
    if scores is None or not isinstance(scores.get("dictionaries"), list):
        found = "is damaged" if path.exists() else "is missing"
        raise UserError(f"{path} {found}: run `unmix score` on the recipe of {folder} first")
    dictionaries = [Dictionary(row, folder / "features" / row["site"] / row["name"]) for row in scores["dictionaries"]]
    return Run(folder, scores, _tokens(folder / "features" / TOKENS), dictionaries)


def _tokens(path: Path) -> dict[int, str]:
    """Where there are none, tokens are shown by their ids."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {int(token): str(text) for token, text in found.items()}
    except (ValueError, AttributeError):
        raise _wrong(path, 'no {"token id": "text"}') from None


def _table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else "no parquet file"
        raise _wrong(path, found) from None
    if missing := sorted(_COLUMNS[path.name] - set(table.column_names)):
        raise _wrong(path, f"no column {', '.join(missing)}")
    return table


def _wrong(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} has {found}: run `rm {shlex.quote(str(path))}` and then `unmix report`, which makes it again"
    )
