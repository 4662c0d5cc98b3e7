"""Stores of int8 rows, each with its step."""

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from stores import write_store
from stores.activations import ActivationStore
from stores.description import from_stored, to_stored
from stores.loader import BatchLoader
from stores.verify import damage
from tests.conftest import make_store

HOOK = "blocks.0.hook_resid_post"
X = (
    np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    * np.logspace(-30, 30, 600, dtype=np.float32)[:, None]
)


def round_trip(x: np.ndarray) -> np.ndarray:
    return from_stored(to_stored(x, "int8"), "int8")


def test_a_number_is_off_by_half_its_rows_step_at_most_and_as_rounding_has_it() -> None:
    step = abs(X).max(1, keepdims=True).astype(np.float64) / 127
    found = round_trip(X).astype(np.float64)
    assert (abs(found - X) <= step / 2 * (1 + 1e-5)).all()
    np.testing.assert_allclose(found, np.rint(X / step) * step, rtol=1e-6)
    big = np.random.default_rng(1).uniform(-1, 1, (200, 5000))
    rms = np.sqrt(((round_trip(big.astype(np.float32)) - big) ** 2).mean())  # the error is uniform over a step
    assert rms == pytest.approx(1 / 127 / np.sqrt(12), rel=0.01)


def test_rounding_again_changes_nothing() -> None:
    once = round_trip(X)
    assert np.array_equal(round_trip(once), once)


def test_rows_of_zeros_of_one_huge_number_and_of_the_smallest_numbers() -> None:
    x = np.zeros((4, 6), np.float32)
    x[1] = 1, -1, 0, 0, 0, 3e38
    x[2] = 1e-45
    x[3, 0] = 2.2e-43  # its step is rounded to a number by which it would be 157 steps
    found = round_trip(x)
    assert np.array_equal(found[0], x[0])
    assert np.array_equal(found[1, :5], np.zeros(5))
    assert found[1, 5] == pytest.approx(3e38, rel=1e-6)
    assert abs(found[2:]).max() <= 2.3e-43


def test_a_row_that_is_not_finite_is_found_and_spoils_no_other(tmp_path: Path) -> None:
    x = X[:100].copy()
    x[3, 2], x[7, 1], x[8, :2] = np.inf, np.nan, (-np.inf, np.nan)
    bad = np.array([3, 7, 8])
    assert np.array_equal(np.flatnonzero(~np.isfinite(round_trip(x)).all(1)), bad)
    assert np.array_equal(np.delete(round_trip(x), bad, 0), np.delete(round_trip(X[:100]), bad, 0))
    with pytest.raises(ValueError, match="row 3 at a is not finite in int8: leave such rows out"):
        write_store(tmp_path / "s", {"a": x}, dtype="int8")


@pytest.mark.parametrize("shard_chunks", [1, 3])
def test_a_store_gives_the_rounded_rows_and_their_moments(tmp_path: Path, shard_chunks: int) -> None:
    x = X[250:350]
    store = write_store(tmp_path / "s", {"a": x}, dtype="int8", chunk_rows=16, shard_chunks=shard_chunks)
    assert store.d("a") == 6
    assert np.array_equal(store.rows("a", 0, 100), round_trip(x))
    assert np.array_equal(store.rows("a", 7, 45), round_trip(x)[7:45])
    train = store.rows("a", 0, store.n_train_rows, "train").astype(np.float64)
    np.testing.assert_allclose(store.stats("a").second_moment, (train**2).mean(0), rtol=1e-12)
    assert not [one for _, some in damage(store.place) for one in some]


def test_zarr_reads_codes_and_steps(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", {"a": X}, dtype="int8", chunk_rows=64)
    array = zarr.open_group(store.place.root, mode="r")["a"]
    assert isinstance(array, zarr.Array)
    lying = np.asarray(array[:])
    assert lying.shape == (600, 6 + 4)
    assert np.array_equal(lying[:, :-4] * lying[:, -4:].copy().view("<f4"), round_trip(X))


@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
def test_batches_are_those_of_a_store_of_the_rounded_rows(tmp_path: Path, residency: str) -> None:
    options = {"seed": 3, "n_steps": 20, "window_chunks": 2, "residency": residency}
    rounded = make_store(tmp_path / "float", rows=lambda h, n, d: round_trip(X))
    coded = make_store(tmp_path / "int8", dtype="int8", rows=lambda h, n, d: X)
    assert isinstance(rounded, ActivationStore)
    assert isinstance(coded, ActivationStore)
    for a, b in zip(
        BatchLoader(coded, (HOOK,), 50, **options), BatchLoader(rounded, (HOOK,), 50, **options), strict=True
    ):
        assert a.x[HOOK].dtype == torch.float32
        assert torch.equal(a.x[HOOK], b.x[HOOK])


def test_integers_are_numbers_and_no_codes(tmp_path: Path) -> None:
    x = np.arange(-50, 50, dtype=np.int8).reshape(50, 2)
    store = write_store(tmp_path / "s", {"a": x}, dtype="int8")
    np.testing.assert_allclose(store.rows("a", 0, 50), x, atol=50 / 127 / 2)


def test_a_store_on_s3_is_the_local_one(s3: str, tmp_path: Path) -> None:
    local = make_store(tmp_path / "s", dtype="int8", rows=lambda h, n, d: X)
    there = make_store(f"{s3}/int8/activations.zarr", dtype="int8", rows=lambda h, n, d: X)
    assert isinstance(local, ActivationStore)
    assert isinstance(there, ActivationStore)
    assert there.digest == local.digest
    assert np.array_equal(there.rows(HOOK, 75, 333), round_trip(X)[75:333])
