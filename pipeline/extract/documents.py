"""A file of text → its documents. What is no text is refused with the file, and the row or the byte, where it lies."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from pipeline.config import UserError

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".txt.gz", ".jsonl.gz", ".json.gz")


def kind(path: Path) -> str | None:
    """Which of KINDS a file's name ends in, in any case; None: in none."""
    name = path.name.lower()
    return next((k for k in KINDS if name.endswith(k)), None)


def read_documents(path: Path, column: str) -> Iterator[str]:
    """The documents of a file of one of KINDS: a .txt is one, the others have one in each row's column.

    Raises UserError: the file is binary, not UTF-8 or damaged, or a row's column is missing or no text.
    """
    ending = kind(path) or ""
    try:
        if ending == ".parquet":
            yield from texts(_parquet(path, column), column, str(path))
            return
        with cast(BinaryIO, gzip.open(path)) if ending.endswith(".gz") else path.open("rb") as file:
            if ending.startswith(".txt"):
                # Line ends become newlines, as in Python's own text files.
                yield decoded(file.read(), path).replace("\r\n", "\n").replace("\r", "\n")
            else:
                yield from texts(_json(file, path, lines=ending.startswith(".jsonl")), column, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"extract.text: cannot read {path}: {error}") from None


def texts(rows: Iterable[Any], column: str, where: str, before: int = 0) -> Iterator[str]:
    """The column of rows, which are dictionaries. Rows with null there are left out, counted and told. before: how many
    rows come before the first.

    Raises UserError: a row is no dictionary or lacks the column, or has no text there.
    """
    nulls, first, row = 0, 0, before
    try:
        for row, values in enumerate(rows, before + 1):
            if not isinstance(values, dict):
                raise UserError(f"extract.text: {where} row {row} is no object with columns: {str(values)[:40]!r}")
            if column not in values:
                raise UserError(
                    f"extract.text.column: no column {column!r} in {where} row {row}, it has {', '.join(values)}"
                )
            value = values[column]
            if value is None:
                nulls, first = nulls + 1, first or row
                continue
            if not isinstance(value, str):
                raise UserError(
                    f"extract.text: {where} row {row} has {str(value)[:40]} in column {column!r}, a "
                    f"{type(value).__name__}, expected text"
                )
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"extract.text: {where} row {row} has half a surrogate pair at character {error.start}"
                ) from None
            yield value
    finally:
        if nulls:
            tqdm.write(f"{where}: {nulls} of {row} rows have null in column {column!r}, the first is {first}: left out")


def decoded(data: bytes, path: Path, start: int = 0) -> str:
    """start: where in the file the data begin. Raises UserError: they are binary or not UTF-8."""
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(
            f"extract.text: {path} is binary or UTF-16 (a zero byte at byte {start + nul}), expected UTF-8 text: take it "
            "out of extract.text.path, or convert it with iconv"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"extract.text: {path} is not UTF-8 (0x{data[error.start]:02x} at byte {start + error.start}): convert it, as "
            f"with `iconv -f LATIN1 -t UTF-8`, or take it out of extract.text.path"
        ) from None


def _json(file: BinaryIO, path: Path, lines: bool) -> Iterator[Any]:
    """The rows of a file with an object a line, or unless lines of a list of objects where the first character says so."""
    at, row = 0, 0
    for line in file:
        if not lines and line.strip():
            if line.lstrip().startswith(b"["):
                yield from _value(decoded(line + file.read(), path, at), path, "")
                return
            lines = True
        if text := decoded(line, path, at).strip():
            row += 1
            yield _value(text, path, f" row {row}")
        at += len(line)


def _value(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"extract.text: {path}{where} is not JSON ({error})") from None


def _parquet(path: Path, column: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise UserError(f"extract.text.column: no column {column!r} in {path}, it has {', '.join(names)}")
            for batch in file.iter_batches(columns=[column]):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise UserError(f"extract.text: cannot read {path}: {str(error).splitlines()[0]}") from None
