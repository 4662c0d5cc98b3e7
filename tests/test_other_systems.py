"""A POSIX system that is not Linux: no /proc, no /sys, no affinity, no renameat2, no mallopt, perhaps no hard links; and a
checkout that pip has not installed."""

import errno
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stores import ActivationStore, FeatureDictionary
from tests.conftest import make_store, planted_rows, unmix

HOOK = "blocks.0.hook_resid_post"


class Libc:
    """What has none of glibc's and Linux's own functions, as ctypes tells it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...


def not_installed(version: Callable[[str], str]) -> Callable[[str], str]:
    def call(package: str) -> str:
        if package == "unmix":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    return call


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of Linux in vain is added to this."""
    asked: list[str] = []

    def without_proc(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).startswith(("/proc", "/sys")):
                asked.append(str(path))
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            return function(path, *arguments, **options)

        return call

    def link(*_: Any, **__: Any) -> None:
        asked.append("link")
        raise OSError(errno.ENOTSUP, "no links here")

    for owner, name in ((Path, "read_text"), (Path, "read_bytes"), (os, "readlink")):
        monkeypatch.setattr(owner, name, without_proc(getattr(owner, name)))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("importlib.metadata.version", not_installed(importlib.metadata.version))
    monkeypatch.setattr("stores.exclusive.ctypes.CDLL", Libc)  # of the module ctypes, so of every importer
    if not request.param:
        monkeypatch.setattr(os, "link", link)
    return asked


def test_a_store_is_trained_on_scored_and_verified(elsewhere: list[str], tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", d={HOOK: 8}, rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[train]\nbatch_size = 64\nn_tokens = 640\n[train.topk]\nd_sae = 16\nk = 2\n'
    )
    for arguments in (("run", "r.toml"), ("status", "r.toml"), ("verify", "runs/r")):
        unmix(*arguments, cwd=tmp_path)
    dictionary = FeatureDictionary.load(tmp_path / "runs/r/train" / HOOK / "topk-d16-k2-s0")
    assert dictionary.provenance["unmix"] == "not installed"
    assert ActivationStore.open(tmp_path / "s.zarr").n_rows == 600
    assert any(path.startswith("/proc") for path in elsewhere)
