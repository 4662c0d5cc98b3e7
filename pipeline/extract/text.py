"""Sources of text → documents."""

import hashlib
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.extract.documents import KINDS, kind, read_documents, texts
from pipeline.extract.hub import dataset_commit
from pipeline.extract.stdlib import relative_name, stdlib_files
from pipeline.recipe import TextConfig
from stores.manifest import digest, file_digest


def documents(config: TextConfig) -> Iterator[str]:
    """The documents, in an order that is the same every time.

    Raises UserError: a file or dataset that is not there, or not text, or a column it does not have.
    """
    if config.source == "hub":
        yield from _dataset(config)
    for path in text_files(config):
        if config.source == "stdlib":
            with tokenize.open(path) as file:  # a Python file may say that it is in another encoding
                yield file.read()
        else:
            yield from read_documents(path, config.column)


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
    files = []
    for name in config.path:
        path = Path(name)
        if not path.exists():
            raise UserError(f"extract.text.path: no file or folder {name}")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if kind(p) and p.is_file())
        if not found or not all(map(kind, found)):
            raise UserError(f"extract.text.path: {name} holds no text, expected files ending in {', '.join(KINDS)}")
        files += found
    return files


def text_inputs(config: TextConfig) -> dict[str, Any]:
    """What identifies the text: each file's kind and bytes in the order they are read, or the dataset's commit; and the
    column, which is of no account where all files are .txt."""
    if config.source == "hub":
        found = {"dataset": config.dataset, "subset": config.subset, "split": config.split, "column": config.column}
        folder = Path(config.dataset or "")
        if not folder.is_dir():
            return {**found, "revision": dataset_commit(config.dataset or "", config.revision)}
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {**found, "files_digest": digest([[p.relative_to(folder).as_posix(), file_digest(p)] for p in files])}
    files = text_files(config)
    if config.source == "stdlib":
        return {"files_digest": digest([file_digest(p) for p in files])}
    found = {"files_digest": digest([[kind(p), file_digest(p)] for p in files])}
    return {**found, "column": config.column} if any(".txt" not in str(kind(p)) for p in files) else found


def describe(config: TextConfig) -> str:
    """One line for people."""
    if config.source == "stdlib":
        return f"Python standard library, {config.split}"
    if config.source == "hub":
        return ", ".join(p for p in (config.dataset, config.subset, config.split) if p)
    return ", ".join(config.path)


def _dataset(config: TextConfig) -> Iterator[str]:
    import datasets
    from datasets.exceptions import DatasetsError

    name = config.dataset or ""
    commit = None if Path(name).is_dir() else dataset_commit(name, config.revision)
    try:
        rows = datasets.load_dataset(name, name=config.subset, split=config.split, revision=commit, streaming=True)
        yield from texts(rows, config.column, name)
    except (OSError, ValueError, DatasetsError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"extract.text: cannot read {name}: {found}") from None
