"""Sources of text → documents."""

import hashlib
import importlib.metadata
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.extract.config import TextConfig
from pipeline.extract.documents import KINDS, kind, read_documents, texts
from pipeline.extract.stdlib import relative_name, stdlib_files
from pipeline.models.hub import dataset_commit
from stores.manifest import digest, file_digest


@dataclass(frozen=True)
class Bookmark:
    """A place in a streamed dataset. document, row: how many come before it; state: what the library goes on from, in its
    own words, which another version may not know."""

    document: int
    row: int
    state: dict[str, Any]
    library: str


class Documents:
    """The documents of a source, in an order that is the same every time; from number `first` on, that of a bookmark.

    Iterating raises UserError: a file or dataset that is not there, or not text, or a column it does not have.
    """

    def __init__(self, config: TextConfig, start: Bookmark | None = None) -> None:
        self.config = config
        self._start = start if start and start.library == importlib.metadata.version("datasets") else None
        self.first = self._document = self._start.document if self._start else 0
        self._row = self._start.row if self._start else 0
        self._stream: Any = None

    def __iter__(self) -> Iterator[str]:
        if self.config.source == "hub":
            yield from self._dataset()
        for path in text_files(self.config):
            if self.config.source == "stdlib":
                with tokenize.open(path) as file:  # a Python file may say that it is in another encoding
                    yield file.read()
            else:
                yield from read_documents(path, self.config.column)

    def bookmark(self) -> Bookmark | None:
        """Behind the document that came last; None where the source cannot be entered in its middle."""
        if self._stream is None:
            return None
        library = importlib.metadata.version("datasets")
        return Bookmark(self._document, self._row, self._stream.state_dict(), library)

    def _dataset(self) -> Iterator[str]:
        import datasets
        from datasets.exceptions import DatasetsError

        config, name = self.config, self.config.dataset or ""
        commit = None if Path(name).is_dir() else dataset_commit(name, config.revision)
        try:
            self._stream = datasets.load_dataset(
                name, name=config.subset, split=config.split, revision=commit, streaming=True
            )
            if self._start:
                self._stream.load_state_dict(self._start.state)
            for found in texts(self._rows(), config.column, name, self._row):
                self._document += 1
                yield found
        except (OSError, ValueError, DatasetsError) as error:
            found = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"extract.text: cannot read {name}: {found}") from None

    def _rows(self) -> Iterator[Any]:
        for found in self._stream:
            self._row += 1
            yield found


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
