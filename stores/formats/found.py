"""Whose dictionary lies at a path, and all that lie below it."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stores import interchange
from stores.dictionary_files import CONFIG, WEIGHTS, Weights
from stores.formats import circuit_tracer, dictionary_learning, openmoss, plain, sparsify
from stores.formats.affine import Affine
from stores.formats.stated import Stated
from stores.manifest import digest, file_digest
from stores.mapped import Unchecked
from stores.spec import Spec

_MOST_ENTRIES = 100_000  # that are looked at below a folder


class _Format(NamedTuple):
    files: Callable[[Path], list[Path] | None]
    read: Callable[[Path, Stated], Affine]


_FOREIGN = tuple(_Format(m.files, m.read) for m in (sparsify, dictionary_learning, circuit_tracer, openmoss, plain))


def files_of(path: Path) -> list[Path]:
    """The files that say what the dictionary at a path computes. Raises ValueError: there is none, or there are several."""
    return _found(path)[1]


def _found(path: Path) -> tuple[_Format | None, list[Path]]:
    if own := interchange.files(path):
        return None, own
    for format in _FOREIGN:
        if found := format.files(path):
            return format, found
    if path.is_dir() and (inside := dictionaries_in(path)):
        names = ", ".join(str(one.relative_to(path)) for one in inside[:3])
        raise ValueError(
            f"{path} holds {len(inside)} dictionaries, {names}{' …' * (len(inside) > 3)}: name one of them"
        )
    expected = f"{CONFIG} and {WEIGHTS}, or files of another library"
    raise ValueError(f"no feature dictionary at {path}: {expected}, are expected there")


def path_digest(path: Path) -> str:
    """Of the files that say what the dictionary at a path computes."""
    return digest([file_digest(file) for file in files_of(path)])


def read_spec(path: Path, stated: Stated) -> Spec:
    """No weights are read. Raises ValueError as read does."""
    format, _ = _found(path)
    return format.read(path, stated).spec() if format else interchange.read_spec(path, stated)


def read(path: Path, stated: Stated) -> tuple[Spec, Weights]:
    """Raises ValueError, one line that names the file: no dictionary, several, one that is damaged, or what
    FeatureDictionary cannot express."""
    format, _ = _found(path)
    if format is None:
        return interchange.read(path, stated)
    affine = format.read(path, stated)
    spec = affine.spec()
    return spec, affine.weights(spec)


def read_mapped(path: Path, stated: Stated, least_bytes: int) -> tuple[Spec, Weights, Unchecked] | None:
    """As interchange.read_mapped. None, too: another library's file, or one of fewer bytes."""
    format, files = _found(path)
    return interchange.read_mapped(path, stated) if format is None and files[-1].stat().st_size >= least_bytes else None


def dictionaries_in(path: Path) -> list[Path]:
    """A dictionary's own path, or those of all below a folder, in order; links to folders are not followed."""
    if is_dictionary(path):
        return [path]
    found = []
    entries = ((Path(root), folders, names) for root, folders, names in os.walk(path))
    n = 0
    for root, folders, names in islice(entries, _MOST_ENTRIES):
        n += len(names)
        if n > _MOST_ENTRIES:
            raise ValueError(f"{path} holds more than {_MOST_ENTRIES} files: name a folder of dictionaries")
        if root != path and is_dictionary(root):
            found.append(root)
            folders.clear()
        else:
            found += [file for name in names if is_dictionary(file := root / name)]
    return sorted(found)


def parts_below(path: Path, folder: Path) -> tuple[str, ...]:
    """The names that lead from a folder to a dictionary, a file's without its ending."""
    below = path.relative_to(folder)
    return (below.with_suffix("") if path.is_file() else below).parts


def is_dictionary(path: Path) -> bool:
    """Whether one lies there, by the names of files alone."""
    return bool(interchange.files(path)) or any(format.files(path) for format in _FOREIGN)
