"""A store whose rows come and go."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stores.activations import ActivationStore
from stores.commits import file_key
from stores.description import StoreError
from stores.loader import BatchLoader
from stores.place import Folder, place_at
from stores.rolling import ROLLING, Bound, Rolling
from stores.verify import damage, repair
from tests.conftest import make_store, write_shard

D = {"a": 6, "b": 3}
RNG = np.random.default_rng(0)
X = {h: RNG.normal(size=(600, d)).astype(np.float32) for h, d in D.items()}
A = 80 * 6 * 4 + 4 + 16 + 4  # bytes of a's file of a shard: rows, their checksum, the index and its checksum
KEEP = 3 * A  # of eight shards


def make(sequences: tuple[int, int], hook_points: tuple[str, ...]) -> dict[str, np.ndarray]:
    start, stop = sequences
    return {h: X[h][start * 10 : stop * 10] for h in hook_points}


def rolling_store(path: Path | str, keep_bytes: int = KEEP, make=make) -> ActivationStore:
    Bound(keep_bytes, 16).put(place_at(path))
    make_store(path, d=D, shard_chunks=1, rows=lambda h, n, d: X[h])
    return opened(path, keep_bytes, make)


def opened(path: Path | str, keep_bytes: int = KEEP, make=make) -> ActivationStore:
    store = ActivationStore.open(path)
    store.rolling = Rolling(store.place, store.description, keep_bytes, make)
    return store


def there(path: Path) -> dict[Path, int]:
    return {f: f.stat().st_size for h in D for f in (path / h / "c").rglob("*") if f.is_file()}


def wrong(path: Path | str) -> list[str]:
    return [one.what for _, some in damage(place_at(path)) for one in some]


def test_nothing_but_the_rows_is_missing_and_the_digest_is_that_of_a_whole_store(tmp_path: Path) -> None:
    whole, store = (
        make_store(tmp_path / "w", d=D, shard_chunks=1, rows=lambda h, n, d: X[h]),
        rolling_store(tmp_path / "r"),
    )
    assert isinstance(whole, ActivationStore)
    assert store.digest == whole.digest
    assert not there(tmp_path / "r")
    assert np.array_equal(store.tokens(0, 60), whole.tokens(0, 60))
    assert np.array_equal(store.stats("a").mean, whole.stats("a").mean)
    assert not wrong(tmp_path / "r")


def test_all_rows_can_be_read_and_never_lie_above_the_bound(tmp_path: Path) -> None:
    most, store = [], rolling_store(tmp_path / "r")
    for start in np.random.default_rng(1).integers(0, 500, 8).tolist():
        for h in D:
            assert np.array_equal(store.rows(h, start, start + 100), X[h][start : start + 100])
            most.append(sum(there(tmp_path / "r").values()))
    assert A < max(most) <= KEEP
    assert not wrong(tmp_path / "r")


@pytest.mark.parametrize("residency", ["stream", "ram"])
def test_batches_are_those_of_a_whole_store_and_a_chunk_is_made_once_at_all_hook_points(
    tmp_path: Path, residency: str
) -> None:
    whole, made = make_store(tmp_path / "w", d=D, shard_chunks=1, rows=lambda h, n, d: X[h]), []
    assert isinstance(whole, ActivationStore)

    def watched(sequences: tuple[int, int], hook_points: tuple[str, ...]) -> dict[str, np.ndarray]:
        made.append((sequences, hook_points))
        return make(sequences, hook_points)

    store = rolling_store(tmp_path / "r", make=watched)
    options = {"seed": 3, "n_steps": 8, "window_chunks": 2, "residency": residency}
    names = tuple(D)
    for a, b in zip(BatchLoader(store, names, 50, **options), BatchLoader(whole, names, 50, **options), strict=True):
        assert all(np.array_equal(a.x[h], b.x[h]) for h in D)
    if residency == "stream":
        assert all(hook_points == names for _, hook_points in made)
        assert len(made) == 6 + 2  # the last turns mix the first chunk again, and one is read ahead


def test_two_that_want_a_chunk_at_once_make_it_once(tmp_path: Path) -> None:
    made = []

    def slow(sequences: tuple[int, int], hook_points: tuple[str, ...]) -> dict[str, np.ndarray]:
        made.append(sequences)
        time.sleep(0.3)
        return make(sequences, hook_points)

    rolling_store(tmp_path / "r")
    stores = [opened(tmp_path / "r", make=slow) for _ in range(3)]
    readers = [threading.Thread(target=s.rows, args=("a", 100, 120)) for s in stores]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(made) == 1
    assert not any((tmp_path / "r" / "leases").rglob("again-*"))


def test_two_with_little_room_read_on_and_stay_within_the_bound(tmp_path: Path) -> None:
    rolling_store(tmp_path / "r")
    stores, most, failed = [opened(tmp_path / "r", A) for _ in range(2)], [], []

    def read(store: ActivationStore, seed: int) -> None:
        try:
            for start in np.random.default_rng(seed).integers(0, 500, 6).tolist():
                assert np.array_equal(store.rows("a", start, start + 100), X["a"][start : start + 100])
                most.append(sum(1 for name in place_at(tmp_path / "r").names("a/c")))
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read, args=(s, i)) for i, s in enumerate(stores)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not failed
    assert max(most) <= 2  # a folder is made before its file is there


def test_what_a_killed_process_left_half_written_counts_and_goes(tmp_path: Path) -> None:
    store = rolling_store(tmp_path / "r")
    store.rows("a", 0, 80)
    left = tmp_path / "r" / "a" / "c" / "5" / f".0.{'0' * 32}.partial"
    left.parent.mkdir()
    left.write_bytes(b"x" * A)
    for start in range(80, 320, 80):
        store.rows("a", start, start + 80)
        assert sum(there(tmp_path / "r").values()) <= KEEP
    assert not left.exists()


def test_rows_with_other_bits_are_refused_and_not_put(tmp_path: Path) -> None:
    store = rolling_store(
        tmp_path / "r", make=lambda sequences, hooks: {h: x + 1 for h, x in make(sequences, hooks).items()}
    )
    with pytest.raises(StoreError, match="shard 1 of a, made again, has other bits than when .* was extracted: take"):
        store.rows("a", 80, 90)
    assert not there(tmp_path / "r")


def test_a_bound_below_a_window_is_refused(tmp_path: Path) -> None:
    rolling = rolling_store(tmp_path / "r").rolling
    assert rolling
    rolling.check(("a",), 3)
    with pytest.raises(
        StoreError, match=rf"keep_bytes = {KEEP} is less than one window of a, 4 chunks of {4 * A} bytes"
    ):
        rolling.check(("a",), 4)


def test_without_a_model_the_rows_are_said_to_be_not_kept(tmp_path: Path) -> None:
    rolling_store(tmp_path / "r")
    with pytest.raises(StoreError, match="is not kept: .* is rolling, and is read by a recipe's stages alone"):
        ActivationStore.open(tmp_path / "r").rows("a", 0, 1)


def test_damaged_rows_are_found_taken_back_and_made_again(tmp_path: Path) -> None:
    store = rolling_store(tmp_path / "r")
    store.rows("a", 80, 90)
    file = tmp_path / "r" / file_key("a", 1)
    file.write_bytes(file.read_bytes()[:-30] + b"0" * 30)
    (what,) = wrong(tmp_path / "r")
    assert "was altered" in what
    tokens = store.tokens(0, 60)
    writer = repair(store.place, [one for _, some in damage(store.place) for one in some])
    assert writer.missing() == [1]
    write_shard(writer, 1, tokens, X)
    assert writer.close().digest == store.digest
    assert np.array_equal(opened(tmp_path / "r").rows("a", 80, 90), X["a"][80:90])


def test_rows_that_are_dropped_while_they_are_checked_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling_store(tmp_path / "r").have(("a", "b"), 1)
    sha256, keys = Folder.sha256, [file_key(h, 1) for h in D]

    def dropping(place: Folder, key: str) -> str:
        if key == keys[0]:
            for one in keys:
                place.remove(one)
        return sha256(place, key)

    monkeypatch.setattr(Folder, "sha256", dropping)
    assert not wrong(tmp_path / "r")


@pytest.mark.parametrize("put_again", [False, True])
def test_rows_that_are_dropped_as_they_are_read_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put_again: bool
) -> None:
    store, file, n_read = rolling_store(tmp_path / "r"), tmp_path / "r" / file_key("a", 1), []
    preadv = os.preadv

    def stale(*arguments) -> int:
        """Another machine drops the file, over NFS."""
        n_read.append(1)
        if len(n_read) > 1:
            return preadv(*arguments)
        data = file.read_bytes()
        file.unlink()
        if put_again:
            file.write_bytes(data)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "preadv", stale)
    assert np.array_equal(store.rows("a", 80, 160), X["a"][80:160])
    assert len(n_read) > 1


def test_lost_tokens_are_damage(tmp_path: Path) -> None:
    store = rolling_store(tmp_path / "r")
    (tmp_path / "r" / file_key("tokens", 1)).unlink()
    assert "is missing" in wrong(tmp_path / "r")[0]
    with pytest.raises(StoreError, match="is missing, expected"):
        store.tokens(8, 9)


def test_a_damaged_bound_is_named(tmp_path: Path) -> None:
    rolling_store(tmp_path / "r")
    (tmp_path / "r" / ROLLING).write_text('{"keep_bytes": "many"}')
    with pytest.raises(StoreError, match=r"rolling.json is damaged: keep_bytes is 'many', expected int"):
        Bound.read(place_at(tmp_path / "r"))


@pytest.mark.slow
def test_on_s3(s3: str) -> None:
    url = f"{s3}/rolling/activations.zarr"
    store = rolling_store(url, 2 * A)
    for start in range(0, 240, 80):
        assert np.array_equal(store.rows("a", start, start + 80), X["a"][start : start + 80])
    assert len(store.place.names("a/c")) == 2
    assert not wrong(url)
