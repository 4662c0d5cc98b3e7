"""Writing that ends before its end: nothing is left, and what was there stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stores.from_rows
from stores import ActivationStore, StoreError, write_store
from stores.verify import damage
from stores.writer import StoreWriter
from tests.stores.test_write_store import ROWS, SMALL, batches


@pytest.mark.parametrize("where", ["input", "write_shard", "close", "create"])
def test_what_was_written_is_removed_when_something_fails(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def interrupted() -> Iterator[dict[str, Any]]:
        yield from list(batches([100]))[:6]
        assert (tmp_path / "s" / "commits" / "00000.json").exists()
        if where == "input":
            raise KeyboardInterrupt
        yield from list(batches([100]))[6:]

    write = StoreWriter.write_shard
    if where == "write_shard":
        monkeypatch.setattr(StoreWriter, where, lambda self, i, *rest: failing() if i == 1 else write(self, i, *rest))
    elif where == "create":
        monkeypatch.setattr(stores.from_rows.StoreWriter, "create", failing)
    elif where == "close":
        monkeypatch.setattr(StoreWriter, where, failing)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "s", interrupted(), **SMALL)
    assert not list((tmp_path / "s").rglob("*"))
    monkeypatch.undo()
    again = write_store(tmp_path / "s", ROWS, **SMALL)
    assert all(not found for _, found in damage(again.place))


def test_what_a_killed_process_left_is_refused_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has removed nothing."""

    def endless() -> Iterator[dict[str, Any]]:
        yield ROWS
        raise KeyboardInterrupt

    monkeypatch.setattr(stores.from_rows, "_remove", lambda writer: None)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "s", endless(), **SMALL)
    before = sorted(p for p in (tmp_path / "s").rglob("*"))
    with pytest.raises(
        StoreError, match="holds a store that is not finished, of a process that is at work or was killed"
    ):
        write_store(tmp_path / "s", ROWS)
    with pytest.raises(StoreError, match="is not finished: remove it, and write it again"):
        ActivationStore.open(tmp_path / "s")
    assert sorted(p for p in (tmp_path / "s").rglob("*")) == before


def test_of_two_that_begin_at_once_one_writes(tmp_path: Path) -> None:
    """The other one began when the path was free."""

    def late() -> Iterator[dict[str, Any]]:
        yield ROWS
        write_store(tmp_path / "s", {h: -x for h, x in ROWS.items()}, **SMALL)

    with pytest.raises(StoreError, match="holds a store that is not finished"):
        write_store(tmp_path / "s", late(), **SMALL)

    def early() -> Iterator[dict[str, Any]]:
        write_store(tmp_path / "t", ROWS, **SMALL)
        yield {h: -x for h, x in ROWS.items()}

    with pytest.raises(StoreError, match="was written by another process meanwhile"):
        write_store(tmp_path / "t", early(), **SMALL)
    assert np.array_equal(ActivationStore.open(tmp_path / "t").rows("z", 0, 1000), ROWS["z"])


@pytest.mark.parametrize("what", ["store", "file", "other"])
def test_what_lies_at_the_path_stays(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "store":
        digest = write_store(path, ROWS, **SMALL).digest
    elif what == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine").write_text("mine")
    with pytest.raises(
        StoreError, match={"store": "holds a store: open it", "file": "is a file", "other": "holds mine"}[what]
    ):
        write_store(path, ROWS, **SMALL)
    if what == "store":
        assert ActivationStore.open(path).digest == digest
    else:
        assert (path if what == "file" else path / "mine").read_text() == "mine"
