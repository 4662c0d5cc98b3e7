import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stores.activations import ActivationStore
from stores.description import Part, StoreError, from_stored, is_heldout, to_stored
from stores.moments import merge_sums
from stores.writer import StoreWriter
from tests.conftest import make_store, write_shard

HOOK = "blocks.0.hook_resid_post"
PARTS: tuple[Part, Part] = ("train", "heldout")


def shard_file(store: ActivationStore, shard: int) -> Path:
    return Path(store.place.root) / HOOK / "c" / str(shard) / "0"


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


def test_a_store_that_was_exchanged_while_it_was_open_is_not_read_on(tmp_path: Path) -> None:
    make_store(tmp_path / "one")
    make_store(tmp_path / "two", rows=lambda hook_point, n, d: np.full((n, d), 7, np.float32))
    store = ActivationStore.open(tmp_path / "one")
    store.rows(store.hook_points[0], 0, 1)
    (tmp_path / "one").rename(tmp_path / "aside")
    (tmp_path / "two").rename(tmp_path / "one")
    with pytest.raises(StoreError, match="was changed or replaced while it was read"):
        store.rows(store.hook_points[0], 300, 301)


def test_moments_are_those_of_the_training_rows(store: ActivationStore) -> None:
    x = store.rows(HOOK, 0, store.n_train_rows, "train").astype(np.float64)
    moments = store.stats(HOOK)
    assert moments.n_rows == len(x) == 440
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
    tokens = forward.tokens(0, 60)
    for shard in reversed(backward.missing()):
        write_shard(StoreWriter.resume(tmp_path / "b"), shard, tokens, {HOOK: rows})
    closed = backward.close()
    assert closed.digest == forward.digest
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_shards_without_a_training_row_add_nothing_to_the_moments(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", shard_chunks=1)
    x = store.rows(HOOK, 0, store.n_train_rows, "train").astype(np.float64)
    assert store.stats(HOOK).n_rows == len(x)
    np.testing.assert_allclose(store.stats(HOOK).mean, x.mean(0), rtol=1e-12)


def test_the_parts_are_whole_chunks_and_make_up_the_store(store: ActivationStore) -> None:
    rows = store.rows(HOOK, 0, 600)
    heldout = [1, 5]  # of eight chunks, the last one of 40 rows
    expected = {
        "heldout": np.concatenate([rows[80 * c : 80 * c + 80] for c in heldout]),
        "train": np.concatenate([rows[80 * c : 80 * c + 80] for c in range(8) if c not in heldout]),
    }
    sizes = {"heldout": store.n_heldout_rows, "train": store.n_train_rows}
    assert sizes == {"heldout": 160, "train": 440}
    for part in PARTS:
        assert np.array_equal(store.rows(HOOK, 0, sizes[part], part), expected[part])
        assert np.array_equal(store.rows(HOOK, 75, 155, part), expected[part][75:155])
        with pytest.raises(IndexError, match=f"of {sizes[part]}"):
            store.rows(HOOK, 0, sizes[part] + 1, part)
    tokens = store.tokens(0, 60)
    assert np.array_equal(store.tokens(3, 16, "heldout"), np.concatenate([tokens[8:16], tokens[40:48]])[3:])


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.integers(2, 2000))
def test_any_two_chunks_or_more_hold_both_parts_and_many_hold_their_shares(fraction: float, n: int) -> None:
    found = is_heldout(n, fraction)
    assert 0 < found.sum() < n
    assert abs(found.sum() - n * fraction) <= 1
    assert np.array_equal(is_heldout(n + 7, fraction)[:n], found)  # a longer store's first chunks are the same


def test_what_is_scored_is_spread_over_all_heldout_chunks(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", n_sequences=400, chunk_sequences=4, heldout_fraction=0.1)
    chunks = np.flatnonzero(is_heldout(100, 0.1))
    assert len(chunks) == 10
    for n, read in ((80, [0, 5]), (400, range(10)), (10**9, range(10)), (100, [0, 3, 6])):
        expected = np.concatenate([store.rows(HOOK, 40 * c, 40 * c + 40) for c in chunks[list(read)].tolist()])[:n]
        assert np.array_equal(np.concatenate(list(store.heldout(HOOK, n))), expected)
    expected = np.concatenate([store.tokens(4 * c, 4 * c + 1) for c in chunks.tolist()])
    assert np.array_equal(store.heldout_tokens(10), expected)
    assert len(store.heldout_tokens(10**9)) == 40


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


def test_rows_that_are_not_finite_can_be_kept_and_are_counted(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(size=(600, 6)).astype(np.float32)
    values[[234, 235, 599], [3, 0, 1]] = np.nan, np.inf, -np.inf
    finite = np.isfinite(values).all(1)
    store = make_store(tmp_path / "s", rows=lambda h, n, d: values, allow_nonfinite=True)
    assert store.nonfinite == {HOOK: (3, 23, 5)}
    assert np.array_equal(store.rows(HOOK, 0, 600), values, equal_nan=True)
    finite[80:160] = finite[400:480] = False  # held out
    assert store.stats(HOOK).n_rows == finite.sum() == 437
    np.testing.assert_allclose(store.stats(HOOK).mean, values[finite].astype(np.float64).mean(0), rtol=1e-12)
    assert ActivationStore.open(store.place.root).nonfinite == store.nonfinite
    with pytest.raises(ValueError, match="no row is finite"):
        make_store(tmp_path / "t", rows=lambda h, n, d: np.full((n, d), np.nan, np.float32), allow_nonfinite=True)


def test_zarr_reads_the_same_rows(store: ActivationStore) -> None:
    group = zarr.open_group(store.place.root, mode="r")
    assert np.array_equal(group[HOOK][:], store.rows(HOOK, 0, 600))
    assert np.array_equal(group["tokens"][:], store.tokens(0, 60))


def test_a_second_writer_uses_the_first_ones_store(store: ActivationStore) -> None:
    writer = StoreWriter.create(store.place.root, store.description)
    assert writer.missing() == []
    with pytest.raises(StoreError, match="another description"):
        StoreWriter.create(store.place.root, replace(store.description, model="other"))


def test_zeros_are_written_not_left_out(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", rows=lambda h, n, d: np.zeros((n, d), np.float32))
    assert shard_file(store, 0).stat().st_size > 160 * 6 * 4
    assert not store.rows(HOOK, 0, 600).any()


def test_unknown_hook_points_and_rows_are_refused(store: ActivationStore) -> None:
    with pytest.raises(StoreError, match="no hook point 'x'"):
        store.d("x")
    with pytest.raises(IndexError, match="600"):
        store.rows(HOOK, 0, 601)


def test_closing_merges_the_sums_shard_by_shard_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard's sums are read when those before it are merged and gone."""
    writer = make_store(tmp_path / "s", chunk_sequences=1, shard_chunks=1, close=False)  # 60 shards
    assert isinstance(writer, StoreWriter)
    parts, given, most = [], [], 0
    read = StoreWriter._sums

    def watched(self: StoreWriter, commit):
        nonlocal most
        found = read(self, commit)
        parts.append({k: v.copy() for k, v in found[HOOK].items()})
        given.append(weakref.ref(found[HOOK]["sum"]))
        most = max(most, sum(one() is not None for one in given))
        return found

    monkeypatch.setattr(StoreWriter, "_sums", watched)
    moments = writer.close().stats(HOOK)
    assert most <= 2
    assert np.array_equal(moments.mean, merge_sums(parts)["sum"] / 450)
