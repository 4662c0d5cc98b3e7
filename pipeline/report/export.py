"""A scored run as files that other tools read: every table as parquet and CSV, every feature as JSON of two formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.report.artefacts import Run, read_run
from pipeline.report.attribution import write_attribution
from pipeline.report.examples import text_of
from pipeline.report.neuronpedia import write_neuronpedia
from stores.manifest import commit_bytes


def write_export(run_folder: Path, model: str = "model") -> Path:
    """runs/RUN/report/export: its path. model: the name that Neuronpedia has for the model.

    tables/dictionaries, pairs, sets, features, probes as .parquet and .csv; SITE/NAME/features and SITE/NAME/neuronpedia for
    each dictionary whose features are described. README.md of this package says what each field means.

    Raises UserError: the run is not scored, or one of its files is damaged.
    """
    run = read_run(run_folder)
    folder = run.report / "export"
    for name, table in tables(run).items():
        _write_table(folder / "tables" / name, table)
    tokens = {token: text_of(text) for token, text in run.tokens.items()}
    for dictionary in run.dictionaries:
        if dictionary.described:
            features, contexts = dictionary.features(), dictionary.contexts()
            place = folder / dictionary.row["site"] / dictionary.row["name"]
            write_attribution(place / "features", dictionary.row, features, contexts, tokens)
            write_neuronpedia(place / "neuronpedia", model, dictionary.row, features, contexts, tokens)
    return folder


def tables(run: Run) -> dict[str, pa.Table]:
    """Name → table. features and probes: of all dictionaries, each row with its site and dictionary."""
    found = {
        name: _of_rows(run.scores.get(name, [])) for name in ("dictionaries", "pairs", "sets") if run.scores.get(name)
    }
    described = [dictionary for dictionary in run.dictionaries if dictionary.described]
    features = [_placed(d.row, d.features()) for d in described]
    probes = [_placed(d.row, table) for d in described if (table := d.probes()) is not None]
    for name, parts in (("features", features), ("probes", probes)):
        if parts:
            found[name] = pa.concat_tables(parts, promote_options="permissive")
    return found


def _of_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """A row may lack columns that others have."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    """Of numbers, some of them whole, as floats."""
    if any(isinstance(value, float) for value in values):
        return pa.array(values, pa.float64())
    return pa.array(values)


def _placed(row: dict[str, Any], table: pa.Table) -> pa.Table:
    for name in ("name", "site"):
        values = pa.array([row[name]] * len(table), pa.string())
        table = table.add_column(0, "dictionary" if name == "name" else name, values)
    return table


def _write_table(path: Path, table: pa.Table) -> None:
    """path.parquet, and path.csv, in which a list is JSON."""
    data = pa.BufferOutputStream()
    pq.write_table(table, data)
    commit_bytes(path.with_name(f"{path.name}.parquet"), memoryview(data.getvalue()))
    flat = pa.table({name: _flat(table[name]) for name in table.column_names})
    data = pa.BufferOutputStream()
    pyarrow.csv.write_csv(flat, data)
    commit_bytes(path.with_name(f"{path.name}.csv"), memoryview(data.getvalue()))


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if not pa.types.is_list(column.type) and not pa.types.is_null(column.type):
        return column
    return pa.array([None if value is None else json.dumps(value) for value in column.to_pylist()], pa.string())
