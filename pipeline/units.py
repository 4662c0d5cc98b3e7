"""Units of work: a folder that is a pure function of its settings and inputs, and knows whether it is done.

    plan.json       written first: key, settings, inputs
    manifest.json   written last: the plan, the size and sha256 of every file, package versions, device, wall time,
                    headline numbers

Same key and manifest there: done. Same key, no manifest: it resumes. Another key: a conflict, told to the user. No plan:
it is not ours, and refused. A process claims a unit before it begins; what it replaces is moved aside, and removed
when the successor is whole.
"""

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.config import UserError
from pipeline.failures import forget
from pipeline.unit_files import has_its_key, json_object, recorded_files, results, size_of
from stores.manifest import commit_json, digest, file_digest, fsync_path, is_partial, read_json, sweep_partial

State = Literal["new", "started", "done"]
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
            strange = self._strange()
            found = self._found() if strange else None  # again: another process may have just begun it
            if strange and found is None:
                raise UserError(
                    f"{self.folder} holds {strange} and no plan.json, so it is not known whose it is: {self._way_out()}"
                )
        if found is None:
            return "new"
        if found["key"] != self.key:
            differences = "; ".join(_differences(found, self.plan, self.stage))
            command = f"unmix {self.stage} {'NAME' if self.stage == 'toy' else 'RECIPE'} --replace"
            raise UserError(
                f"{self.folder} was made with other settings: {differences}. Use --replace to make it again, `{command}`, "
                f"or --name for another run folder"
            )
        return "done" if self._whole() else "started"

    @property
    def place(self) -> str:
        """SITE/NAME, of a unit that is of one dictionary."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    def is_done(self) -> bool:
        """One that is in conflict is not."""
        try:
            return self.state() == "done"
        except UserError:
            return False

    def _whole(self) -> bool:
        """Whether all is there that the manifest tells of, in its size: what is missing or cut is made again."""
        manifest = json_object(self.folder / "manifest.json")
        files = recorded_files(manifest)
        if files is None or (manifest or {}).get("key") != self.key:
            return False
        return all(size_of(self.folder / name) == n_bytes for name, (n_bytes, _) in files.items())

    def _found(self) -> dict[str, Any] | None:
        plans, damaged = [], None
        for file in ("plan.json", "manifest.json"):  # the manifest holds the plan too
            try:
                found = read_json(self.folder / file)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except ValueError:
                found = None
            if self._is_plan(found):
                plans.append(found)
            else:
                damaged = damaged or file
        if plans:  # where they differ, one was put in the other's place
            return next((plan for plan in plans if plan["key"] == self.key), plans[0])
        if damaged == "plan.json":
            path = self.folder / damaged
            raise UserError(f"{path} is damaged, so it is not known what lies beside it: {self._way_out()}")
        return None

    def _is_plan(self, found: Any) -> bool:
        return (
            isinstance(found, dict)
            and (found.get("stage"), found.get("name")) == (self.stage, self.name)
            and all(isinstance(found.get(part), dict) for part in ("settings", "inputs"))
            and has_its_key(found)
        )

    def _way_out(self) -> str:
        folder = shlex.quote(str(self.folder))
        return f"run `mv {folder} {folder}.aside`, or use --name for another run folder"

    def replaceable(self) -> bool:
        """Whether the folder holds this unit, for --replace to make again."""
        try:
            found = self._found()
        except UserError:
            return False
        return found is not None

    def _strange(self) -> str | None:
        """Something in the folder, or in its place, that no process leaves behind that died before it had a plan."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            return "another file in its place"
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return None
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
        elif not self._is_plan(json_object(self.folder / "plan.json")):  # damaged; the manifest has it
            commit_json(self.folder / "plan.json", self.plan)
        commit_json(self.folder / "started.json", {"time": time.time(), "done": done})
        forget(self.folder)

    def sweep(self) -> None:
        """Remove what this unit replaced. Only for one that is done."""
        pattern = re.compile(rf"\.{re.escape(self.folder.name)}\.[0-9a-f]{{32}}\.replaced")
        for path in self.folder.parent.glob(".*.replaced"):
            if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # another process may sweep too

    def rate(self, done: int, file: Path) -> float | None:
        """What is done a second since the last start, until `file` was last written; None when nothing is known."""
        started = json_object(self.folder / "started.json") or {}
        since, before = started.get("time"), started.get("done")
        if not isinstance(since, float) or not isinstance(before, int) or not file.exists():
            return None
        seconds = file.stat().st_mtime - since
        return (done - before) / seconds if seconds > 0 and done > before else None

    def finish(self, device: str, wall_s: float, headline: dict[str, Any] | None = None) -> None:
        """Write the manifest, with the headline numbers; sweep what killed processes left half-written.

        Raises UserError: another process has replaced this work by that of other settings.
        """
        if not self.resumes():
            raise UserError(f"{self.folder} was replaced by another process while this one worked on it")
        sweep_partial(self.folder)
        files = {path.relative_to(self.folder).as_posix(): path for path in results(self.folder)}
        commit_json(
            self.folder / "manifest.json",
            {
                **self.plan,
                "files": {name: [path.stat().st_size, file_digest(path)] for name, path in files.items()},
                "headline": headline or {},
                "versions": versions(),
                "device": torch.cuda.get_device_name(device)
                if device.startswith("cuda")
                else platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(),
                "wall_s": round(wall_s, 1),
            },
        )
        (self.folder / "started.json").unlink(missing_ok=True)
        forget(self.folder)  # of another process, which had the unit before
        self.sweep()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def pending(units: Iterable[Unit], replace: bool, sweeps: bool = True) -> list[Unit]:
    """Those that are not done. replace: units in conflict too; their folders are moved aside when they begin. sweeps: what
    those that are done have replaced goes; not for those who only look.

    Raises UserError for a unit in conflict, unless replace.
    """
    left = []
    for unit in units:
        try:
            if unit.state() != "done":
                left.append(unit)
            elif sweeps:
                unit.sweep()
        except UserError:
            if not replace or not unit.replaceable():
                raise
            left.append(unit)
    return left


def _differences(found: dict[str, Any], wanted: dict[str, Any], stage: str) -> list[str]:
    """["train.topk.lr: 0.001 → 0.002", …]"""
    lines = []
    for part in ("settings", "inputs"):
        old, new = _flat(found[part]), _flat(wanted[part])
        prefix = f"{stage}." if part == "settings" else "input "
        for key in sorted(old | new):
            if old.get(key) != new.get(key):
                lines.append(f"{prefix}{key}: {_short(old.get(key))} → {_short(new.get(key))}")
    return lines or [f"stage version {_short(found.get('version'))} → {wanted['version']}"]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 48 else f"{text[:12]}…"
