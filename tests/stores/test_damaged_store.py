"""What is damaged in a store is named, and never read."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stores.activations import ActivationStore
from stores.description import Part, StoreError
from stores.verify import damage as damage_of
from stores.writer import StoreWriter

HOOK = "blocks.0.hook_resid_post"
PARTS: tuple[Part, Part] = ("train", "heldout")


def shard_file(store: ActivationStore, shard: int) -> Path:
    return Path(store.place.root) / HOOK / "c" / str(shard) / "0"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.unlink(), "is missing"),
        (lambda f: f.write_bytes(b""), "is 0 bytes"),
        (lambda f: f.write_bytes(f.read_bytes()[:-5]), "bytes, expected"),
        (lambda f: f.write_bytes(flipped(f.read_bytes())), "was altered"),
        (lambda f: shutil.copy(f.parents[1] / "0" / "0", f), "was altered"),
    ],
    ids=["deleted", "emptied", "truncated", "bit flipped", "another shard's"],
)
def test_a_damaged_shard_is_named_never_read(store: ActivationStore, damage, message: str) -> None:
    file = shard_file(store, 1)
    damage(file)
    reader = ActivationStore.open(store.place.root)
    assert len(reader.rows(HOOK, 0, 160)) == 160  # shard 0 is whole
    with pytest.raises(StoreError, match=message) as error:
        reader.rows(HOOK, 150, 320)
    assert str(file) in str(error.value)


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def test_a_shard_without_a_commit_is_not_read(store: ActivationStore) -> None:
    (Path(store.place.root) / "commits" / "00001.json").unlink()
    with pytest.raises(StoreError, match=r"00001\.json is missing"):
        ActivationStore.open(store.place.root).rows(HOOK, 160, 170)
    assert StoreWriter.resume(store.place.root).missing() == [1]


def test_damaged_tokens_are_refused(store: ActivationStore) -> None:
    assert store.tokens(0, 60).shape == (60, 11)
    file = Path(store.place.root) / "tokens" / "c" / "0" / "0"
    file.write_bytes(flipped(file.read_bytes()))
    with pytest.raises(StoreError, match="tokens/c/0/0 was altered"):
        ActivationStore.open(store.place.root).tokens(0, 60)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: shard_file(s, 1).write_bytes(flipped(shard_file(s, 1).read_bytes())), "was altered"),
        (lambda s: shard_file(s, 1).write_bytes(shard_file(s, 1).read_bytes()[:-1]), "bytes, expected"),
        (lambda s: shard_file(s, 1).write_bytes(b""), "is 0 bytes"),
        (lambda s: shard_file(s, 1).unlink(), "is missing"),
        (lambda s: (Path(s.place.root) / "commits" / "00001.json").unlink(), "00001.json is missing"),
        (lambda s: (Path(s.place.root) / "commits" / "00001.npz").unlink(), "00001.npz is missing"),
    ],
    ids=["bit flipped", "truncated", "emptied", "deleted", "commit removed", "sums removed"],
)
def test_damage_is_found_taken_back_and_made_good(store: ActivationStore, damage, message: str) -> None:
    rows = store.rows(HOOK, 160, 320)
    damage(store)
    found = [d for _, some in damage_of(store.place) for d in some]
    assert [d.shard for d in found] == [1]
    assert message in found[0].what
    writer = StoreWriter.resume(store.place.root)
    writer.withdraw(1)
    assert writer.missing() == [1]
    writer.write_shard(1, store.tokens(16, 32), {HOOK: rows})
    again = writer.close()
    assert again.digest == store.digest
    assert not [d for _, some in damage_of(again.place) for d in some]


def test_shards_that_changed_places_are_both_found(store: ActivationStore) -> None:
    first, second = shard_file(store, 0), shard_file(store, 1)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    found = [d for _, some in damage_of(store.place) for d in some]
    assert [d.shard for d in found] == [0, 1]
    with pytest.raises(StoreError, match="was altered"):
        ActivationStore.open(store.place.root).rows(HOOK, 0, 10)


def test_shards_that_changed_places_with_their_commits_are_both_found(store: ActivationStore) -> None:
    for pair in (
        (shard_file(store, 0), shard_file(store, 1)),
        tuple(Path(store.place.root) / "commits" / f"0000{i}.json" for i in (0, 1)),
    ):
        a, b = (file.read_bytes() for file in pair)
        pair[0].write_bytes(b)
        pair[1].write_bytes(a)
    found = [d for _, some in damage_of(store.place) for d in some]
    assert [d.shard for d in found] == [0, 1]
    assert "00000.json is the commit of shard 1" in found[0].what
    with pytest.raises(StoreError, match="is the commit of shard 1"):
        ActivationStore.open(store.place.root).rows(HOOK, 0, 10)


def test_a_store_of_which_a_shard_is_written_again_is_unfinished_until_it_is_closed(store: ActivationStore) -> None:
    """However the commit went away, and also if its process is killed before it closes: an old digest is never read."""
    for taken_back in (True, False):
        writer, tokens = StoreWriter.resume(store.place.root), store.tokens(16, 32)
        writer.withdraw(1) if taken_back else (Path(store.place.root) / "commits" / "00001.json").unlink()
        writer.write_shard(1, tokens, {HOOK: np.full((160, 6), float(taken_back), np.float32)})
        with pytest.raises(StoreError, match="not finished, 4 of 4 shards: run `unmix extract`"):
            ActivationStore.open(store.place.root)
        assert not [d for _, some in damage_of(store.place) for d in some]
        assert writer.close().digest != store.digest


def test_altered_moments_are_not_the_manifests(store: ActivationStore) -> None:
    manifest = Path(store.place.root) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"n_rows": 440', '"n_rows": 441'))
    found = [d for _, some in damage_of(store.place) for d in some]
    assert ["its checksum is not that of the rest" in d.what for d in found] == [True]


@pytest.mark.parametrize("what", ["not JSON", "{}"])
def test_a_damaged_commit_is_named(store: ActivationStore, what: str) -> None:
    (Path(store.place.root) / "commits" / "00001.json").write_text(what)
    with pytest.raises(StoreError, match=r"00001\.json is damaged"):
        ActivationStore.open(store.place.root).rows(HOOK, 160, 170)
    found = [d for _, some in damage_of(store.place) for d in some]
    assert [d.shard for d in found] == [1]
