"""The files of a unit, and what its manifest says of them."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stores.manifest import commit_json, digest, file_digest, is_partial, read_json
from stores.verify import Damage

_STATE = {"plan.json", "manifest.json", "manifest.withdrawn", "started.json", "failed.json"}
_NO_RESULT = {"checkpoints", "tensorboard", "wandb"}  # folders; a store has a manifest of its own


def results(folder: Path) -> Iterator[Path]:
    """The files of a unit that its manifest vouches for, in a fixed order."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in _NO_RESULT and path.suffix != ".zarr":
            yield from results(path)
        elif path.is_file() and path.name not in _STATE and not is_partial(path.name):
            yield path


def recorded_files(manifest: dict[str, Any] | None) -> dict[str, tuple[int, str]] | None:
    """Name → (bytes, sha256) of what a unit's manifest vouches for; None: there is none, or it is damaged."""
    files = (manifest or {}).get("files")
    if not isinstance(files, dict) or not all(isinstance(f, list) and len(f) == 2 for f in files.values()):
        return None
    return {name: (n_bytes, sha256) for name, (n_bytes, sha256) in files.items()}


def damage(folder: Path) -> Iterator[Damage]:
    """Each file of a unit that is not as its manifest says. Nothing for a folder without a manifest.

    Reads every byte.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return
    files = recorded_files(json_object(path))
    if files is None:
        yield Damage(None, f"{path} is damaged")
        return
    if json_object(folder / "plan.json") != _plan_of(folder):
        yield Damage(None, f"{folder / 'plan.json'} is not the one that manifest.json has")
    for name, (n_bytes, sha256) in files.items():
        file = folder / name
        try:
            if (size := size_of(file)) is None:
                yield Damage(None, f"{file} is missing")
            elif size != n_bytes:
                yield Damage(None, f"{file} is {size} bytes, expected {n_bytes} bytes")
            elif file_digest(file) != sha256:
                yield Damage(None, f"{file} was altered: its sha256 is not the one in manifest.json")
        except OSError as error:
            yield Damage(None, f"{file} cannot be read: {error.strerror}", error.errno != errno.EIO)


def size_of(path: Path) -> int | None:
    """The bytes of a file; None: there is none, or its name is no name."""
    try:
        found = path.stat()
    except ValueError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return None
        raise
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def has_its_key(plan: dict[str, Any]) -> bool:
    """Whether a plan's key is that of what it names."""
    try:
        return plan["key"] == digest([plan["stage"], plan["version"], plan["settings"], plan["inputs"]])
    except (KeyError, ValueError):
        return False


def _plan_of(folder: Path) -> dict[str, Any]:
    """The plan in a unit's manifest."""
    manifest = json_object(folder / "manifest.json") or {}
    return {key: manifest[key] for key in ("stage", "name", "key", "version", "settings", "inputs") if key in manifest}


def repair(folder: Path) -> bool:
    """Lead a damaged unit to health: write its plan again as its manifest has it; where more is damaged, unmake the
    manifest, so that its stage makes the unit again. What could not be read for reasons that may pass stays. Returns
    whether the stage has to make it again."""
    plan = _plan_of(folder)
    if json_object(folder / "plan.json") != plan and has_its_key(plan):
        commit_json(folder / "plan.json", plan)
    if not any(not one.passing for one in damage(folder)):
        return False
    os.replace(folder / "manifest.json", folder / "manifest.withdrawn")
    return True


def json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None: no such file, or nothing like it in it."""
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None
