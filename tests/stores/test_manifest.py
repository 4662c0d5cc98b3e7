import json
import os
import threading
import time
from pathlib import Path

import pytest

from stores.manifest import commit_bytes, commit_json, digest, file_digest, read_json, seed_of, sweep_partial


def test_digest_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_commit_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    commit_bytes(tmp_path / "f" / "x", b"one")
    commit_bytes(tmp_path / "f" / "x", b"two")
    assert (tmp_path / "f" / "x").read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["x"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_bytes_reach_the_disk_before_they_have_their_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """What is on the disk when the power is cut."""
    synced: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        there = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((there, (tmp_path / "f" / "x").exists()))
        assert there.is_dir() or there.read_bytes() == b"one"

    monkeypatch.setattr(os, "fsync", fsync)
    commit_bytes(tmp_path / "f" / "x", b"one", exclusive=exclusive)
    (made, _), (file, named), (folder, _) = synced
    assert (made, file.parent, folder) == (tmp_path, tmp_path / "f", tmp_path / "f")
    assert file.suffix == ".partial"
    assert not named
    assert synced[-1][1]


def test_an_exclusive_commit_keeps_the_first(tmp_path: Path) -> None:
    assert commit_json(tmp_path / "x.json", 1, exclusive=True)
    assert not commit_json(tmp_path / "x.json", 2, exclusive=True)
    assert read_json(tmp_path / "x.json") == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    commit_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        commit_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_orphans_are_swept_when_they_are_old(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = f".x.json.{'0' * 32}.partial"
    old, young = tmp_path / "a" / name, tmp_path / name
    kept = [tmp_path / "x.json", tmp_path / "mine.partial", tmp_path / ".mine.1.partial"]
    for file in (old, young, *kept):
        file.write_text("")
    for file in (old, *kept):
        os.utime(file, (0, 0))
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "a" / "b" / name).mkdir()  # a folder is not what commit_bytes makes
    kept.append(tmp_path / "a" / "b" / name)
    sweep_partial(tmp_path)
    assert not old.exists()
    assert all(file.exists() for file in (young, *kept))


def test_what_other_processes_remove_meanwhile_stops_no_sweep(tmp_path: Path) -> None:
    old, done = tmp_path / f".x.json.{'0' * 32}.partial", threading.Event()

    def make_and_remove() -> None:
        while not done.is_set():
            for i in range(20):
                (tmp_path / str(i)).mkdir()
            for i in range(20):
                (tmp_path / str(i)).rmdir()

    other = threading.Thread(target=make_and_remove)
    other.start()
    try:
        for _ in range(300):
            old.write_text("")
            os.utime(old, (0, 0))
            sweep_partial(tmp_path)
            assert not old.exists()
    finally:
        done.set()
        other.join()


def test_a_folder_that_cannot_be_made_is_an_error_and_no_endless_attempt() -> None:
    with pytest.raises(FileNotFoundError):
        commit_bytes(Path("/proc/unmix/x"), b"")


def test_ages_are_told_by_the_clock_that_dates_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    young = tmp_path / f".x.json.{'0' * 32}.partial"
    young.write_text("")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    sweep_partial(tmp_path)
    assert young.exists()


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")


def test_seeds_of_different_purposes_differ() -> None:
    assert len({seed_of("init", 0, 8), seed_of("init", 1, 8), seed_of("init", 0, 9), seed_of("other", 0, 8)}) == 4
    assert seed_of("init", 0, 8) == seed_of("init", 0, 8)
