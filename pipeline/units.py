"""Units of work: a folder that is a pure function of its settings and inputs, and knows whether it is done.

    plan.json       written first: key, settings, inputs
    manifest.json   written last: the plan, package versions, device, wall time, headline numbers

Same key and manifest there: done. Same key, no manifest: it resumes. Another key: a conflict, told to the user. No plan:
it is not ours, and refused. A process claims a unit before it begins; what it replaces is moved aside, and removed
when the successor is whole.
"""

import importlib.metadata
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch

from pipeline.config import UserError
from stores.lease import Leases
from stores.manifest import commit_json, digest, fsync_path, is_partial, read_json, sweep_partial
from stores.place import Folder

State = Literal["new", "started", "done"]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_PACKAGES = ("unmix", "torch", "numpy", "transformers", "zarr", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Unit:
    """version: bumped by hand when the same settings come to mean another result."""

    stage: str
    name: str
    folder: Path
    version: int
    settings: dict[str, Any]
    inputs: dict[str, Any]
    headline: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        return digest([self.stage, self.version, self.settings, self.inputs])

    @property
    def plan(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "name": self.name,
            "key": self.key,
            "version": self.version,
            "settings": self.settings,
            "inputs": self.inputs,
        }

    def state(self) -> State:
        """Raises UserError: the folder holds work of other settings or inputs, and the message says what differs; or
        things that are not of this program."""
        found = self._found()
        if found is None:
            if strange := self._strange():
                raise UserError(
                    f"{self.folder} holds {strange} and no plan.json, so it is not known whose it is: move the folder "
                    f"away, or use --name for another run folder"
                )
            return "new"
        if found["key"] != self.key:
            differences = "; ".join(_differences(found, self.plan, self.stage))
            raise UserError(
                f"{self.folder} was made with other settings: {differences}. Use --replace to make it again, "
                f"or --name for another run folder"
            )
        return "done" if (self.folder / "manifest.json").exists() else "started"

    def _found(self) -> dict[str, Any] | None:
        plan_file = self.folder / "plan.json"
        try:
            found = read_json(plan_file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            found = None
        parts = ("settings", "inputs")
        if not isinstance(found, dict) or "key" not in found or not all(isinstance(found.get(p), dict) for p in parts):
            raise UserError(
                f"{plan_file} is damaged, so it is not known what {self.folder} holds: move the folder away, or use --name "
                f"for another run folder"
            )
        return found

    def replaceable(self) -> bool:
        """Whether the folder holds work of this stage with other settings, for --replace to make again."""
        try:
            found = self._found()
        except UserError:
            return False
        return found is not None and found.get("stage") == self.stage

    def _strange(self) -> str | None:
        """Something in the folder, or in its place, that no process leaves behind that died before it had a plan."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            return "another file in its place"
        names = sorted(p.name for p in self.folder.iterdir()) if self.folder.exists() else []
        return next((name for name in names if not is_partial(name)), None)

    def resumes(self) -> bool:
        """Whether the folder holds this very work, finished or not."""
        found = self._found()
        return found is not None and found["key"] == self.key

    def begin(self, done: int = 0, *, replace: bool = False) -> None:
        """Make the folder this unit's. done: what is there to go on from. replace: move work of other settings aside.

        Only for the process that has claimed it. Raises UserError as state does, where replace does not settle it.
        """
        if not self.resumes():
            if replace and self.replaceable():
                self.folder.rename(self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}.replaced"))
                fsync_path(self.folder.parent)
            self.state()
            commit_json(self.folder / "plan.json", self.plan, exclusive=True)
            self.state()  # another process may have been first, with other settings
        commit_json(self.folder / "started.json", {"time": time.time(), "done": done})

    def sweep(self) -> None:
        """Remove what this unit replaced. Only for one that is done."""
        pattern = re.compile(rf"\.{re.escape(self.folder.name)}\.[0-9a-f]{{32}}\.replaced")
        for path in self.folder.parent.glob(".*.replaced"):
            if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # another process may sweep too

    def rate(self, done: int, file: Path) -> float | None:
        """What is done a second since the last start, until `file` was last written; None when nothing is known."""
        try:
            started = read_json(self.folder / "started.json")
            seconds = file.stat().st_mtime - started["time"]
        except FileNotFoundError:
            return None
        return (done - started["done"]) / seconds if seconds > 0 and done > started["done"] else None

    def finish(self, device: str, wall_s: float) -> None:
        """Write the manifest; sweep what killed processes left half-written."""
        sweep_partial(self.folder)
        commit_json(
            self.folder / "manifest.json",
            {
                **self.plan,
                "headline": self.headline,
                "versions": versions(),
                "device": torch.cuda.get_device_name()
                if device == "cuda"
                else platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(),
                "wall_s": round(wall_s, 1),
            },
        )
        (self.folder / "started.json").unlink(missing_ok=True)
        self.sweep()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def pending(units: Iterable[Unit], replace: bool) -> list[Unit]:
    """Those that are not done. replace: units in conflict too; their folders are moved aside when they begin.

    Raises UserError for a unit in conflict, unless replace.
    """
    left = []
    for unit in units:
        try:
            if unit.state() != "done":
                left.append(unit)
            else:
                unit.sweep()
        except UserError:
            if not replace or not unit.replaceable():
                raise
            left.append(unit)
    return left


class Claims:
    """The units that this process works on. No two processes work on one at a time, on whichever machines they run.

    A context manager: at its end all are given back.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._leases = Leases(Folder(run))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leases.close()

    def claim(self, units: Iterable[Unit], replace: bool = False) -> list[Unit]:
        """Begin those of the units that are not done and that no other process works on; they are this one's now."""
        return [unit for unit in pending(units, replace) if self._claimed(unit, replace)]

    def _claimed(self, unit: Unit, replace: bool) -> bool:
        key = self._key(unit)
        if not self._leases.acquire(key):
            return False
        if pending([unit], replace):
            unit.begin(replace=replace)
            return True
        self._leases.release(key)  # the process that had it has just finished it
        return False

    def begin_together(self, unit: Unit, done: int = 0, *, replace: bool = False) -> None:
        """Begin a unit that several processes work on at a time; its parts have leases of their own."""
        while not self._leases.acquire(self._key(unit)):
            time.sleep(_FIRST_PAUSE_S)
        unit.begin(done, replace=replace)
        self.give_back(unit)

    def holds(self, unit: Unit) -> bool:
        """Whether the unit is still this process's: one that stood still for long may have lost it to another."""
        return self._leases.holds(self._key(unit))

    def give_back(self, unit: Unit) -> None:
        """Let others have the unit, done or not."""
        self._leases.release(self._key(unit))

    def _key(self, unit: Unit) -> str:
        return f"{unit.stage} {unit.name[:100]} {digest(unit.folder.relative_to(self.run).as_posix())[:16]}"

    def rounds(self, groups: Sequence[Sequence[Unit]], replace: bool = False) -> Iterator[list[Unit]]:
        """Units to work on, of one group at a time, until all are done. What others work on is waited for, and claimed
        when they give it back or are gone; while there is nothing else to do, empty lists come. Each unit comes once,
        and is given back when the next list is asked for, done or not."""
        over: set[Path] = set()
        pause_s = _FIRST_PAUSE_S
        while left := [
            own for group in groups if (own := [u for u in pending(group, replace) if u.folder not in over])
        ]:
            found = False
            for group in left:
                if mine := self.claim(group, replace):
                    found = True
                    yield mine
                    over |= {unit.folder for unit in mine if self.holds(unit)}
                    for unit in mine:
                        self.give_back(unit)
            if not found:
                if pause_s == _FIRST_PAUSE_S:
                    n = sum(map(len, left))
                    print(
                        f"waiting for {left[0][0].name}{f' and {n - 1} more' if n > 1 else ''}: another process is at it"
                    )
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                yield []


def _differences(found: dict[str, Any], wanted: dict[str, Any], stage: str) -> list[str]:
    """["train.topk.lr: 0.001 → 0.002", …]"""
    lines = []
    for part in ("settings", "inputs"):
        old, new = _flat(found[part]), _flat(wanted[part])
        prefix = f"{stage}." if part == "settings" else "input "
        for key in sorted(old | new):
            if old.get(key) != new.get(key):
                lines.append(f"{prefix}{key}: {_short(old.get(key))} → {_short(new.get(key))}")
    return lines or [f"stage version {found.get('version')} → {wanted['version']}"]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"
