"""Checkpoints of dictionaries in training: safetensors, committed atomically, one file per step.

Dictionaries that train on one read of the store save at the same steps. The older checkpoint of each is removed only
after all have the newer one, so whenever the process dies there is a step that all of them have.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from stores.manifest import commit_bytes


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, rising. A checkpoint at step n has learned from batches 0 … n - 1."""
    found = (re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.glob("step-*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def write(folder: Path, step: int, state: dict[str, torch.Tensor]) -> None:
    """Commit the checkpoint of a step."""
    commit_bytes(_file(folder, step), save({k: v.detach().cpu().contiguous() for k, v in state.items()}))


def read(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """The state that was written at a step."""
    return load_file(_file(folder, step))


def keep_only(folder: Path, step: int) -> None:
    """Remove the checkpoints of all other steps."""
    for other in steps(folder):
        if other != step:
            _file(folder, other).unlink()


def groups(folders: dict[str, Path]) -> list[tuple[int, list[str]]]:
    """[(step, names)]: who goes on together, and from where.

    Those with checkpoints go on from the newest step that all of them have (a part may have saved a step that the
    others did not reach), or each from its own newest if there is none; those without start at 0.
    """
    saved = {name: steps(folder) for name, folder in folders.items()}
    begun = [name for name, own in saved.items() if own]
    fresh = [name for name, own in saved.items() if not own]
    common = set.intersection(*(set(saved[name]) for name in begun)) if begun else set()
    found = [(max(common), begun)] if common else []
    if not common:
        for step in sorted({max(saved[name]) for name in begun}):
            found.append((step, [name for name in begun if max(saved[name]) == step]))
    return found + ([(0, fresh)] if fresh else [])
