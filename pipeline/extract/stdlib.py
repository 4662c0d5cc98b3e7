"""The source of the running Python's standard library: text that lies on every machine, split by file."""

import hashlib
import os
import sysconfig
from pathlib import Path

HELD_OUT_PERCENT = 5
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def stdlib_files(split: str) -> list[Path]:
    """Python files of the standard library, without its tests, in the order of their relative paths.

    split: "train", "heldout" or "all". A file's side is a function of its relative path alone, so the same
    module is held out on every machine and under every version of Python; the demo model never saw it.

    Raises FileNotFoundError: this Python was installed without its library's source.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _LEFT_OUT]  # site-packages may hold a hundred times as much
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    files = [
        path
        for path in sorted(found, key=relative_name)
        if split == "all" or _held_out(relative_name(path)) == (split == "heldout")
    ]
    if not files:
        raise FileNotFoundError(f"no Python source under {root}: this Python has no standard library on disk")
    return files


def relative_name(path: Path) -> str:
    """A file's path below the standard library's folder, with forward slashes: the same on every machine."""
    return path.relative_to(sysconfig.get_paths()["stdlib"]).as_posix()


def _held_out(relative: str) -> bool:
    return hashlib.sha256(relative.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256
