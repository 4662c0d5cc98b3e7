import hashlib
import itertools
from pathlib import Path

import pytest

from stores.description import StoreError
from stores.place import Place, is_url, place_at

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
