"""What vouches for a shard: a commit, written when all its files are there, with their sizes and checksums."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from stores.description import Description, StoreError, TextPositions, row_bytes
from stores.manifest import canonical
from stores.names import check_name
from stores.place import Place

_SHA256 = re.compile(r"[0-9a-f]{64}")
TOKENS = "tokens"  # the array beside those of the hook points


@dataclass(frozen=True)
class FileRecord:
    """One array's file of a shard. chunks: (offset, crc32c) of each of its chunks; the crc32c follows the chunk."""

    n_bytes: int
    sha256: str
    chunks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        n_bytes, sha256 = values["n_bytes"], values["sha256"]
        chunks = tuple((o, c) for o, c in values["chunks"])
        if not all(type(n) is int and n >= 0 for n in (n_bytes, *sum(chunks, ()))) or not _SHA256.fullmatch(sha256):
            raise ValueError("a file's record has other values than sizes and checksums")
        return cls(n_bytes, sha256, chunks)


@dataclass(frozen=True)
class Commit:
    """attempt: the folder that its files were put into first. identity: of the store's description. sequences:
    [start, stop). files: per array. sums: what the moments are made of. nonfinite: per hook point that has some, (rows that
    are not finite, sequence and position of the first). text_end: where the text goes on, if it is known."""

    shard: int
    attempt: str
    identity: str
    sequences: tuple[int, int]
    files: dict[str, FileRecord]
    sums: FileRecord
    nonfinite: dict[str, tuple[int, int, int]]
    text_end: TextPositions | None = None

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError, KeyError, TypeError, AttributeError or RecursionError: it is not one."""
        values: dict[str, Any] = json.loads(data)
        values["files"] = {name: FileRecord.from_json(v) for name, v in values["files"].items()}
        values["sums"] = FileRecord.from_json(values["sums"])
        values["nonfinite"] = {h: _ints(v, 3) for h, v in values["nonfinite"].items()}
        values["sequences"] = _ints(values["sequences"], 2)
        values["text_end"] = values["text_end"] and _positions(values["text_end"])
        if type(values["shard"]) is not int or not re.fullmatch(r"\d{5,}-[0-9a-f]{32}", values["attempt"]):
            raise ValueError("its shard or attempt is no such thing")
        for name in values["files"]:
            if name != TOKENS:
                check_name(name, "an array")
        return cls(**values)

    def check(self, description: Description) -> None:
        """Raises ValueError: it is not of a shard of such a store."""
        if self.identity != description.identity:
            raise ValueError("it is of a store of another description")
        arrays = {TOKENS, *description.hook_points}
        if set(self.files) != arrays:
            raise ValueError(f"it is of {', '.join(sorted(self.files))[:80]}, expected {', '.join(sorted(arrays))}")
        if not set(self.nonfinite) <= arrays:
            raise ValueError(f"nonfinite of {', '.join(sorted(self.nonfinite))[:80]}")
        if not 0 <= self.shard < description.n_shards or self.sequences != description.sequences(self.shard):
            raise ValueError(f"it is of sequences {self.sequences} of {description.n_sequences}")
        for name, record in self.files.items():
            n_bytes, offsets = shard_layout(description, name, self.shard)
            if record.n_bytes != n_bytes or [offset for offset, _ in record.chunks] != offsets:
                raise ValueError(f"{name} has {record.n_bytes} bytes, {len(record.chunks)} chunks, expected {n_bytes}")


def _positions(values: Any) -> TextPositions:
    train, heldout = values
    return _ints(train, 3), _ints(heldout, 3)


def _ints(values: Any, n: int) -> Any:
    if len(values) != n or not all(type(v) is int for v in values):
        raise ValueError(f"{str(values)[:40]!r} are not {n} numbers")
    return tuple(values)


def shard_layout(description: Description, array: str, shard: int) -> tuple[int, list[int]]:
    """(bytes of a shard's file, offsets of its chunks): chunks with their crc32c, then an index of shard_chunks pairs
    of uint64, and the index's crc32c."""
    first, last = description.sequences(shard)
    n_chunks = -(-(last - first) // description.chunk_sequences)
    if array == TOKENS:
        chunk_bytes = description.chunk_sequences * description.context * 4
    else:
        chunk_bytes = description.chunk_rows * row_bytes(description.width(array), description.dtype)
    size = chunk_bytes + 4
    return n_chunks * size + 16 * description.shard_chunks + 4, [i * size for i in range(n_chunks)]


def commit_key(shard: int) -> str:
    return f"commits/{shard:05d}.json"


def sums_key(shard: int) -> str:
    return f"commits/{shard:05d}.npz"


def file_key(array: str, shard: int) -> str:
    return f"{array}/c/{shard}/0"


def records(commit: Commit) -> dict[str, FileRecord]:
    """All that a commit vouches for, by key."""
    return {file_key(a, commit.shard): r for a, r in commit.files.items()} | {sums_key(commit.shard): commit.sums}


class StoreDigest:
    """Of everything a store holds: its description, the size and checksum of every file, the moments. Commits are added in
    the order of their shards and not kept; n: how many were added."""

    def __init__(self, description: Description) -> None:
        self.n, self._sha256 = 0, hashlib.sha256(b"[" + canonical(asdict(description)) + b",[")

    def add(self, commit: Commit) -> None:
        files = {key: [f.n_bytes, f.sha256] for key, f in records(commit).items()}
        self._sha256.update((b"," if self.n else b"") + canonical(files))
        self.n += 1

    def of(self, moments: dict[str, Any]) -> str:
        """manifest.digest([description, [files of each commit], moments])."""
        found = self._sha256.copy()
        found.update(b"]," + canonical(moments) + b"]")
        return found.hexdigest()


def committed_shards(place: Place) -> list[int]:
    """Shards of a store, finished or not, that have a commit."""
    matches = (re.fullmatch(r"(\d{5,})\.json", name) for name in place.names("commits"))
    return [int(match[1]) for match in matches if match]


def read_commit(place: Place, shard: int, description: Description | None = None) -> Commit:
    """Raises StoreError: it is missing, is not one, or not one of this shard of a store of this description."""
    key = commit_key(shard)
    try:
        commit = Commit.from_json(place.read(key))
        if commit.shard == shard and description is not None:
            commit.check(description)
    except FileNotFoundError:
        raise StoreError(
            f"{place / key} is missing: shard {shard} is not vouched for; run `unmix extract` again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{place / key} is damaged: {error}; {place.repair}") from None
    if commit.shard != shard or int(commit.attempt.split("-")[0]) != shard:
        raise StoreError(f"{place / key} is the commit of shard {commit.shard}; {place.repair}")
    return commit
