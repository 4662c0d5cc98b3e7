"""StoreWriter: fills an activation store shard by shard, from any number of processes."""

import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from stores import attempts
from stores.activations import ActivationStore, read_description, store_digest
from stores.commits import TOKENS, Commit, FileRecord, commit_key, committed_shards, read_commit, records, sums_key
from stores.description import DTYPES, Description, StoreError, TextPositions, describe_nonfinite, to_stored
from stores.manifest import bytes_digest, json_bytes
from stores.moments import merge_sums, moments_from, no_sums, row_sums
from stores.place import Place, place_at
from stores.zarr_files import encode_shard, metadata


class StoreWriter:
    """Fills one store, shard by shard, in any order, from any number of processes.

    What a shard holds is a function of the store's description and its number; its last bits may be the processor's
    too. Of two processes that write the same one, a requeued job and its predecessor, one wins. There are no locks.

    differences: a line for people for each shard that this writer lost with other bits than the winner's.
    """

    def __init__(self, place: Place, description: Description) -> None:
        self.place, self.description = place, description
        self.differences: list[str] = []

    @classmethod
    def create(cls, path: Path | str, description: Description) -> Self:
        """An empty store. If another process was first, that one's store is used; it is the same.

        Raises StoreError: there is a store of another description.
        """
        if description.dtype not in DTYPES:
            raise ValueError(f"dtype {description.dtype!r} is not one of {', '.join(DTYPES)}")
        writer = cls(place_at(path), description)
        if not cls.exists(path):
            writer._put_metadata()
        found = read_description(writer.place)
        # Another process may have found that the text ends before what was asked for.
        if replace(found, n_sequences=description.n_sequences) != description:
            raise StoreError(f"{path} holds a store of another description: delete it, or choose another place")
        attempts.roll_forward(writer.place)
        return cls(writer.place, found)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a store was created there, whole or not."""
        return place_at(path).exists("zarr.json")

    @classmethod
    def resume(cls, path: Path | str) -> Self:
        """Go on with a store that was created."""
        place = place_at(path)
        return cls(place, read_description(place))

    def _put_metadata(self) -> None:
        for key, data in metadata(self.description).items():
            self.place.put(key, data)

    def missing(self) -> list[int]:
        """Shards without a commit."""
        return sorted(set(range(self.description.n_shards)) - set(committed_shards(self.place)))

    def text_position(self, shard: int) -> tuple[int, TextPositions | None]:
        """(a shard, where in the text it begins): the last one not after `shard` of which that is known; None: where the
        text does."""
        for before in sorted(set(range(shard)) & set(committed_shards(self.place)), reverse=True):
            if end := read_commit(self.place, before).text_end:
                return before + 1, end
        return 0, None

    def end_at(self, n_sequences: int) -> None:
        """The text ended: the store has fewer sequences than it was created for. Idempotent."""
        if n_sequences < self.description.n_sequences:
            self.description = replace(self.description, n_sequences=n_sequences)
            self._put_metadata()

    def write_shard(
        self,
        shard: int,
        tokens: np.ndarray,
        activations: Mapping[str, np.ndarray],
        *,
        text_end: TextPositions | None = None,
        allow_nonfinite: bool = False,
    ) -> None:
        """Write and commit one shard: its tokens (n_sequences, context) int32, and per hook point (n, d) rows, float32
        or as they are to be stored. One that is committed stays.

        Raises ValueError: wrong shape, or an activation that is not finite in the store's dtype (named).
        """
        if self.place.exists(commit_key(shard)):
            return
        description = self.description
        first, last = description.sequences(shard)
        start, stop = first * description.n_positions, last * description.n_positions
        rows: dict[str, np.ndarray] = {}
        sums: dict[str, np.ndarray] = {}
        nonfinite, parts = {}, description.shard_parts(shard)
        _check_shape(shard, TOKENS, tokens, (last - first, description.context))
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:  # the rest is the forward pass's
            for hook_point, d in zip(description.hook_points, description.d, strict=True):
                _check_shape(shard, hook_point, activations[hook_point], (stop - start, d))
                x = rows[hook_point] = to_stored(activations[hook_point], description.dtype)
                size = description.chunk_rows
                pieces = [x[i : i + size] for i in range(0, len(x), size)]
                found = list(pool.map(lambda piece: row_sums(piece, description.dtype), pieces))
                own = [part for (part, _), (whose, _) in zip(found, parts, strict=True) if whose == "train"]
                merged = merge_sums([no_sums(d), *own])  # in their order, whoever was first
                sums |= {f"{hook_point}/{key}": value for key, value in merged.items()}
                bad = np.concatenate([i * size + places for i, (_, places) in enumerate(found)])
                if len(bad):
                    sequence, place = divmod(int(bad[0]), description.n_positions)
                    nonfinite[hook_point] = (len(bad), first + sequence, description.positions[place])
            if nonfinite and not allow_nonfinite:
                raise ValueError(
                    f"{describe_nonfinite(nonfinite, description.dtype)}: try extract.dtype = 'float32' or 'bfloat16', or "
                    f"keep them with extract.allow_nonfinite = true"
                )
            arrays = {TOKENS: np.ascontiguousarray(tokens, np.int32), **rows}
            attempt = attempts.new_attempt(shard)
            try:
                own = list(pool.map(lambda name: self._put_array(attempt, name, arrays[name]), arrays))
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **cast(Any, sums))
                record = self._put(attempt, attempts.SUMS, buffer.getvalue())
            except BaseException:
                attempts.discard(self.place, attempt)
                raise
        files = dict(zip(arrays, own, strict=True))
        self._commit(Commit(shard, attempt, (first, last), files, record, nonfinite, text_end))

    def _put_array(self, attempt: str, name: str, x: np.ndarray) -> FileRecord:
        """x: the shard's part of an array."""
        rows = self.description.chunk_sequences if name == TOKENS else self.description.chunk_rows
        data, chunks = encode_shard(x, rows, self.description.shard_chunks)
        return self._put(attempt, name, data, chunks)

    def _put(
        self, attempt: str, name: str, data: bytes | memoryview, chunks: tuple[tuple[int, int], ...] = ()
    ) -> FileRecord:
        self.place.put(attempts.attempt_key(attempt, name), data)
        return FileRecord(len(data), bytes_digest(data), chunks)

    def _commit(self, own: Commit) -> None:
        """Vouch for an attempt and move it in; or, if another process was first, compare and drop it."""
        # If this raises, the commit may be there all the same: the attempt has to stay.
        self.place.put(commit_key(own.shard), own.to_json(), exclusive=True)
        there = read_commit(self.place, own.shard)
        if there.attempt == own.attempt:
            attempts.move_in(self.place, own)
            return
        attempts.discard(self.place, own.attempt)
        mine, others = records(own), records(there)
        if different := [key for key in mine if key not in others or mine[key].sha256 != others[key].sha256]:
            self.differences.append(
                f"another process wrote shard {own.shard} of {self.place.root} with other bits ({', '.join(different)}): "
                f"its shard stays, this process's was dropped; do their processors or libraries differ?"
            )

    def withdraw(self, shard: int) -> None:
        """Take back the commit of a damaged shard, so that it is missing and can be written again."""
        key = commit_key(shard)
        if self.place.exists(key):
            self.place.put(key.replace(".json", ".withdrawn"), self.place.read(key))
            self.place.remove(key)

    def close(self) -> ActivationStore:
        """Merge the moments, write the manifest. Idempotent, and safe when several processes close at once; raises
        StoreError while shards are missing."""
        description, place = self.description, self.place
        attempts.roll_forward(place)
        missing = self.missing()
        if missing:
            raise StoreError(f"{place.root} lacks {len(missing)} of {description.n_shards} shards")
        commits = [read_commit(place, i) for i in range(description.n_shards)]
        parts = [dict(np.load(io.BytesIO(place.read(sums_key(i))))) for i in range(description.n_shards)]
        moments, nonfinite = {}, {}
        for hook_point in description.hook_points:
            prefix = f"{hook_point}/"
            own = [{k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)} for p in parts]
            merged = asdict(moments_from(merge_sums(own)))
            moments[hook_point] = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in merged.items()}
            if found := [c.nonfinite[hook_point] for c in commits if hook_point in c.nonfinite]:
                nonfinite[hook_point] = (sum(n for n, _, _ in found), *found[0][1:])
        manifest = {"digest": store_digest(description, commits, moments), "nonfinite": nonfinite, "moments": moments}
        place.put("manifest.json", json_bytes(manifest))
        attempts.sweep(place)
        place.sweep()
        return ActivationStore(place)


def _check_shape(shard: int, name: str, x: np.ndarray, expected: tuple[int, int]) -> None:
    if x.shape != expected:
        raise ValueError(f"shard {shard} of {name} is {x.shape}, expected {expected}")
