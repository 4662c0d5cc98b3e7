"""Stores on an object store: the same bytes, the same checks."""

import numpy as np
import pytest
import zarr

from stores.activations import ActivationStore
from stores.description import StoreError
from stores.loader import BatchLoader
from stores.place import place_at
from stores.verify import damage as damage_of
from stores.writer import StoreWriter
from tests.conftest import make_store

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def remote(s3: str) -> ActivationStore:
    found = make_store(f"{s3}/remote/activations.zarr")
    assert isinstance(found, ActivationStore)
    return found


def test_it_has_the_digest_and_the_rows_of_a_local_one(remote: ActivationStore, store: ActivationStore) -> None:
    assert remote.digest == store.digest
    assert np.array_equal(remote.rows(HOOK, 75, 333), store.rows(HOOK, 75, 333))
    assert np.array_equal(remote.tokens(3, 60), store.tokens(3, 60))
    assert np.array_equal(remote.stats(HOOK).mean, store.stats(HOOK).mean)


@pytest.mark.parametrize("residency", ["stream", "ram"])
def test_it_gives_the_batches_of_a_local_one(remote: ActivationStore, store: ActivationStore, residency: str) -> None:
    options = {"seed": 3, "n_steps": 20, "window_chunks": 2}
    there = BatchLoader(remote, (HOOK,), 50, residency=residency, **options)
    here = BatchLoader(store, (HOOK,), 50, residency="ram", **options)
    for a, b in zip(there, here, strict=True):
        assert np.array_equal(a.x[HOOK].numpy(), b.x[HOOK].numpy())


def test_zarr_reads_it(remote: ActivationStore, store: ActivationStore) -> None:
    group = zarr.open_group(remote.place.root, mode="r")
    assert np.array_equal(group[HOOK][:], store.rows(HOOK, 0, 600))


def test_damage_is_named_taken_back_and_made_good(s3: str) -> None:
    url = f"{s3}/damaged/activations.zarr"
    whole = make_store(url)
    assert isinstance(whole, ActivationStore)
    rows, tokens = whole.rows(HOOK, 160, 320), whole.tokens(16, 32)
    place, key = place_at(url), f"{HOOK}/c/1/0"
    data = place.read(key)
    flipped = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    for damaged, message in (
        (data[:-1], "bytes, expected"),
        (b"", "is 0 bytes"),
        (None, "is missing"),
        (flipped, "altered"),
    ):
        place.remove(key) if damaged is None else place.put(key, damaged)
        with pytest.raises(StoreError, match=message):
            ActivationStore.open(url).rows(HOOK, 150, 320)
    found = [d for _, some in damage_of(place) for d in some]
    assert [d.shard for d in found] == [1]
    writer = StoreWriter.resume(url)
    writer.withdraw(1)
    assert writer.missing() == [1]
    writer.write_shard(1, tokens, {HOOK: rows})
    assert writer.close().digest == whole.digest
