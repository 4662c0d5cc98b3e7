"""Units of work: a folder that is a pure function of its settings and inputs, and knows whether it is done.

    plan.json       written first: key, settings, inputs
    manifest.json   written last: the plan, package versions, device, wall time, headline numbers

Same key and manifest there: done. Same key, no manifest: it resumes. Another key: a conflict, told to the user.
"""

import importlib.metadata
import platform
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.config import UserError
from stores.manifest import commit_json, digest, fsync_path, read_json, sweep_partial

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
        """Raises UserError: the folder holds work of other settings or inputs; the message says what differs."""
        found = self._found()
        if found is None:
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
        return read_json(plan_file) if plan_file.exists() else None

    def resumes(self) -> bool:
        """Whether the folder holds this very work, finished or not."""
        found = self._found()
        return found is not None and found["key"] == self.key

    def begin(self, done: int = 0) -> None:
        """Claim the folder; whatever else lies there is removed, all at once. done: what is there to go on from."""
        if not self.resumes():
            if self.folder.exists():
                trash = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}.replaced")
                self.folder.rename(trash)
                fsync_path(self.folder.parent)
                shutil.rmtree(trash)
            commit_json(self.folder / "plan.json", self.plan)
        commit_json(self.folder / "started.json", {"time": time.time(), "done": done})

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


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def pending(units: Iterable[Unit], replace: bool) -> list[Unit]:
    """Those that are not done. replace: units in conflict too; their folders are removed when they begin.

    Raises UserError for a unit in conflict, unless replace.
    """
    left = []
    for unit in units:
        try:
            if unit.state() != "done":
                left.append(unit)
        except UserError:
            if not replace:
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
    return lines or [f"stage version {found['version']} → {wanted['version']}"]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"
