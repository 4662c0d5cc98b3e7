"""StoreWriter: fills an activation store shard by shard, from any number of processes."""

import contextlib
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from jaxtyping import Int, Shaped

from stores import attempts
from stores.activations import ActivationStore
from stores.commits import (
    TOKENS,
    Commit,
    FileRecord,
    StoreDigest,
    commit_key,
    committed_shards,
    read_commit,
    records,
    sums_key,
)
from stores.cpus import cpus_here
from stores.description import DTYPES, Description, StoreError, TextPositions, describe_nonfinite, to_stored
from stores.manifest import bytes_digest, digest, json_bytes
from stores.metadata import COPY, MANIFEST, ROOT, read_description, read_json_object
from stores.moments import Sums, merge_sums, moments_from, no_sums, row_sums
from stores.place import Place, place_at
from stores.rolling import ROLLING
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
        place, files = place_at(path), metadata(description)
        place.check_writable()
        if not place.exists(ROOT) and not place.exists(MANIFEST):
            place.put(ROOT, files[ROOT], exclusive=True)
        found = read_description(place)
        cls(place, found).check(description)
        for key, data in metadata(found).items():
            if not place.exists(key):
                place.put(key, data)
        attempts.roll_forward(place)
        return cls(place, found)

    def check(self, description: Description) -> None:
        """Raises StoreError: the store is one of another description; says what differs."""
        # Another process may have found that the text ends here.
        found, wanted = asdict(replace(self.description, n_sequences=description.n_sequences)), asdict(description)
        other = [f"{k}: {_short(found[k])} → {_short(wanted[k])}" for k in found if found[k] != wanted[k]]
        if other:
            raise StoreError(
                f"{self.place.root} holds a store of another description ({'; '.join(other)}): choose another place, or "
                f"remove it"
            )

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a store was created there, whole or not."""
        return any(map(place_at(path).exists, (ROOT, COPY, MANIFEST)))

    @classmethod
    def resume(cls, path: Path | str) -> Self:
        """Go on with a store that was created."""
        place = place_at(path)
        return cls(place, read_description(place))

    def put_metadata(self) -> None:
        """Write every zarr.json. Attributes that others gave to the store stay."""
        for key, data in metadata(self.description).items():
            wanted = json.loads(data)
            with contextlib.suppress(FileNotFoundError, StoreError):
                others = read_json_object(self.place, key).get("attributes")
                wanted["attributes"] = (others if isinstance(others, dict) else {}) | wanted["attributes"]
            self.place.put(key, json_bytes(wanted))

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
        """The text ended: the store has fewer sequences than it was created for. Idempotent. Raises StoreError: there is
        another store in this one's place by now."""
        if n_sequences < self.description.n_sequences:
            self._check_place()
            self.description = replace(self.description, n_sequences=n_sequences)
            self.put_metadata()

    def write_shard(
        self,
        shard: int,
        tokens: Int[np.ndarray, "n_sequences context"],
        activations: Mapping[str, Shaped[np.ndarray, "n _"]],
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
        sums: Sums = {}
        nonfinite, parts = {}, description.shard_parts(shard)
        _check_shape(shard, TOKENS, tokens, (last - first, description.context))
        with ThreadPoolExecutor(max(1, cpus_here() // 2)) as pool:  # the rest is the forward pass's
            for hook_point, d in zip(description.hook_points, description.d, strict=True):
                x = rows[hook_point] = to_stored(activations[hook_point], description.dtype)
                _check_shape(shard, hook_point, x, (stop - start, description.stored_width(hook_point)))
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
                rolling = self.place.exists(ROLLING)
                own = list(pool.map(lambda name: self._put_array(attempt, name, arrays[name], rolling), arrays))
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **cast(Any, sums))
                record = self._put(attempt, attempts.SUMS, buffer.getvalue())
            except BaseException:
                attempts.discard(self.place, attempt)
                raise
        files = dict(zip(arrays, own, strict=True))
        self._commit(Commit(shard, attempt, description.identity, (first, last), files, record, nonfinite, text_end))

    def _put_array(self, attempt: str, name: str, x: Shaped[np.ndarray, "n d"], rolling: bool) -> FileRecord:
        """x: the shard's part of an array. Of a rolling store the tokens alone are put there."""
        rows = self.description.chunk_sequences if name == TOKENS else self.description.chunk_rows
        data, chunks = encode_shard(x, rows, self.description.shard_chunks)
        if rolling and name != TOKENS:
            return FileRecord(len(data), bytes_digest(data), chunks)
        return self._put(attempt, name, data, chunks)

    def _put(
        self, attempt: str, name: str, data: bytes | memoryview, chunks: tuple[tuple[int, int], ...] = ()
    ) -> FileRecord:
        self.place.put(attempts.attempt_key(attempt, name), data)
        return FileRecord(len(data), bytes_digest(data), chunks)

    def _commit(self, own: Commit) -> None:
        """Vouch for an attempt and move it in; or, if another process was first, compare and drop it.

        Raises StoreError: there is another store in this one's place by now.
        """
        try:
            self._check_place()
        except StoreError:
            attempts.discard(self.place, own.attempt)
            raise
        if not self.place.exists(commit_key(own.shard)):
            self.open_again()
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

    def _check_place(self) -> None:
        if read_description(self.place).identity != self.description.identity:
            raise StoreError(f"{self.place.root} was replaced by another process while this one wrote to it")

    def open_again(self) -> None:
        """Set the manifest aside, if there is one: before a commit comes or goes, so that the manifest of a store is never
        that of other commits. The store is unfinished until it is closed again."""
        if self.place.exists(MANIFEST):
            self.place.move(MANIFEST, "manifest.withdrawn")

    def withdraw(self, shard: int) -> None:
        """Take back the commit of a damaged shard, readable or not, so that it is missing and can be written again."""
        self.open_again()
        for number, attempt in attempts.left(self.place):
            if number == shard:  # its process must not move the files in after another one's
                with contextlib.suppress(StoreError):
                    commit = attempts.committed(self.place, shard)
                    if commit and commit.attempt == attempt:
                        attempts.discard(self.place, attempt)
        self.place.move(commit_key(shard), commit_key(shard).replace(".json", ".withdrawn"))
        self.open_again()  # another process may have closed the store before the commit went

    def close(self) -> ActivationStore:
        """Merge the moments, write the manifest. Idempotent, and safe when several processes close at once; raises
        StoreError while shards are missing, or when one is damaged. One shard's sums are in memory at a time."""
        description, place = self.description, self.place
        attempts.roll_forward(place)
        self._check_whole()
        found, nonfinite = StoreDigest(description), {}
        sums: dict[str, Sums] = {}
        for shard in range(description.n_shards):
            commit = read_commit(place, shard, description)
            found.add(commit)
            for hook_point, own in self._sums(commit).items():
                sums[hook_point] = merge_sums([sums[hook_point], own]) if hook_point in sums else own
            for hook_point, (n, *first) in commit.nonfinite.items():
                n_before, *first = nonfinite.get(hook_point, (0, *first))
                nonfinite[hook_point] = (n_before + n, *first)
        moments = {}
        for hook_point in description.hook_points:
            merged = asdict(moments_from(sums[hook_point]))
            moments[hook_point] = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in merged.items()}
        manifest = {"digest": found.of(moments), "nonfinite": nonfinite, "moments": moments}
        place.put(MANIFEST, json_bytes(manifest | {"checksum": digest(manifest)}))
        try:
            self._check_whole()
        except StoreError:  # another process took a shard back while this one closed
            self.open_again()
            raise
        attempts.sweep(place)
        place.sweep()
        return ActivationStore(place)

    def _check_whole(self) -> None:
        if missing := self.missing():
            raise StoreError(
                f"{self.place.root} lacks {len(missing)} of {self.description.n_shards} shards: run `unmix extract` again"
            )

    def _sums(self, commit: Commit) -> dict[str, Sums]:
        """Per hook point: the sums of one shard."""
        key = sums_key(commit.shard)
        try:
            data = self.place.read(key)
        except FileNotFoundError:
            raise StoreError(f"{self.place / key} is missing: {self.place.repair}") from None
        if bytes_digest(data) != commit.sums.sha256:
            raise StoreError(f"{self.place / key} was altered: {self.place.repair}")
        found: dict[str, Sums] = {}
        with np.load(io.BytesIO(data)) as sums:
            for name in sums.files:
                hook_point, _, quantity = name.rpartition("/")
                found.setdefault(hook_point, {})[quantity] = sums[name]
        return found


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:40]


def _check_shape(shard: int, name: str, x: np.ndarray, expected: tuple[int, int]) -> None:
    if x.shape != expected:
        raise ValueError(f"shard {shard} of {name} is {x.shape}, expected {expected}")
