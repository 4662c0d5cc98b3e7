"""Sources of text → documents."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.extract.stdlib import relative_name, stdlib_files
from pipeline.recipe import TextConfig
from stores.manifest import file_digest

_LOADERS = {".jsonl": "json", ".parquet": "parquet"}


def documents(config: TextConfig) -> Iterator[str]:
    """The documents, in an order that is the same every time.

    Raises UserError: a file or dataset that is not there, or a column it does not have.
    """
    if config.source == "hub":
        yield from _dataset(
            config, config.dataset or "", name=config.subset, split=config.split, revision=config.revision
        )
        return
    for path in text_files(config):
        if path.suffix in _LOADERS:
            yield from _dataset(config, _LOADERS[path.suffix], data_files=str(path), split="train")
        else:
            yield path.read_text(encoding="utf-8", errors="replace")


def text_files(config: TextConfig) -> list[Path]:
    """The files of a source, in the order they are read. Raises UserError: one is missing, or of another kind."""
    if config.source == "hub":
        return []
    if config.source == "stdlib":
        try:
            files = stdlib_files(config.split)
        except FileNotFoundError as error:
            raise UserError(str(error)) from None
        # By the hash of the name: neighbouring modules are alike, and a small store reads the first ones alone.
        return sorted(files, key=lambda path: hashlib.sha256(relative_name(path).encode()).digest())
    kinds = (".txt", *_LOADERS)
    files = []
    for name in config.path:
        path = Path(name)
        if not path.exists():
            raise UserError(f"extract.text.path: no file or folder {name}")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in kinds)
        if not found or any(p.suffix not in kinds for p in found):
            raise UserError(f"extract.text.path: {name} holds no text, expected files ending in {', '.join(kinds)}")
        files += found
    return files


def text_inputs(config: TextConfig) -> dict[str, Any]:
    """What identifies the text: the digest of every file, or the dataset's name and revision."""
    if config.source == "hub":
        return {"dataset": config.dataset, "subset": config.subset, "split": config.split, "revision": config.revision}
    digest = hashlib.sha256()
    for path in text_files(config):
        digest.update(bytes.fromhex(file_digest(path)))
    return {"files_digest": digest.hexdigest()}


def describe(config: TextConfig) -> str:
    """One line for people."""
    if config.source == "stdlib":
        return f"Python standard library, {config.split}"
    if config.source == "hub":
        return ", ".join(p for p in (config.dataset, config.subset, config.split) if p)
    return ", ".join(config.path)


def _dataset(config: TextConfig, loader: str, **options: Any) -> Iterator[str]:
    import datasets
    from datasets.exceptions import DatasetsError

    row: dict[str, Any] = {}
    try:
        rows = datasets.load_dataset(loader, streaming=True, **options)
        for row in rows:
            yield row[config.column]
    except KeyError:
        columns = ", ".join(row)
        raise UserError(f"extract.text.column: no column {config.column!r} in {loader}, it has {columns}") from None
    except (OSError, ValueError, DatasetsError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"extract.text: cannot read {options.get('data_files', loader)}: {found}") from None
