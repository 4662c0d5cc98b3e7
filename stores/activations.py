"""ActivationStore: chunked Zarr v3 arrays of activations, one per hook point, and the manifest that vouches for them.

    activations.zarr/
      zarr.json             group attributes: Description
      tokens                (n_sequences, context) int32
      <hook point>          (n_rows, d), row = sequence * n_positions + place in `positions`
      commits/00007.json    shard 7 is there: sizes and sha256 of its files; 00007.npz: its sums for the moments
      manifest.json         the store is there: digest, moments; written last

A shard is the same range of whole sequences in every array. Only what a commit vouches for is ever read.
"""

import io
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from stores.description import DTYPES, Description, StoreError, from_stored, to_stored
from stores.manifest import (
    bytes_digest,
    commit_bytes,
    commit_json,
    digest,
    file_digest,
    fsync_path,
    read_json,
    sweep_partial,
)
from stores.moments import Moments, merge_sums, moments_from, row_sums


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not as committed. shard: which one has to be made again; None: no shard's."""

    shard: int | None
    what: str


class StoreWriter:
    """Fills one store, shard by shard, in any order, from any number of processes.

    What a shard holds is a function of the store's description and its number alone, so two processes that write the
    same one, a requeued job and its predecessor, write the same bytes. There are no locks.
    """

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description
        self.group = zarr.open_group(path, mode="r+")

    @classmethod
    def create(cls, path: Path | str, description: Description, tokens: np.ndarray) -> Self:
        """An empty store that holds the tokens, (n_sequences, context) int32.

        It appears under its name all at once. If another process was first, that one's store is used; it is the same.
        """
        path = Path(path)
        if description.dtype not in DTYPES:
            raise ValueError(f"dtype {description.dtype!r} is not one of {', '.join(DTYPES)}")
        if tokens.shape != (description.n_sequences, description.context):
            expected = (description.n_sequences, description.context)
            raise ValueError(f"tokens are {tokens.shape}, expected {expected}")
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        draft.mkdir(parents=True)
        group = zarr.open_group(draft, mode="w")
        n_rows = description.n_sequences * description.n_positions
        chunk_rows = description.chunk_sequences * description.n_positions
        arrays = {h: (n_rows, d, chunk_rows) for h, d in zip(description.hook_points, description.d, strict=True)}
        for hook_point, (n, d, rows) in arrays.items():
            group.create_array(
                hook_point,
                shape=(n, d),
                dtype=DTYPES[description.dtype],
                chunks=(rows, d),
                shards=(rows * description.shard_chunks, d),
                compressors=[Crc32cCodec()],
            )
        array = group.create_array(
            "tokens",
            shape=tokens.shape,
            dtype="int32",
            chunks=(min(description.shard_sequences, description.n_sequences), description.context),
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        array[:] = tokens
        group.attrs.update(asdict(description))
        commit_json(draft / "tokens.json", {"tokens_digest": bytes_digest(tokens.tobytes())})
        (draft / "commits").mkdir()
        for file in draft.rglob("*"):
            fsync_path(file)
        try:
            draft.rename(path)
        except OSError:  # there is one already
            shutil.rmtree(draft)
            if not cls.exists(path):
                raise
            resumed = cls.resume(path)
            if resumed.description != description:
                raise StoreError(f"{path} holds a store of another description") from None
            return resumed
        fsync_path(path.parent)
        return cls(path, description)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a store was created there, whole or not."""
        return (Path(path) / "tokens.json").exists()

    @classmethod
    def resume(cls, path: Path | str) -> Self:
        """Go on with a store that was created."""
        return cls(Path(path), _description(Path(path)))

    @cached_property
    def tokens(self) -> np.ndarray:
        """(n_sequences, context) int32."""
        return _tokens(self.path, self.group)

    def missing(self) -> list[int]:
        """Shards without a commit."""
        return [i for i in range(self.description.n_shards) if not _commit(self.path, i).exists()]

    def sequences(self, shard: int) -> tuple[int, int]:
        """[start, stop) of the sequences in a shard."""
        size = self.description.shard_sequences
        return shard * size, min((shard + 1) * size, self.description.n_sequences)

    def write_shard(self, shard: int, activations: Mapping[str, np.ndarray]) -> None:
        """Write and commit one shard: per hook point (n, d) float32 rows of its sequences. One that is committed stays.

        Raises ValueError: wrong shape, or an activation that is not finite in the store's dtype (named).
        """
        if _commit(self.path, shard).exists():
            return
        description = self.description
        first, last = self.sequences(shard)
        start, stop = first * description.n_positions, last * description.n_positions
        stored: dict[str, np.ndarray] = {}
        sums: dict[str, np.ndarray] = {}
        for hook_point, d in zip(description.hook_points, description.d, strict=True):
            x = activations[hook_point]
            if x.shape != (stop - start, d):
                raise ValueError(f"shard {shard} at {hook_point} is {x.shape}, expected {(stop - start, d)}")
            stored[hook_point] = to_stored(x, description.dtype)
            kept = from_stored(stored[hook_point], description.dtype)
            self._refuse_nonfinite(kept, hook_point, first)
            chunk_rows = description.chunk_sequences * description.n_positions
            merged = merge_sums([row_sums(kept[i : i + chunk_rows]) for i in range(0, len(kept), chunk_rows)])
            sums |= {f"{hook_point}/{key}": value for key, value in merged.items()}
        files = {}
        for hook_point, x in stored.items():
            file = _shard_file(self.path, hook_point, shard)
            file.unlink(missing_ok=True)  # Zarr reads what it overwrites, and fails on a torn file
            self._array(hook_point)[start:stop] = x
            fsync_path(file)
            fsync_path(file.parent)
            files[hook_point] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **cast(Any, sums))
        commit_bytes(_commit(self.path, shard).with_suffix(".npz"), buffer.getvalue())
        commit_json(
            _commit(self.path, shard), {"shard": shard, "sequences": [first, last], "files": files}, exclusive=True
        )

    def _array(self, hook_point: str) -> zarr.Array:
        # Without it a chunk of zeros would not be written, and could not be told from a missing one.
        return cast(zarr.Array, self.group[hook_point]).with_config({"write_empty_chunks": True})

    def _refuse_nonfinite(self, x: np.ndarray, hook_point: str, first_sequence: int) -> None:
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            sequence, place = divmod(int(bad[0]), self.description.n_positions)
            raise ValueError(
                f"{len(bad)} activations at {hook_point} are not finite in {self.description.dtype}, the first at sequence "
                f"{first_sequence + sequence}, position {self.description.positions[place]}: try extract.dtype = 'float32'"
            )

    def withdraw(self, shard: int) -> None:
        """Take back the commit of a damaged shard, so that it is missing and can be written again."""
        commit = _commit(self.path, shard)
        if commit.exists():
            commit.rename(commit.with_name(f"{commit.stem}.withdrawn"))
            fsync_path(commit.parent)

    def close(self) -> "ActivationStore":
        """Merge the moments, write the manifest. Idempotent, and safe when several processes close at once; raises
        StoreError while shards are missing."""
        missing = self.missing()
        if missing:
            raise StoreError(f"{self.path} lacks {len(missing)} of {self.description.n_shards} shards")
        commits = [read_json(_commit(self.path, i)) for i in range(self.description.n_shards)]
        parts = [dict(np.load(_commit(self.path, i).with_suffix(".npz"))) for i in range(len(commits))]
        moments = {}
        for hook_point in self.description.hook_points:
            prefix = f"{hook_point}/"
            own = [{k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)} for p in parts]
            merged = asdict(moments_from(merge_sums(own)))
            moments[hook_point] = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in merged.items()}
        files = [c["files"] for c in commits]
        commit_json(
            self.path / "manifest.json", {"digest": _digest(self.description, self.path, files), "moments": moments}
        )
        sweep_partial(self.path)
        return ActivationStore.open(self.path)


def _digest(description: Description, path: Path, files: list[Any]) -> str:
    """Of everything a store holds. files: per shard, the sizes and checksums of its files."""
    return digest([asdict(description), read_json(path / "tokens.json"), files])


def _commit(path: Path, shard: int) -> Path:
    return path / "commits" / f"{shard:05d}.json"


def _shard_file(path: Path, hook_point: str, shard: int) -> Path:
    return path / hook_point / "c" / str(shard) / "0"


def committed_shards(path: Path | str) -> int:
    """How many shards of a store, finished or not, are committed."""
    return sum(1 for _ in (Path(path) / "commits").glob("*.json"))


def _description(path: Path) -> Description:
    return Description.from_attributes(dict(zarr.open_group(path, mode="r").attrs))


def _tokens(path: Path, group: zarr.Group) -> np.ndarray:
    tokens = np.asarray(cast(zarr.Array, group["tokens"])[:])
    if bytes_digest(tokens.tobytes()) != read_json(path / "tokens.json")["tokens_digest"]:
        raise StoreError(f"{path}/tokens is damaged: its digest differs from the one in tokens.json")
    return tokens


class ActivationStore:
    """A finished store, read-only."""

    def __init__(self, path: Path, description: Description, manifest: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        self.digest: str = manifest["digest"]
        self._moments: dict[str, Any] = manifest["moments"]
        self._group = zarr.open_group(path, mode="r")
        self._trusted: set[tuple[str, int]] = set()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Raises StoreError: no store there, or one that is not finished."""
        path = Path(path)
        if not StoreWriter.exists(path):
            raise StoreError(f"no activation store at {path}: run `unmix extract` first")
        description = _description(path)
        if not (path / "manifest.json").exists():
            raise StoreError(
                f"{path} is not finished, {committed_shards(path)} of {description.n_shards} shards: run `unmix extract` again"
            )
        return cls(path, description, read_json(path / "manifest.json"))

    @property
    def hook_points(self) -> tuple[str, ...]:
        return self.description.hook_points

    @property
    def n_rows(self) -> int:
        return self.description.n_sequences * self.description.n_positions

    @property
    def n_train_rows(self) -> int:
        """Rows [0, n_train_rows) are for training, the rest are held out for scoring."""
        return (self.description.n_sequences - self.description.n_heldout_sequences) * self.description.n_positions

    @property
    def chunk_rows(self) -> int:
        return self.description.chunk_sequences * self.description.n_positions

    def d(self, hook_point: str) -> int:
        return self.description.d[self._index(hook_point)]

    def stats(self, hook_point: str) -> Moments:
        self._index(hook_point)
        values = self._moments[hook_point]
        return Moments(**cast(Any, {k: np.array(v) if isinstance(v, list) else v for k, v in values.items()}))

    @cached_property
    def tokens(self) -> np.ndarray:
        """(n_sequences, context) int32."""
        return _tokens(self.path, self._group)

    def rows(self, hook_point: str, start: int, stop: int) -> np.ndarray:
        """(stop - start, d) rows in the store's dtype (bfloat16 as float32).

        Raises StoreError naming the shard: a file of it is missing, of another size, or fails its checksum.
        """
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"rows {start}:{stop} of a store of {self.n_rows}")
        self._index(hook_point)
        shard_rows = self.description.shard_sequences * self.description.n_positions
        for shard in range(start // shard_rows, -(-stop // shard_rows)):
            self._check_shard(hook_point, shard)
        try:
            x = np.asarray(cast(zarr.Array, self._group[hook_point])[start:stop])
        except ValueError as error:  # zarr's codecs raise it for a wrong crc32c
            raise StoreError(f"{self.path}, rows {start}:{stop} at {hook_point}, is damaged: {error}") from error
        return from_stored(x, self.description.dtype)

    def batches(self, hook_point: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """rows [start, stop) in pieces of at most a chunk, read chunk by chunk."""
        while start < stop:
            end = min(stop, (start // self.chunk_rows + 1) * self.chunk_rows)
            yield self.rows(hook_point, start, end)
            start = end

    def damage(self) -> Iterator[tuple[int, list[Damage]]]:
        """Check every byte: for one shard after another, (shard, what is wrong with it); last (-1, what is wrong with
        the tokens and the manifest)."""
        commits: list[Any] = []
        for shard in range(self.description.n_shards):
            found = []
            for hook_point in self.hook_points:
                self._trusted.discard((hook_point, shard))
                try:
                    self._check_shard(hook_point, shard)
                except StoreError as error:
                    found.append(Damage(shard, str(error)))
            commit = _commit(self.path, shard)
            commits.append(read_json(commit)["files"] if commit.exists() else None)
            yield shard, found
        found = []
        try:
            _tokens(self.path, self._group)
        except StoreError as error:
            found.append(Damage(None, str(error)))
        if None not in commits and _digest(self.description, self.path, commits) != self.digest:
            found.append(
                Damage(None, f"{self.path}/manifest.json is not the manifest of the shards that are committed")
            )
        yield -1, found

    def _index(self, hook_point: str) -> int:
        if hook_point not in self.hook_points:
            raise StoreError(f"{self.path} has no hook point {hook_point!r}, it has {', '.join(self.hook_points)}")
        return self.hook_points.index(hook_point)

    def _check_shard(self, hook_point: str, shard: int) -> None:
        """Once per shard and reader: the file is there with the committed bytes. Zarr alone would read a missing or
        empty file as zeros, and would not notice two shards that changed places."""
        if (hook_point, shard) in self._trusted:
            return
        commit, file = _commit(self.path, shard), _shard_file(self.path, hook_point, shard)
        if not commit.exists():
            raise StoreError(f"{commit} is missing: shard {shard} is not vouched for; run `unmix extract` again")
        expected = read_json(commit)["files"][hook_point]
        size = file.stat().st_size if file.exists() else None
        if size != expected["bytes"]:
            found = "missing" if size is None else f"{size} bytes"
            raise StoreError(f"{file} is {found}, expected {expected['bytes']} bytes: run `unmix verify`")
        if file_digest(file) != expected["sha256"]:
            raise StoreError(f"{file} was altered: its sha256 is not the committed one; run `unmix verify`")
        self._trusted.add((hook_point, shard))
