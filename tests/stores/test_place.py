import errno
import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stores import exclusive
from stores.description import StoreError
from stores.place import Place, Remote, is_url, place_at

_numbers = itertools.count()


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    if request.param == "folder":
        return place_at(tmp_path / "place")
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://test"
    return place_at(f"{root}/place-{next(_numbers)}")


def test_what_is_put_is_there(place: Place) -> None:
    assert not place.exists("a/b/c.bin")
    assert place.names("a") == []
    assert place.put("a/b/c.bin", b"one")
    assert place.put("a/b/c.bin", memoryview(b"other"))
    assert place.read("a/b/c.bin") == b"other"
    assert place.size("a/b/c.bin") == 5
    assert place.names("a/b") == ["c.bin"]
    assert place / "a/b/c.bin" == f"{place.root}/a/b/c.bin"
    place.remove("a/b/c.bin")
    place.remove("a/b/c.bin")
    assert place.size("a/b/c.bin") is None
    with pytest.raises(FileNotFoundError):
        place.read("a/b/c.bin")


def test_an_exclusive_put_leaves_what_is_there(place: Place) -> None:
    assert place.put("commit", b"first", exclusive=True)
    assert not place.put("commit", b"second", exclusive=True)
    assert place.read("commit") == b"first"


def test_a_part_is_read_into_memory_piece_by_piece(place: Place) -> None:
    data = bytes(range(256)) * 4000
    place.put("data", data)
    out = memoryview(bytearray(700_000))
    assert b"".join(bytes(piece) for piece in place.fill("data", 1234, out)) == data[1234 : 1234 + 700_000] == out
    with pytest.raises(EOFError, match="data"):
        list(place.fill("data", len(data) - 10, out))
    with pytest.raises(FileNotFoundError):
        list(place.fill("nothing", 0, out))
    assert place.sha256("data") == hashlib.sha256(data).hexdigest()


def test_urls_are_told_from_paths() -> None:
    assert is_url("s3://bucket/x.zarr")
    assert not is_url("runs/demo/activations.zarr")
    with pytest.raises(StoreError, match="cannot reach nonsense://x"):
        place_at("nonsense://x")


def test_an_exclusive_put_is_one_of_many_threads(place: Place) -> None:
    for n in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, n=n: place.put(f"commit-{n}", b"%d" % i, exclusive=True), range(8)))
        assert sum(won) == 1
        assert place.read(f"commit-{n}") == b"%d" % won.index(True)


def test_a_move_is_done_once_by_whoever_comes_first(place: Place) -> None:
    place.put("attempts/a/x", b"data")
    place.put("final/c/0", b"what was there")
    assert place.move("attempts/a/x", "final/c/0")
    assert not place.move("attempts/a/x", "final/c/0")
    assert place.read("final/c/0") == b"data"
    place.remove_folder("attempts/a")
    assert place.names("attempts") == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
@pytest.mark.parametrize("rename", [True, False])
def test_without_hard_links_one_process_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, rename: bool
) -> None:
    """By the rename that does not replace, and without that."""

    def refused(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(os, "link", refused)
    if not rename:
        monkeypatch.setattr(exclusive, "_rename_without_replacing", lambda temporary, path: None)
    test_an_exclusive_put_is_one_of_many_threads(place_at(tmp_path))
    assert len(list(tmp_path.iterdir())) == 5  # nothing temporary is left


def test_another_error_of_a_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "full", str(target))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="full"):
        place_at(tmp_path).put("x", b"", exclusive=True)


def test_what_has_no_atomic_puts_is_read_not_written(tmp_path: Path, place: Place) -> None:
    place.check_writable()
    (tmp_path / "x").write_bytes(b"there")
    local = place_at(f"file://{tmp_path}")  # as fsspec sees it, a put that is seen half
    assert local.read("x") == b"there"
    with pytest.raises(StoreError, match="can be read but not written: file has no puts") as error:
        local.check_writable()
    assert len(str(error.value).splitlines()) == 1


def test_a_service_that_ignores_create_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Remote.put
    monkeypatch.setattr(Remote, "put", lambda self, key, data, exclusive=False: put(self, key, data))
    with pytest.raises(StoreError, match="two writers could both win"):
        place_at("memory://ignores-create-only").check_writable()


def test_nothing_is_changed_through_a_link_that_leads_out(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "store"
    (outside / "c").mkdir(parents=True)
    (outside / "c" / "theirs").write_bytes(b"theirs")
    root.mkdir()
    (root / "a").symlink_to(outside)
    (tmp_path / "alias").symlink_to(root)  # the store itself may be a link
    for place in (place_at(root), place_at(tmp_path / "alias")):
        place.put("ours", b"ours")
        for change in (
            lambda p=place: p.put("a/c/theirs", b"ours"),
            lambda p=place: p.remove("a/c/theirs"),
            lambda p=place: p.move("ours", "a/c/theirs"),
            lambda p=place: p.move("a/c/theirs", "mine"),
            lambda p=place: p.remove_folder("a/c"),
        ):
            with pytest.raises(StoreError, match="leads out of the store"):
                change()
    assert (outside / "c" / "theirs").read_bytes() == b"theirs"
