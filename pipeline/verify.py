"""verify: is everything as it was committed, and what leads back where it is not."""

import os
import shlex
from pathlib import Path

from pipeline.config import UserError
from pipeline.progress import progress
from pipeline.unit_files import damage as unit_damage
from pipeline.unit_files import repair as repair_unit
from stores.activations import ActivationStore
from stores.metadata import COPY, MANIFEST, ROOT
from stores.place import is_url, place_at
from stores.verify import damage as store_damage
from stores.verify import repair as repair_store
from stores.verify import stored_description
from stores.writer import StoreWriter


def verify(path: str, repair: bool) -> None:
    """Check a store, or the stores and finished units in a folder. Without repair nothing is changed.

    Raises UserError: there is neither; RuntimeError: something is damaged, or cannot be read.
    """
    if is_url(path) or _is_store(Path(path)):
        return _store(path, repair)
    stores, units = _contents(Path(path))
    if not stores and not units:
        raise UserError(
            f"no activation store and no finished unit at {path}: give a store, a run folder or a dictionary"
        )
    wrong = []
    for folder in units:
        if found := list(unit_damage(folder)):
            print("\n".join(one.what for one in found))
            wrong += found
            if repair and repair_unit(folder):
                print(f"{folder} taken back: run `unmix {_stage(folder)}` with its recipe")
    failed = []
    for store in stores:
        try:
            _store(str(store), repair)
        except RuntimeError as error:
            failed.append(str(error))
    stays = [one for one in wrong if one.passing]
    if len(stays) < len(wrong) and not repair:
        failed.append(f"{path} is damaged in {len(wrong)} files: run `unmix verify {shlex.quote(path)} --repair`")
    elif stays:
        failed.append(f"{path}: {len(stays)} files could not be read and were left as they are: try again")
    if failed:
        raise RuntimeError("; ".join(failed))
    print(
        f"{path}: {len(units)} finished units checked"
        + (f", {len(wrong)} damages taken back" if wrong else ", all whole")
    )


def _is_store(path: Path) -> bool:
    return path.suffix == ".zarr" or (path / ROOT).exists() or (path / COPY).exists()


def _contents(root: Path) -> tuple[list[Path], list[Path]]:
    """(stores, units that have a manifest) below a folder, in a fixed order."""
    stores, units = [], []
    for folder, below, names in os.walk(root):
        path = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "leases")
        stores += [path / name for name in below if _is_store(path / name)]
        below[:] = [name for name in below if not _is_store(path / name)]
        if "manifest.json" in names:
            units.append(path)
    return stores, units


def _stage(folder: Path) -> str:
    """Which command makes a unit: RUN/STAGE/…"""
    return next((part for part in reversed(folder.parts) if part in ("extract", "train", "score", "toy")), "run")


def _store(path: str, repair: bool) -> None:
    if not StoreWriter.exists(path):
        raise UserError(f"no activation store at {path}: give the folder or URL that ends in .zarr")
    place = place_at(path)
    n_shards, wrong = stored_description(place).n_shards, []
    for _, found in progress(store_damage(place), total=n_shards + 1, unit="shard", desc="verify"):
        for one in found:
            print(one.what)
        wrong += found
    stays = [one for one in wrong if one.passing]
    again = sorted({one.shard for one in wrong if one.shard is not None and not one.passing})
    if wrong and not repair:
        what = "could not be read: try again" if len(stays) == len(wrong) else f"is damaged: {place.repair}"
        raise RuntimeError(f"{path}, in {len(wrong)} places, {what}")
    writer = repair_store(place, wrong) if wrong else StoreWriter.resume(path)
    if again:
        print(f"shard{'' if len(again) == 1 else 's'} {', '.join(map(str, again))} taken back")
    if stays:
        raise RuntimeError(f"{path}: {len(stays)} places could not be read and were left as they are: try again")
    left = len(writer.missing())
    if left or not place.exists(MANIFEST):
        there = f"{path}: {n_shards - left} of {n_shards} shards are there, as they were committed"
        print(f"{there}; the store is not finished: run `unmix extract` with its recipe")
    else:
        digest = ActivationStore.open(path).digest[:12]
        print(f"{path}: all {n_shards} shards are as they were committed, digest {digest}")
