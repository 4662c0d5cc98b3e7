"""ActivationStore: chunked Zarr v3 arrays of activations, one per hook point, and the commits that vouch for them.

    activations.zarr/
      zarr.json             group attributes: Description and its digest; tokens/zarr.json has a copy
      tokens                (n_sequences, context) int32
      <hook point>          (n_rows, d), row = sequence * n_positions + place in `positions`; int8: (n_rows, d + 4)
      commits/00007.json    shard 7 is there: sizes and checksums of its files; 00007.npz: its sums for the moments
      rolling.json          where rows come and go: see stores/rolling.py
      attempts/             files of shards that are not committed yet, or were a moment ago
      manifest.json         the store is there: digest, moments; written last

A shard is the same range of whole sequences in every array. Only what a commit vouches for is ever read.

Any Zarr reader can open the group. This one reads the uncompressed chunks as they lie in the shards, straight into the
caller's memory: Zarr's own reading is 4 times as slow, takes a missing or empty file for zeros, and would not notice two
shards that changed places.
"""

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from crc32c import crc32c
from jaxtyping import Float, Int32, Shaped

from stores.commits import TOKENS, Commit, file_key, read_commit
from stores.description import DTYPES, Part, StoreError, from_stored
from stores.metadata import MANIFEST, read_description, read_manifest
from stores.moments import Moments
from stores.place import Place, place_at
from stores.rolling import ROLLING, Rolling


class ActivationStore:
    """A finished store, read-only."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.description = read_description(place)
        manifest = read_manifest(place, self.description)
        self.digest, self.nonfinite, self._moments = manifest.digest, manifest.nonfinite, manifest.moments
        self._commits: dict[int, Commit] = {}
        self._right_size: set[str] = set()
        self.rolling: Rolling | None = None  # what makes rows again, of a store that does not keep them

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """path: a folder, or s3:// or any fsspec URL. Raises StoreError: no store there, or one that is not finished."""
        return cls(place_at(path))

    @property
    def hook_points(self) -> tuple[str, ...]:
        return self.description.hook_points

    @property
    def n_rows(self) -> int:
        return self.description.n_rows

    @property
    def n_train_rows(self) -> int:
        """Rows to learn from. The others, held out for scoring, are of other documents."""
        return self.description.part_sequences("train") * self.description.n_positions

    @property
    def n_heldout_rows(self) -> int:
        return self.description.part_sequences("heldout") * self.description.n_positions

    @property
    def chunk_rows(self) -> int:
        return self.description.chunk_rows

    def d(self, hook_point: str) -> int:
        self._known(hook_point)
        return self.description.width(hook_point)

    def stats(self, hook_point: str) -> Moments:
        self._known(hook_point)
        values = self._moments[hook_point]
        return Moments(**cast(Any, {k: np.array(v) if isinstance(v, list) else v for k, v in values.items()}))

    def tokens(self, start: int, stop: int, part: Part | None = None) -> Int32[np.ndarray, "n context"]:
        """(stop - start, context) int32: the tokens of sequences [start, stop), counted and raising as in rows."""
        return self._slice(TOKENS, start, stop, part)

    def rows(self, hook_point: str, start: int, stop: int, part: Part | None = None) -> Float[np.ndarray, "n d"]:
        """(stop - start, d) rows in the store's dtype (bfloat16 and int8 as float32). part: which rows are counted, those of
        training or those held out, in the order of the text; None: all, as they lie.

        Raises StoreError naming the file: it is missing, of another size, or fails its checksum.
        """
        self._known(hook_point)
        return from_stored(self._slice(hook_point, start, stop, part), self.description.dtype)

    def heldout(self, hook_point: str, n_rows: int) -> Iterator[Float[np.ndarray, "n d"]]:
        """n_rows held-out rows, or all there are, in pieces of at most a chunk: of chunks that are spread evenly over
        the text, so that every source has its share."""
        for start, stop in self.heldout_pieces(n_rows):
            yield self.rows(hook_point, start, stop, "heldout")

    def heldout_pieces(self, n_rows: int) -> list[tuple[int, int]]:
        """The pieces of `heldout`: (first, one after the last) of the held-out rows."""
        n_rows, size = min(n_rows, self.n_heldout_rows), self.chunk_rows
        n_chunks, n_read = -(-self.n_heldout_rows // size), -(-n_rows // size)
        starts = [i * n_chunks // n_read * size for i in range(n_read)]  # the last chunk may be short: read if all are
        return [(start, start + min(size, n_rows - i * size)) for i, start in enumerate(starts)]

    def heldout_tokens(self, n_sequences: int) -> Int32[np.ndarray, "n context"]:
        """(n_sequences, context) int32, or all there are: held-out sequences that are spread evenly over the text."""
        n_heldout = self.description.part_sequences("heldout")
        n = min(n_sequences, n_heldout)
        return np.concatenate([self.tokens(i, i + 1, "heldout") for i in (np.arange(n) * n_heldout // n).tolist()])

    def stored_dtype(self, array: str) -> np.dtype:
        """What lies in an array: bfloat16 as uint16, int8 with each row's step."""
        return np.dtype("int32" if array == TOKENS else DTYPES[self.description.dtype])

    def read_chunk(self, array: str, chunk: int, out: Shaped[np.ndarray, "n d_stored"]) -> None:
        """Read one chunk, as it is stored, into out (chunk_rows, d_stored); what lies beyond the last row is filled up.

        Raises StoreError naming the file: it is missing, of another size, or fails its checksum.
        """
        if self.rolling is None or array == TOKENS:
            return self._read_chunk(array, chunk, out)
        key = file_key(array, chunk // self.description.shard_chunks)
        n_failed = 0
        while True:
            self.have((array,), chunk)
            try:
                return self._read_chunk(array, chunk, out)
            except (StoreError, FileNotFoundError, EOFError):
                # Another process may have dropped it since, and one may have put it again.
                n_failed = n_failed + 1 if self.place.exists(key) else 0
                if n_failed == 2:
                    raise

    def have(self, hook_points: tuple[str, ...], chunk: int) -> None:
        """Of a rolling store: have a chunk's rows made again at those hook points where they do not lie there, in one go."""
        if self.rolling:
            self.rolling.have(self._commit(chunk // self.description.shard_chunks), hook_points)

    def _read_chunk(self, array: str, chunk: int, out: Shaped[np.ndarray, "n d_stored"]) -> None:
        shard, place_in_shard = divmod(chunk, self.description.shard_chunks)
        key = file_key(array, shard)
        record = self._commit(shard).files[array]
        offset, expected = record.chunks[place_in_shard]
        try:
            if key not in self._right_size:
                self._check_size(key, record.n_bytes)
            found = reduce(lambda crc, piece: crc32c(piece, crc), self.place.fill(key, offset, out.data.cast("B")), 0)
        except (FileNotFoundError, EOFError):  # gone or cut since its size was looked at
            self._check_size(key, record.n_bytes)
            raise
        if found != expected:
            raise StoreError(
                f"{self.place / key} was altered: chunk {place_in_shard} is not the committed one; {self.place.repair}"
            )

    def _slice(self, array: str, start: int, stop: int, part: Part | None) -> Shaped[np.ndarray, "n d"]:
        description = self.description
        n = description.part_sequences(part) if part else description.n_sequences
        chunks = description.chunks(part).tolist() if part else range(description.n_chunks)
        if array == TOKENS:
            size, width = description.chunk_sequences, description.context
        else:
            size, width, n = self.chunk_rows, description.stored_width(array), n * description.n_positions
        if not 0 <= start <= stop <= n:
            raise IndexError(f"rows {start}:{stop} of {n}")
        if start < stop and not (self.rolling and array != TOKENS):  # memory is asked for when something is to fill it
            shard = start // size // self.description.shard_chunks
            self._check_size(file_key(array, shard), self._commit(shard).files[array].n_bytes)
        found = np.empty((stop - start, width), self.stored_dtype(array))
        piece = np.empty((0, width), found.dtype)
        for chunk in range(start // size, -(-stop // size)):
            first = chunk * size
            if start <= first and first + size <= stop:
                self.read_chunk(array, chunks[chunk], found[first - start : first - start + size])
                continue
            piece = piece if len(piece) else np.empty((size, width), found.dtype)
            self.read_chunk(array, chunks[chunk], piece)
            a, b = max(start, first), min(stop, first + size)
            found[a - start : b - start] = piece[a - first : b - first]
        return found

    def _known(self, hook_point: str) -> None:
        if hook_point not in self.hook_points:
            raise StoreError(
                f"{self.place.root} has no hook point {hook_point!r}, it has {', '.join(self.hook_points)}"
            )

    def _commit(self, shard: int) -> Commit:
        if shard not in self._commits:
            commit = read_commit(self.place, shard, self.description)
            try:
                same = self.digest.encode() in self.place.read(MANIFEST)
            except FileNotFoundError:
                same = False
            if not same:
                raise StoreError(f"{self.place.root} was changed or replaced while it was read: run the command again")
            self._commits[shard] = commit
        return self._commits[shard]

    def _check_size(self, key: str, expected: int) -> None:
        size = self.place.size(key)
        if size != expected:
            if size is None and self.rolling is None and self.place.exists(ROLLING):
                raise StoreError(
                    f"{self.place / key} is not kept: {self.place.root} is rolling, and is read by a recipe's stages alone"
                )
            found = "missing" if size is None else f"{size} bytes"
            raise StoreError(f"{self.place / key} is {found}, expected {expected} bytes: {self.place.repair}")
        self._right_size.add(key)
