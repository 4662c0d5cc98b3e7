import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from stores.activations import ActivationStore, StoreWriter
from stores.description import StoreError, from_stored, to_stored
from tests.conftest import make_store

HOOK = "blocks.0.hook_resid_post"


def shard_file(store: ActivationStore, shard: int) -> Path:
    return store.path / HOOK / "c" / str(shard) / "0"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_come_back_as_they_were_rounded(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).normal(size=(600, 6)).astype(np.float32) * 100
    store = make_store(tmp_path / "s", dtype=dtype, rows=lambda h, n, d: values)
    expected = torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(store.rows(HOOK, 0, 600).astype(np.float32), expected)
    assert np.array_equal(store.rows(HOOK, 77, 333).astype(np.float32), expected[77:333])


def test_bfloat16_rounds_as_torch_does() -> None:
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32) ** 5
    assert np.array_equal(
        from_stored(to_stored(values, "bfloat16"), "bfloat16"), torch.from_numpy(values).bfloat16().float()
    )


def test_moments_are_those_of_all_rows(store: ActivationStore) -> None:
    x = store.rows(HOOK, 0, store.n_rows).astype(np.float64)
    moments = store.stats(HOOK)
    assert moments.n_rows == len(x) == 600
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.second_moment, (x**2).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.max_abs, abs(x).max(0))
    np.testing.assert_allclose(moments.mean_norm, np.linalg.norm(x, axis=1).mean(), rtol=1e-12)
    np.testing.assert_allclose(moments.total_variance, x.var(0).sum(), rtol=1e-12)
    np.testing.assert_allclose(moments.kurtosis, stats.kurtosis(x, axis=1, fisher=False).mean(), rtol=1e-12)
    scaled = (x - x.mean(0)) * moments.scale
    np.testing.assert_allclose((scaled**2).sum(1).mean(), 6, rtol=1e-12)


def test_the_order_in_which_shards_are_written_changes_nothing(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(600, 6)).astype(np.float32)
    forward = make_store(tmp_path / "a", rows=lambda h, n, d: rows)
    backward = make_store(tmp_path / "b", rows=lambda h, n, d: rows, close=False)
    assert isinstance(backward, StoreWriter)
    for commit in (tmp_path / "b" / "commits").iterdir():
        commit.unlink()
    for shard in reversed(backward.missing()):
        first, last = backward.sequences(shard)
        StoreWriter.resume(tmp_path / "b").write_shard(shard, {HOOK: rows[first * 10 : last * 10]})
    closed = backward.close()
    assert closed.digest == forward.digest
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_heldout_rows_are_the_last_whole_chunks(store: ActivationStore) -> None:
    assert store.n_rows - store.n_train_rows == 120
    assert store.n_train_rows % store.chunk_rows == 0


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
    reader = ActivationStore.open(store.path)
    assert len(reader.rows(HOOK, 0, 160)) == 160  # shard 0 is whole
    with pytest.raises(StoreError, match=message) as error:
        reader.rows(HOOK, 150, 200)
    assert str(file) in str(error.value)


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def test_a_shard_without_a_commit_is_not_read(store: ActivationStore) -> None:
    (store.path / "commits" / "00001.json").unlink()
    with pytest.raises(StoreError, match=r"00001\.json is missing"):
        ActivationStore.open(store.path).rows(HOOK, 160, 170)
    assert StoreWriter.resume(store.path).missing() == [1]


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "s", close=False)
    assert isinstance(writer, StoreWriter)
    (tmp_path / "s" / "commits" / "00002.json").unlink()
    with pytest.raises(StoreError, match="3 of 4 shards"):
        ActivationStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match="lacks 1 of 4"):
        writer.close()
    with pytest.raises(StoreError, match="no activation store"):
        ActivationStore.open(tmp_path / "nothing")


def test_damaged_tokens_are_refused(store: ActivationStore) -> None:
    assert store.tokens.shape == (60, 11)
    (store.path / "tokens" / "c" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="tokens is damaged"):
        _ = ActivationStore.open(store.path).tokens


ALL_ONES = np.array(0x7FFFFFFF, np.uint32).view(np.float32)  # the NaN that CUDA makes


@pytest.mark.parametrize(
    ("bad", "dtype"),
    [(np.nan, "float16"), (np.inf, "float16"), (1e5, "float16"), (ALL_ONES, "bfloat16"), (3.4e38, "bfloat16")],
)
def test_what_is_not_finite_as_stored_is_refused_by_place(tmp_path: Path, bad: float, dtype: str) -> None:
    values = np.zeros((600, 6), np.float32)
    values[234, 3] = bad
    with pytest.raises(ValueError, match="sequence 23, position 5"):
        make_store(tmp_path / "s", dtype=dtype, rows=lambda h, n, d: values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: shard_file(s, 1).write_bytes(flipped(shard_file(s, 1).read_bytes())), "was altered"),
        (lambda s: shard_file(s, 1).write_bytes(shard_file(s, 1).read_bytes()[:-1]), "bytes, expected"),
        (lambda s: shard_file(s, 1).write_bytes(b""), "is 0 bytes"),
        (lambda s: shard_file(s, 1).unlink(), "is missing"),
        (lambda s: (s.path / "commits" / "00001.json").unlink(), "00001.json is missing"),
    ],
    ids=["bit flipped", "truncated", "emptied", "deleted", "commit removed"],
)
def test_damage_is_found_taken_back_and_made_good(store: ActivationStore, damage, message: str) -> None:
    rows = store.rows(HOOK, 160, 320)
    damage(store)
    found = [d for _, some in ActivationStore.open(store.path).damage() for d in some]
    assert [d.shard for d in found] == [1]
    assert message in found[0].what
    writer = StoreWriter.resume(store.path)
    writer.withdraw(1)
    assert writer.missing() == [1]
    writer.write_shard(1, {HOOK: rows})
    again = writer.close()
    assert again.digest == store.digest
    assert not [d for _, some in again.damage() for d in some]


def test_shards_that_changed_places_are_both_found(store: ActivationStore) -> None:
    first, second = shard_file(store, 0), shard_file(store, 1)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    found = [d for _, some in ActivationStore.open(store.path).damage() for d in some]
    assert [d.shard for d in found] == [0, 1]
    with pytest.raises(StoreError, match="was altered"):
        ActivationStore.open(store.path).rows(HOOK, 0, 10)


def test_shards_that_changed_places_with_their_commits_are_found_by_the_manifest(store: ActivationStore) -> None:
    for pair in (
        (shard_file(store, 0), shard_file(store, 1)),
        tuple(store.path / "commits" / f"0000{i}.json" for i in (0, 1)),
    ):
        a, b = (file.read_bytes() for file in pair)
        pair[0].write_bytes(b)
        pair[1].write_bytes(a)
    found = [d for _, some in ActivationStore.open(store.path).damage() for d in some]
    assert ["manifest.json is not the manifest" in d.what for d in found] == [True]


def test_a_second_writer_uses_the_first_ones_store(store: ActivationStore) -> None:
    writer = StoreWriter.create(store.path, store.description, store.tokens)
    assert writer.missing() == []
    assert not list(store.path.parent.glob(".*.partial"))
    with pytest.raises(StoreError, match="another description"):
        StoreWriter.create(store.path, replace(store.description, model="other"), store.tokens)


def test_zeros_are_written_not_left_out(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", rows=lambda h, n, d: np.zeros((n, d), np.float32))
    assert shard_file(store, 0).stat().st_size > 160 * 6 * 4
    assert not store.rows(HOOK, 0, 600).any()


def test_unknown_hook_points_and_rows_are_refused(store: ActivationStore) -> None:
    with pytest.raises(StoreError, match="no hook point 'x'"):
        store.d("x")
    with pytest.raises(IndexError, match="600"):
        store.rows(HOOK, 0, 601)
