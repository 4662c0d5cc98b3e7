"""write_store: an activation store of rows from anywhere, any model's or none's."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any

from stores import attempts
from stores.activations import ActivationStore
from stores.batches import Rows, Shape, shards
from stores.commits import TOKENS, committed_shards, file_key
from stores.description import DTYPES, Description, StoreError, row_bytes
from stores.metadata import MANIFEST, ROOT, STARTED
from stores.place import Place, is_url, place_at
from stores.writer import StoreWriter
from stores.zarr_files import metadata

_SHARD_BYTES = 1 << 28  # of all hook points together: one shard is in memory, and a copy while it is written
_MAX_SHARDS = 100_000  # where the end is not known; the parts of all their chunks are in memory


def write_store(
    path: Path | str,
    rows: Rows | Iterable[Rows],
    *,
    heldout_fraction: float = 0.1,
    dtype: str = "float32",
    positions: Sequence[int] | None = None,
    chunk_rows: int = 8192,
    shard_chunks: int = 16,
    text: str = "none",
) -> ActivationStore:
    """A finished store of the rows at each hook point.

    rows: {hook point: (n_rows, d)}, NumPy arrays, memory maps or tensors on any device; or any iterable of such batches, of
    any sizes, read once, with one shard in memory. The i-th rows of all hook points belong together. Beside the hook points,
    "tokens" may hold (n_sequences, context) integers: row i is then of sequence i // len(positions). The same rows give the
    same digest, however they are divided into batches.
    heldout_fraction: of the chunks, spread evenly over the store, whose rows are kept for scoring. A chunk is consecutive
    rows, so rows that are much alike should follow each other.
    dtype: "float16", "bfloat16", "float32" or "int8", to which rows are rounded, by way of float32. positions: places in the
    tokens' context that have rows, by default all. chunk_rows, shard_chunks: at most; less where rows are few or wide. text:
    what the rows are of, for people.

    Raises ValueError: an input that is no such thing, or a row that is not finite in the dtype. StoreError: something lies
    at the path. What was written by then is removed, also when the input raises.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if not isinstance(heldout_fraction, Real) or not 0 < heldout_fraction < 1:
        raise ValueError(f"heldout_fraction = {heldout_fraction!r}, expected a number between 0 and 1")
    for name, value in (("chunk_rows", chunk_rows), ("shard_chunks", shard_chunks)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} = {value!r}, expected a whole number, at least 1")
    for name, value, kinds in (("path", path, (str, Path)), ("text", text, str)):
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is a {type(value).__name__}, expected a string")
    try:
        positions = None if positions is None else [index(p) for p in positions]
    except TypeError:
        raise ValueError(f"positions = {str(positions)[:40]!r}, expected whole numbers") from None
    try:
        batches: Iterator[Any] = iter([rows] if isinstance(rows, Mapping) else rows)
    except TypeError:
        raise ValueError(
            f"rows are a {type(rows).__name__}, expected {{hook point: (n, d)}}, or batches of it"
        ) from None
    heldout_fraction, chunk_rows, shard_chunks = float(heldout_fraction), int(chunk_rows), int(shard_chunks)
    place = place_at(path)
    _check_free(place)
    first = next(batches, None)
    if first is None:
        raise ValueError("rows gave no batch, expected {hook point: (n, d)}")
    shape = Shape.of(first, dtype, positions)
    size, chunks = _sizes(shape, chunk_rows, shard_chunks)
    writer, n = None, 0
    try:
        for shard, (tokens, arrays, last) in enumerate(shards(shape, chain([first], batches), size * chunks)):
            n += len(tokens)
            if shard == _MAX_SHARDS:
                raise ValueError(f"rows fill more than {shard} shards: take more than {chunk_rows} for chunk_rows")
            if writer is None:
                size, chunks = _fewer(shape, n, size, heldout_fraction) if last else (size, chunks)
                most = n if last else _MAX_SHARDS * size * chunks
                description = _describe(shape, most, size, chunks, heldout_fraction, text)
                _claim(place)
                writer = StoreWriter(place, description)
                StoreWriter.create(path, description)
            if last:
                writer.end_at(n)
            writer.write_shard(shard, tokens, arrays)
        if writer is None:
            raise ValueError("rows gave batches of no row, expected {hook point: (n, d)} with n of at least 1")
        store = writer.close()
    except BaseException:
        if writer is not None:
            with contextlib.suppress(OSError, StoreError):  # what went wrong first is told
                _remove(writer)
        raise
    place.remove(STARTED)
    return store


def _sizes(shape: Shape, chunk_rows: int, shard_chunks: int) -> tuple[int, int]:
    """(sequences in a chunk, chunks in a shard), at most so many, so that a shard is not above _SHARD_BYTES."""
    sequence_bytes = len(shape.positions) * sum(row_bytes(d, shape.dtype) for d in shape.d.values())
    size = max(1, min(chunk_rows // len(shape.positions), _SHARD_BYTES // sequence_bytes))
    return size, max(1, min(shard_chunks, _SHARD_BYTES // (size * sequence_bytes)))


def _fewer(shape: Shape, n_sequences: int, size: int, heldout_fraction: float) -> tuple[int, int]:
    """(sequences in a chunk, chunks) of a store of one shard: so that the rarer part has four chunks or about its share.

    Raises ValueError: there is one sequence.
    """
    if n_sequences < 2:
        what = "1 row" if shape.context is None else f"1 sequence of {len(shape.positions)} rows"
        raise ValueError(f"rows are {what} in all, and some have to be held out: expected at least 2")
    size = min(size, max(1, int(n_sequences * min(heldout_fraction, 1 - heldout_fraction) / 4)))
    return size, -(-n_sequences // size)


def _describe(
    shape: Shape, n_sequences: int, chunk_sequences: int, shard_chunks: int, heldout_fraction: float, text: str
) -> Description:
    return Description(
        model="none",
        model_revision=None,
        model_digest="none",
        tokenizer_digest="none",
        weight_processing="none",
        precision="float32",
        text=text,
        text_digest=None,
        context=shape.context or 1,
        positions=shape.positions,
        bos=False,
        hook_points=tuple(shape.d),
        d=tuple(shape.d.values()),
        dtype=shape.dtype,
        n_sequences=n_sequences,
        heldout_fraction=heldout_fraction,
        chunk_sequences=chunk_sequences,
        shard_chunks=shard_chunks,
    )


def _check_free(place: Place) -> None:
    """Raises StoreError: something lies there."""
    if not is_url(place.root) and Path(place.root).is_file():
        raise StoreError(f"{place.root} is a file: choose another path")
    names = place.names("")
    if place.exists(MANIFEST):
        raise StoreError(f"{place.root} holds a store: open it with ActivationStore.open, or choose another path")
    if place.exists(STARTED) or place.exists(ROOT):
        raise StoreError(
            f"{place.root} holds a store that is not finished, of a process that is at work or was killed: remove it, or "
            f"choose another path"
        )
    if names:
        raise StoreError(f"{place.root} holds {names[0]}: choose an empty folder, or another path")


def _claim(place: Place) -> None:
    """Raises StoreError: another process was first."""
    place.check_writable()
    own = place.put(STARTED, b"{}\n", exclusive=True)
    others = [name for name in place.names("") if name != STARTED]  # of one that has finished meanwhile
    if own and others:
        place.remove(STARTED)
    if others or not own:
        raise StoreError(f"{place.root} was written by another process meanwhile: choose another path")


def _remove(writer: StoreWriter) -> None:
    """What this process has written. The folder stays."""
    place, arrays = writer.place, (TOKENS, *writer.description.hook_points)
    place.remove(MANIFEST)
    for shard in committed_shards(place):
        for name in arrays:
            key = file_key(name, shard)
            place.remove(key)
            place.remove_empty(key.rpartition("/")[0])
    for _, attempt in attempts.left(place):
        attempts.discard(place, attempt)
    place.remove_empty("attempts")
    place.remove_folder("commits")
    for key in metadata(writer.description):
        place.remove(key)
    for name in arrays:
        place.remove_empty(f"{name}/c")
        place.remove_empty(name)
    place.remove(STARTED)
