"""Digests and atomic commits: a file is there whole, under its final name, or it is not there."""

import contextlib
import hashlib
import json
import os
import re
import stat
import uuid
from pathlib import Path
from typing import Any

from stores.exclusive import name_exclusively

_ORPHAN_AGE_S = 600
_TRIES = 5
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial")


def canonical(value: Any) -> bytes:
    """A JSON-representable value as digest takes it: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-representable value, independent of the order of keys."""
    return hashlib.sha256(canonical(value)).hexdigest()


def seed_of(*names: int | str) -> int:
    """A 63-bit seed of its own for each purpose, so that draws for different things never repeat each other."""
    return int(digest(list(names))[:15], 16)


def bytes_digest(data: bytes | memoryview) -> str:
    """sha256 (hex)."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path | str) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """A folder, and those above it, that survive a power cut."""
    for left in reversed(range(_TRIES)):
        if path.is_dir() or path.parent == path:
            return
        make_folder(path.parent)
        try:
            path.mkdir(exist_ok=True)
            fsync_path(path.parent)
        except FileNotFoundError:  # another process swept the empty folder above
            if not left:
                raise


def commit_bytes(path: Path, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
    """Write a file atomically: temporary file, fsync, rename (or exclusive link), fsync of the folder.

    exclusive: leave an existing file alone. Returns whether this call's bytes are the file's.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            if not name_exclusively(temporary, path):
                return False
        else:
            os.replace(temporary, path)
        fsync_path(path.parent)
        return True
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def commit_json(path: Path, value: Any, *, exclusive: bool = False) -> bool:
    """commit_bytes of a JSON-representable value."""
    return commit_bytes(path, json_bytes(value), exclusive=exclusive)


def json_bytes(value: Any) -> bytes:
    """Indented, one final newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def is_partial(name: str) -> bool:
    """Whether a file's name is one that commit_bytes writes under before the file gets its own."""
    return _PARTIAL.fullmatch(name) is not None


def sweep_partial(folder: Path) -> None:
    """Remove what killed processes left half-written below a folder: files that commit_bytes named.

    A young one stays: it may belong to a process that is at work, such as a requeued job's predecessor. Ages are told by
    the clock that dates the folder's files, not by this machine's.
    """
    clock = folder / f".clock.{uuid.uuid4().hex}.partial"
    with clock.open("xb") as file:
        now = os.fstat(file.fileno()).st_mtime
    clock.unlink(missing_ok=True)
    for root, _, names in os.walk(folder):  # which leaves out what other processes remove meanwhile
        for orphan in (Path(root) / name for name in names if is_partial(name)):
            with contextlib.suppress(FileNotFoundError):  # its process has finished it, or another one swept it
                status = orphan.lstat()
                if stat.S_ISREG(status.st_mode) and now - status.st_mtime > _ORPHAN_AGE_S:
                    orphan.unlink()


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises ValueError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of 5000 digits, 5000 brackets
        raise ValueError(f"{path} is damaged: not JSON ({error})") from error
