"""Sources of text → documents → token sequences of one length, each beginning with BOS."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
        # By the hash of the name: neighbouring modules are alike, and the held-out rows are the last ones.
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


Position = tuple[int, int]  # in a text: (document, token in it); BOS is a document's token 0


def pack(
    texts: Iterable[str], tokenizer: Any, bos: int, context: int, start: Position = (0, 0)
) -> Iterator[tuple[np.ndarray, Position]]:
    """(context,) int32 sequences, each with the position at which the next one begins: BOS, then context - 1 tokens of
    the stream in which BOS begins every document.

    texts: all documents; start: the position to go on from, which gives the sequences that would have followed it.
    tokenizer: a `tokenizers.Tokenizer`. What does not fill the last sequence is left out.
    """
    document, skip = start
    begins = np.zeros(0, np.int64)  # where in `stream` documents begin, the first maybe before it
    numbers = np.zeros(0, np.int64)  # and which these are
    stream = np.zeros(0, np.int32)
    for some in _batched(itertools.islice(texts, document, None), 64):
        ids = [stream]
        for encoding in tokenizer.encode_batch_fast(list(some), add_special_tokens=False):
            begins = np.append(begins, sum(map(len, ids)) - skip)
            numbers = np.append(numbers, document)
            ids.append(np.array([bos, *encoding.ids], np.int32)[skip:])
            document, skip = document + 1, 0
        stream = np.concatenate(ids)
        n = len(stream) // (context - 1)
        for i in range(n):
            end = (i + 1) * (context - 1)
            if end == len(stream):
                position = (document, 0)
            else:
                at = int(np.searchsorted(begins, end, side="right")) - 1
                position = (int(numbers[at]), end - int(begins[at]))
            yield np.concatenate([np.array([bos], np.int32), stream[end - context + 1 : end]]), position
        used = n * (context - 1)
        first = max(0, int(np.searchsorted(begins, used, side="right")) - 1)
        begins, numbers, stream = begins[first:] - used, numbers[first:], stream[used:]


def _batched(items: Iterable[str], n: int) -> Iterator[tuple[str, ...]]:
    """itertools.batched, which Python 3.11 lacks."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, n)):
        yield batch
