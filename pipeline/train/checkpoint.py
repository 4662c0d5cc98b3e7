"""Checkpoints of dictionaries in training: safetensors, committed atomically, one file per step, its crc32c in its name.

Of features that several processes hold each writes a file of its own, and nobody holds them all: a checkpoint is then a
manifest that names these files, with its crc32c in its name, and is written when all of them are there.

Dictionaries that train on one read of the store save at the same steps. The older checkpoints of each are removed only
after all have the newer one, so whenever the process dies there is a step that all of them have. Two are kept: should the
disk have damaged the newest, training goes on from the one before.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from crc32c import crc32c
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from stores.manifest import canonical, commit_bytes, read_json

_BLOCK_BYTES = 1 << 24


def _files(folder: Path) -> dict[int, Path]:
    """By step, rising."""
    names = r"step-(\d+)-[0-9a-f]{8}\.(safetensors|json)"
    found = ((re.fullmatch(names, path.name), path) for path in folder.glob("step-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, rising. A checkpoint at step n has learned from batches 0 … n - 1."""
    return list(_files(folder))


def sound(folder: Path) -> list[int]:
    """Those of the steps whose checkpoint is as it was written; tells of each that is not."""
    found = []
    for step, path in _files(folder).items():
        damaged = [path] if not _as_written(path) else [file for file in _parts(path) if not _as_written(file)]
        if not damaged:
            found.append(step)
        for file in damaged:
            tqdm.write(f"{file} is damaged: going on from the checkpoint before it, if there is one")
    return found


def _as_written(file: Path) -> bool:
    found = 0
    try:
        with file.open("rb") as data:
            while block := data.read(_BLOCK_BYTES):
                found = crc32c(block, found)
    except FileNotFoundError:
        return False
    return f"{found:08x}" == file.stem.rsplit("-", 1)[1]


def _parts(path: Path) -> list[Path]:
    """The files that a manifest names; none of what is no manifest, or of a damaged one."""
    try:
        return [path.with_name(name) for name in read_json(path)["parts"]] if path.suffix == ".json" else []
    except (ValueError, KeyError, TypeError):
        return []


def write(folder: Path, step: int, state: Mapping[str, Tensor]) -> None:
    """Commit the checkpoint of a step."""
    _commit(folder, step, _bytes(state), "safetensors")


def write_part(folder: Path, step: int, state: Mapping[str, Tensor], rank: int) -> str:
    """Write what one of several processes has for a step, which counts once it is joined. Returns the file's name."""
    data = _bytes(state)
    name = f"part-{step:09d}-{rank:05d}-{crc32c(data):08x}.safetensors"
    commit_bytes(folder / name, data)
    return name


def join(folder: Path, step: int, parts: Sequence[str], divided: Sequence[str]) -> None:
    """Commit the checkpoint of a step. parts: by rank. divided: tensors of which each part has rows; the first part has all
    others."""
    _commit(folder, step, canonical({"parts": list(parts), "divided": sorted(divided)}), "json")


def _bytes(state: Mapping[str, Tensor]) -> bytes:
    return save({k: v.detach().cpu().contiguous() for k, v in state.items()})


def _commit(folder: Path, step: int, data: bytes, kind: str) -> None:
    path = folder / f"step-{step:09d}-{crc32c(data):08x}.{kind}"
    before = _files(folder).get(step)
    commit_bytes(path, data)
    if before not in (None, path):  # what was damaged, and is written again
        before.unlink()


def read(
    folder: Path, step: int, own: Callable[[str, Tensor], Tensor] = lambda name, whole: whole
) -> dict[str, Tensor]:
    """The state that was written at a step, on the CPU. own: what to keep of each tensor, by its name; no more than one
    whole tensor is held beside that, of those that several processes have written."""
    path = _files(folder)[step]
    if path.suffix == ".safetensors":
        return {name: own(name, whole) for name, whole in load(path.read_bytes()).items()}
    parts = [safe_open(file, framework="pt") for file in _parts(path)]
    divided = set(read_json(path)["divided"])
    state = {}
    for name in parts[0].keys():  # noqa: SIM118
        rows = [part.get_tensor(name) for part in (parts if name in divided else parts[:1])]
        state[name] = own(name, torch.cat(rows) if len(rows) > 1 else rows[0].clone())
    return state


def prune(folder: Path, step: int) -> None:
    """Remove all checkpoints but that of a step and the one before it, and parts of none."""
    files = _files(folder)
    before = max((other for other in files if other < step), default=step)
    kept = {other: path for other, path in files.items() if other in (before, step)}
    for other, path in files.items():
        if other not in kept:
            path.unlink()
    needed = {part for path in kept.values() for part in _parts(path)}
    for part in set(folder.glob("part-*.safetensors")) - needed:
        part.unlink()


def groups(folders: dict[str, Path]) -> list[tuple[int, list[str]]]:
    """[(step, names)]: who goes on together, and from where.

    Those with checkpoints go on from the newest step that all of them have (a part may have saved a step that the
    others did not reach), or each from its own newest if there is none; those without start at 0.
    """
    saved = {name: sound(folder) for name, folder in folders.items()}
    begun = [name for name, own in saved.items() if own]
    fresh = [name for name, own in saved.items() if not own]
    common = set.intersection(*(set(saved[name]) for name in begun)) if begun else set()
    found = [(max(common), begun)] if common else []
    if not common:
        for step in sorted({max(saved[name]) for name in begun}):
            found.append((step, [name for name in begun if max(saved[name]) == step]))
    return found + ([(0, fresh)] if fresh else [])
