"""Stores of rows from anywhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stores.from_rows
from stores import StoreError, write_store
from stores.commits import TOKENS
from stores.description import from_stored, to_stored
from stores.verify import damage
from stores.writer import StoreWriter

RNG = np.random.default_rng(0)
ROWS = {"layer one": RNG.normal(size=(1000, 6)).astype(np.float32), "z": RNG.normal(size=(1000, 3)).astype(np.float32)}
SMALL: dict[str, Any] = {"chunk_rows": 64, "shard_chunks": 4}  # four shards


def batches(sizes: list[int], rows: dict[str, Any] = ROWS) -> Iterator[dict[str, Any]]:
    """The rows in batches of such sizes, in turn."""
    start, turn = 0, 0
    while start < len(next(iter(rows.values()))):
        yield {h: x[start : start + sizes[turn % len(sizes)]] for h, x in rows.items()}
        start, turn = start + sizes[turn % len(sizes)], turn + 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_come_back_bit_for_bit_as_rounded_to_the_dtype(tmp_path: Path, dtype: str) -> None:
    store = write_store(tmp_path / "s", ROWS, dtype=dtype, **SMALL)
    assert store.hook_points == ("layer one", "z")
    assert store.n_rows == store.n_train_rows + store.n_heldout_rows == 1000
    for h, x in ROWS.items():
        expected = torch.from_numpy(x).to(getattr(torch, dtype)).float().numpy()
        assert np.array_equal(store.rows(h, 0, 1000).astype(np.float32), expected)


def test_moments_are_those_of_the_training_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", batches([37]), **SMALL)
    for h in ROWS:
        x, moments = store.rows(h, 0, store.n_train_rows, "train").astype(np.float64), store.stats(h)
        assert moments.n_rows == len(x)
        np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(moments.second_moment, (x**2).mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.total_variance, x.var(0).sum(), rtol=1e-12)


@pytest.mark.parametrize("sizes", [[1], [256], [63, 1, 0, 400]])
@pytest.mark.parametrize("chunk_rows", [64, 8192])
def test_the_digest_does_not_depend_on_the_batches(tmp_path: Path, sizes: list[int], chunk_rows: int) -> None:
    whole = write_store(tmp_path / "whole", ROWS, chunk_rows=chunk_rows, shard_chunks=4)
    parts = write_store(tmp_path / "parts", batches(sizes), chunk_rows=chunk_rows, shard_chunks=4)
    assert parts.digest == whole.digest


@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 65])
@pytest.mark.parametrize("shard_chunks", [1, 4])
def test_any_number_of_rows_has_both_parts(tmp_path: Path, n: int, shard_chunks: int) -> None:
    """Also where the rows end with a chunk or with a shard."""
    x = np.arange(n, dtype=np.float32)[:, None]
    store = write_store(tmp_path / "s", {"x": x}, chunk_rows=16, shard_chunks=shard_chunks)
    train, heldout = (
        store.rows("x", 0, store.n_train_rows, "train"),
        store.rows("x", 0, store.n_heldout_rows, "heldout"),
    )
    assert len(train)
    assert len(heldout)
    assert sorted([*train[:, 0], *heldout[:, 0]]) == list(range(n))
    assert all(not found for _, found in damage(store.place))


@pytest.mark.parametrize(("n", "fraction"), [(1000, 0.02), (1000, 0.1), (100_000, 0.25), (400_000, 0.1), (1000, 0.9)])
def test_the_held_out_share_is_what_was_asked_for(tmp_path: Path, n: int, fraction: float) -> None:
    store = write_store(tmp_path / "s", {"x": np.zeros((n, 1), np.float16)}, heldout_fraction=fraction, dtype="float16")
    rarer = min(fraction, 1 - fraction)
    found = store.n_heldout_rows / n
    assert abs((found if fraction <= 0.5 else 1 - found) - rarer) <= max(0.3 * rarer, 8192 / n if n > 131072 else 0)


def as_tensors(x: np.ndarray, folder: Path) -> Any:
    return torch.from_numpy(x).requires_grad_()


def as_memmap(x: np.ndarray, folder: Path) -> Any:
    path = folder / f"{x.shape[1]}.npy"
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize(
    "made",
    [
        as_tensors,
        as_memmap,
        lambda x, folder: x.astype(np.float64),
        lambda x, folder: x.astype(">f4"),
        lambda x, folder: np.asfortranarray(x),
        lambda x, folder: x.tolist(),
    ],
)
def test_arrays_of_other_kinds_make_the_same_store(tmp_path: Path, made: Callable[[np.ndarray, Path], Any]) -> None:
    found = write_store(tmp_path / "s", {h: made(x, tmp_path) for h, x in ROWS.items()}, **SMALL)
    assert found.digest == write_store(tmp_path / "plain", ROWS, **SMALL).digest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_tensors_of_half_precision_are_kept_as_they_are(tmp_path: Path, dtype: str) -> None:
    x = torch.from_numpy(ROWS["z"]).to(getattr(torch, dtype))
    store = write_store(tmp_path / "s", {"z": x}, dtype=dtype, **SMALL)
    assert np.array_equal(store.rows("z", 0, 1000).astype(np.float32), x.float().numpy())


def test_whole_numbers_are_numbers_and_not_bits(tmp_path: Path) -> None:
    """bfloat16 lies in a store as uint16."""
    x = np.arange(0, 200, dtype=np.uint16).reshape(100, 2)
    store = write_store(tmp_path / "s", {"pixels": x}, dtype="bfloat16", **SMALL)
    assert np.array_equal(
        store.rows("pixels", 0, 100), from_stored(to_stored(x.astype(np.float32), "bfloat16"), "bfloat16")
    )


def test_tokens_stand_beside_the_rows_of_their_positions(tmp_path: Path) -> None:
    tokens = np.arange(100 * 5).reshape(100, 5)
    rows = {"x": np.repeat(tokens[:, [1, 4]].reshape(-1, 1), 3, axis=1), TOKENS: tokens}
    store = write_store(tmp_path / "s", rows, positions=[1, 4], **SMALL)
    d = store.description
    assert (d.context, d.positions, d.n_sequences, store.n_rows) == (5, (1, 4), 100, 200)
    for part in ("train", "heldout"):
        n = d.part_sequences(part)
        x = store.rows("x", 0, 2 * n, part).reshape(n, 2, 3)
        assert np.array_equal(x[..., 0], store.tokens(0, n, part)[:, [1, 4]])


def test_numpys_numbers_are_numbers(tmp_path: Path) -> None:
    given = {"heldout_fraction": np.float32(0.5), "chunk_rows": np.int64(64), "shard_chunks": np.int32(4)}
    plain = write_store(tmp_path / "plain", ROWS, heldout_fraction=0.5, **SMALL)
    assert write_store(tmp_path / "s", ROWS, **given).digest == plain.digest


def test_memory_is_bounded_by_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide rows make shards of fewer chunks, and chunks of fewer rows; no more is asked of the input than one shard."""
    monkeypatch.setattr(stores.from_rows, "_SHARD_BYTES", 1 << 16)
    asked, written = 0, 0
    write = StoreWriter.write_shard

    def counted(self: StoreWriter, shard: int, tokens: np.ndarray, rows: dict[str, np.ndarray]) -> None:
        nonlocal written
        assert sum(x.nbytes for x in rows.values()) <= 1 << 16
        written += len(tokens)
        write(self, shard, tokens, rows)

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal asked
        for _ in range(30):
            asked += 10
            yield {"wide": np.ones((10, 1024), np.float32)}
            assert asked - written <= 16 + 10

    monkeypatch.setattr(StoreWriter, "write_shard", counted)
    store = write_store(tmp_path / "s", endless())
    assert store.n_rows == 300
    assert store.chunk_rows * 4096 <= 1 << 16


def test_a_remote_store_is_the_same(s3: str, tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS
        raise RuntimeError("the end")

    with pytest.raises(RuntimeError, match="the end"):
        write_store(f"{s3}/own.zarr", broken(), **SMALL)
    remote = write_store(f"{s3}/own.zarr", batches([300]), **SMALL)
    assert remote.digest == write_store(tmp_path / "s", ROWS, **SMALL).digest
    with pytest.raises(StoreError, match="holds a store: open it"):
        write_store(f"{s3}/own.zarr", ROWS, **SMALL)
