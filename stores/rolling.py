"""A rolling store: all of it is vouched for, and no more than so many bytes of its rows lie there at a time.

    rolling.json      keep_bytes: of the rows that lie there; batch_sequences: that went through the model at a time

Extraction makes every chunk once, commits it as in any store, and keeps its tokens alone. Whoever reads rows that do not lie
there has them made again from those tokens. They are put there if they have the committed sha256, so they are the rows of a
store that keeps all. Before that the files that were put first go, as many as leave room.

A shard is one chunk. One process at a time makes one again, and one at a time makes room and puts, which two leases see to.
A file is put whole or not at all; what a killed process left half-written goes with its folder.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from stores.commits import Commit, file_key, shard_layout
from stores.description import Description, StoreError
from stores.lease import Leases
from stores.manifest import bytes_digest, json_bytes
from stores.metadata import read_json_object, typed
from stores.place import Place
from stores.zarr_files import encode_shard

ROLLING = "rolling.json"
_PAUSE_S = 0.05
# ([start, stop) of sequences, hook points) → per hook point the rows of those sequences, as they are stored
Make = Callable[[tuple[int, int], tuple[str, ...]], Mapping[str, Shaped[np.ndarray, "n d_stored"]]]


@dataclass(frozen=True)
class Bound:
    """What rolling.json says."""

    keep_bytes: int
    batch_sequences: int

    @classmethod
    def read(cls, place: Place) -> "Bound | None":
        """None: the store keeps all rows. Raises StoreError: the file is damaged."""
        if not place.exists(ROLLING):
            return None
        values: dict[str, Any] = read_json_object(place, ROLLING)
        try:
            return cls(**{key: typed(values.get(key), int, key) for key in ("keep_bytes", "batch_sequences")})
        except ValueError as error:
            raise StoreError(f"{place / ROLLING} is damaged: {error}: run `unmix extract` with --replace") from None

    def put(self, place: Place) -> None:
        place.put(ROLLING, json_bytes(asdict(self)))


class Rolling:
    """The rows of a rolling store that lie there. make: what makes those of a chunk again. setting: where keep_bytes can be
    changed, for messages."""

    def __init__(
        self,
        place: Place,
        description: Description,
        keep_bytes: int,
        make: Make,
        setting: str = "extract.keep_bytes",
    ) -> None:
        self.place, self.description, self.keep_bytes, self.make = place, description, keep_bytes, make
        self.setting = setting
        self._one_at_a_time = threading.Lock()  # a forward pass fills the machine

    def check(self, hook_points: tuple[str, ...], window_chunks: int) -> None:
        """Raises StoreError: the chunks that are mixed at a time do not lie there together."""
        window_chunks = min(window_chunks, len(self.description.chunks("train")))
        needed = window_chunks * sum(shard_layout(self.description, h, 0)[0] for h in hook_points)
        if needed > self.keep_bytes:
            raise StoreError(
                f"{self.setting} = {self.keep_bytes} is less than one window of {', '.join(hook_points)}, "
                f"{window_chunks} chunks of {needed} bytes in all: set it to {needed} at least"
            )

    def have(self, commit: Commit, hook_points: tuple[str, ...]) -> None:
        """Have the rows of a shard there, as it was committed, or find that they were dropped again meanwhile.

        Raises StoreError: they have other bits than those that were committed.
        """
        if not self._missing(commit.shard, hook_points):
            return
        own = f"again-{commit.shard:05d}"
        with self._one_at_a_time, Leases(self.place) as leases:
            _wait_for(leases, own)
            if missing := self._missing(commit.shard, hook_points):
                rows = self.make(commit.sequences, missing)
                for hook_point in missing:
                    self._put(leases, commit, hook_point, rows[hook_point])
            leases.drop(own)

    def _missing(self, shard: int, hook_points: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(h for h in hook_points if not self.place.exists(file_key(h, shard)))

    def _put(self, leases: Leases, commit: Commit, hook_point: str, x: Shaped[np.ndarray, "n d_stored"]) -> None:
        data, _ = encode_shard(x, self.description.chunk_rows, self.description.shard_chunks)
        if bytes_digest(data) != commit.files[hook_point].sha256:
            raise StoreError(
                f"shard {commit.shard} of {hook_point}, made again, has other bits than when {self.place.root} was "
                f"extracted: take the same kind of processor or GPU and the same versions of the libraries"
            )
        _wait_for(leases, "room")
        self._make_room(len(data))
        self.place.put(file_key(hook_point, commit.shard), data)
        leases.release("room")

    def _make_room(self, n_bytes: int) -> None:
        """Drop what was put first until n_bytes more are within the bound. Raises StoreError: they alone are above it."""
        if n_bytes > self.keep_bytes:
            raise StoreError(f"{self.setting} = {self.keep_bytes} is less than one chunk: set it to {n_bytes} at least")
        there = sorted(self._there())
        total = sum(size for _, _, size in there) + n_bytes
        for _, folder, size in there:
            if total > self.keep_bytes:
                self.place.remove_folder(folder)
                total -= size

    def _there(self) -> list[tuple[float, str, int]]:
        """(when it was put, folder, bytes) of each file of rows, and of what was left half-written beside it."""
        found = []
        for hook_point in self.description.hook_points:
            for shard in self.place.names(f"{hook_point}/c"):
                folder = f"{hook_point}/c/{shard}"
                keys = [f"{folder}/{name}" for name in self.place.names(folder)]
                times = [self.place.modified(key) or 0.0 for key in keys]
                found.append((max(times, default=0.0), folder, sum(self.place.size(key) or 0 for key in keys)))
        return found


def _wait_for(leases: Leases, key: str) -> None:
    """It ends: whoever has it makes one chunk or puts one file, or is seen to be gone after LEASE_S."""
    while not leases.acquire(key):
        time.sleep(_PAUSE_S)
