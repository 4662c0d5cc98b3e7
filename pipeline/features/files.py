"""What the report stage leaves of a dictionary: tables of its features, contexts, probes and of the nearest features of others.
The writer of parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

from stores.manifest import commit_bytes

FEATURES, CONTEXTS, PROBES = "features.parquet", "contexts.parquet", "probes.parquet"
ELSEWHERE = "elsewhere"  # a folder beside the sites', since it is of several units: SITE/NAME.parquet
TOKENS = "tokens.json"  # the text of each token, of all dictionaries together


def write_table(path: Path, columns: Mapping[str, Any], key: str = "") -> None:
    """columns: arrays (n,), in which nan becomes null, arrays (n, m), which become lists, or what pyarrow takes. key: of what
    it was made of."""
    table = pa.table({name: _column(values) for name, values in columns.items()}).replace_schema_metadata({"key": key})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    commit_bytes(path, sink.getvalue().to_pybytes())


def table_key(path: Path) -> str | None:
    """None: there is none, or it is damaged."""
    try:
        return (pq.read_table(path).schema.metadata or {}).get(b"key", b"").decode()
    except (OSError, pa.ArrowException):
        return None


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return lists(values, np.ones(values.shape, bool))
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values, from_pandas=True)
    return values


def lists(values: np.ndarray, kept: Bool[np.ndarray, "n m"], known: Bool[np.ndarray, "n m"] | None = None) -> pa.Array:
    """A list of each row of values (n, m), of those that are kept; null where they are not known."""
    offsets = np.concatenate([[0], kept.sum(1).cumsum()]).astype(np.int32)
    null = None if known is None else ~known[kept]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[kept], mask=null))


def texts(values: Sequence[str | None]) -> pa.Array:
    return pa.array(list(values), pa.string())


def read_column(path: Path, name: str) -> list[Any]:
    """Of a table that write_table wrote; None for null. Raises ValueError: there is none, or it is damaged."""
    try:
        return pq.read_table(path, columns=[name])[name].to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{path} has no column {name} that can be read: {error}") from None
