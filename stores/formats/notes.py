"""What other libraries' files have no place for, in a table of its own in their JSON, which they pass over."""

from pathlib import Path
from typing import Any

from stores.dictionary_files import Provenance, named, shown, text_of
from stores.site import Site
from stores.spec import Spec

_KEY = "unmix"


def note_of(spec: Spec) -> dict[str, Any]:
    """The hook points and the model."""
    site = {"reads": spec.site.reads, "writes": spec.site.writes, "d_writes": spec.d_writes}
    return {_KEY: {**site, "model": spec.provenance.get("model", "")}}


def read_note(file: Path, config: dict[str, Any]) -> tuple[Site | None, tuple[int, ...], Provenance]:
    """(site, d_writes, provenance) of what note_of wrote. Raises ValueError: it is something else."""
    note = config.get(_KEY)
    if note is None:
        return None, (), {}
    if not isinstance(note, dict):
        raise ValueError(f"{file}: {_KEY} is {shown(note)}, expected an object")
    for name, kind in (("reads", str), ("writes", str), ("d_writes", int)):
        if not isinstance(note.get(name), list) or not all(type(value) is kind for value in note[name]):
            raise ValueError(f"{file}: {_KEY}.{name} is {shown(note.get(name))}, expected a list")
    model = text_of(file, f"{_KEY}.model", note.get("model", ""))
    with named(file):
        site = Site(tuple(note["reads"]), tuple(note["writes"]))
    return site, tuple(note["d_writes"]), {"model": model} if model else {}


def beside(path: Path, weights: str, config: str) -> list[Path] | None:
    """[config, weights] where path is their folder or the weights in it, and both are there."""
    folder = path.parent if path.name == weights and path.is_file() else path
    found = [folder / config, folder / weights]
    return found if all(file.exists() for file in found) else None


def whole_number(file: Path, config: dict[str, Any], name: str, default: int | None = None) -> int:
    """Raises ValueError: it is missing, and has no default, or is none."""
    value = config.get(name, default)
    if value is None:
        raise ValueError(f"{file} lacks {name}")
    if type(value) is not int:
        raise ValueError(f"{file}: {name} = {shown(value)} is not a whole number")
    return value
