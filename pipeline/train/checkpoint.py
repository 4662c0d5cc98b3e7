"""Checkpoints of dictionaries in training: safetensors, committed atomically, one file per step, its crc32c in its name.

Dictionaries that train on one read of the store save at the same steps. The older checkpoints of each are removed only
after all have the newer one, so whenever the process dies there is a step that all of them have. Two are kept: should the
disk have damaged the newest, training goes on from the one before.
"""

import re
from pathlib import Path

import torch
from crc32c import crc32c
from safetensors.torch import load, save
from tqdm import tqdm

from stores.manifest import commit_bytes


def _files(folder: Path) -> dict[int, Path]:
    """By step, rising."""
    found = ((re.fullmatch(r"step-(\d+)-[0-9a-f]{8}\.safetensors", p.name), p) for p in folder.glob("step-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, rising. A checkpoint at step n has learned from batches 0 … n - 1."""
    return list(_files(folder))


def sound(folder: Path) -> list[int]:
    """Those of the steps whose checkpoint is as it was written; tells of each that is not."""
    found = []
    for step, path in _files(folder).items():
        if f"{crc32c(path.read_bytes()):08x}" == path.stem.rsplit("-", 1)[1]:
            found.append(step)
        else:
            tqdm.write(f"{path} is damaged: going on from the checkpoint before it, if there is one")
    return found


def write(folder: Path, step: int, state: dict[str, torch.Tensor]) -> None:
    """Commit the checkpoint of a step."""
    data = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    path = folder / f"step-{step:09d}-{crc32c(data):08x}.safetensors"
    before = _files(folder).get(step)
    commit_bytes(path, data)
    if before not in (None, path):  # what was damaged, and is written again
        before.unlink()


def read(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """The state that was written at a step."""
    return load(_files(folder)[step].read_bytes())


def prune(folder: Path, step: int) -> None:
    """Remove all checkpoints but that of a step and the one before it."""
    files = _files(folder)
    before = max((other for other in files if other < step), default=step)
    for other, path in files.items():
        if other not in (before, step):
            path.unlink()


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
