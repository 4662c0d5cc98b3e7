"""Dictionaries from one library's format to another's."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stores import interchange
from stores.dictionary_files import Weights
from stores.formats import circuit_tracer, dictionary_learning, sparsify
from stores.formats.found import dictionaries_in, parts_below, read, read_spec
from stores.formats.stated import Stated
from stores.manifest import commit_bytes, fsync_path, make_folder
from stores.spec import Spec


class _Target(NamedTuple):
    check: Callable[[Spec], None]
    write: Callable[[Spec, Weights], Iterator[tuple[str, bytes]]]


_MODULES = {
    "saelens": interchange,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "circuit-tracer": circuit_tracer,
}
TARGETS = {name: _Target(module.check, module.write) for name, module in _MODULES.items()}


def convert(source: Path, target: Path, to: str, stated: Stated) -> list[Path]:
    """Write the dictionary at source, or all of the folder, as a new folder that another library reads.

    to: one of TARGETS. Of several dictionaries each has a folder in it, by its path below source; circuit-tracer's are a
    file per layer, in one. Returns what was converted, in that order. Raises ValueError: the target is there already, or
    the library cannot express one; nothing is written then.
    """
    if os.path.lexists(target):
        raise ValueError(f"{target} is there already, and is not overwritten: name another folder")
    found = dictionaries_in(source) or [source]
    specs = {path: read_spec(path, stated) for path in found}
    for path, spec in specs.items():
        _check(path, spec, to)
    if to == "circuit-tracer":
        _check_set(specs)
    making = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        for path in found:
            into = making if to == "circuit-tracer" or len(found) == 1 else making.joinpath(*parts_below(path, source))
            for name, data in TARGETS[to].write(*read(path, stated)):
                commit_bytes(into / name, data)
        make_folder(target.parent)
        if os.path.lexists(target):
            raise ValueError(f"{target} has come to be there meanwhile, and is not overwritten: name another folder")
        os.rename(making, target)
        fsync_path(target.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return found


def _check(path: Path, spec: Spec, to: str) -> None:
    try:
        TARGETS[to].check(spec)
    except ValueError as error:
        able = [name for name, target in TARGETS.items() if _holds(target, spec)]
        others = f"{' and '.join(able)} can hold it" if able else "none of the others can hold it"
        raise ValueError(f"{path}: {error}; {others}") from None


def _holds(target: _Target, spec: Spec) -> bool:
    try:
        target.check(spec)
    except ValueError:
        return False
    return True


def _check_set(specs: dict[Path, Spec]) -> None:
    """Raises ValueError: these are no set of one transcoder a layer."""
    layers: dict[int, Path] = {}
    hooks = set()
    for path, spec in specs.items():
        layer, *hook = circuit_tracer.layer_of(spec)
        if layer in layers:
            raise ValueError(f"{layers[layer]} and {path} are both of layer {layer}: circuit-tracer has one a layer")
        layers[layer] = path
        hooks.add("--".join(hook))
    if len(hooks) > 1:
        raise ValueError(f"circuit-tracer has one pair of hook points in a set, here are {', '.join(sorted(hooks))}")
