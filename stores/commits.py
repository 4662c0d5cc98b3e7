"""What vouches for a shard: a commit, written when all its files are there, with their sizes and checksums."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from stores.description import StoreError, TextPositions
from stores.place import Place

TOKENS = "tokens"  # the array beside those of the hook points


@dataclass(frozen=True)
class FileRecord:
    """One array's file of a shard. chunks: (offset, crc32c) of each of its chunks; the crc32c follows the chunk."""

    n_bytes: int
    sha256: str
    chunks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(values["n_bytes"], values["sha256"], tuple((o, c) for o, c in values["chunks"]))


@dataclass(frozen=True)
class Commit:
    """attempt: the folder that its files were put into first. sequences: [start, stop). files: per array. sums: what the
    moments are made of. nonfinite: per hook point that has some, (rows that are not finite, sequence and position of the
    first). text_end: where the text goes on, if it is known."""

    shard: int
    attempt: str
    sequences: tuple[int, int]
    files: dict[str, FileRecord]
    sums: FileRecord
    nonfinite: dict[str, tuple[int, int, int]]
    text_end: TextPositions | None = None

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        values: dict[str, Any] = json.loads(data)
        values["files"] = {name: FileRecord.from_json(v) for name, v in values["files"].items()}
        values["sums"] = FileRecord.from_json(values["sums"])
        values["nonfinite"] = {h: tuple(v) for h, v in values["nonfinite"].items()}
        values["sequences"] = tuple(values["sequences"])
        values["text_end"] = values["text_end"] and tuple(map(tuple, values["text_end"]))
        return cls(**values)


def commit_key(shard: int) -> str:
    return f"commits/{shard:05d}.json"


def sums_key(shard: int) -> str:
    return f"commits/{shard:05d}.npz"


def file_key(array: str, shard: int) -> str:
    return f"{array}/c/{shard}/0"


def records(commit: Commit) -> dict[str, FileRecord]:
    """All that a commit vouches for, by key."""
    return {file_key(a, commit.shard): r for a, r in commit.files.items()} | {sums_key(commit.shard): commit.sums}


def committed_shards(place: Place) -> list[int]:
    """Shards of a store, finished or not, that have a commit."""
    return [int(name.removesuffix(".json")) for name in place.names("commits") if name.endswith(".json")]


def read_commit(place: Place, shard: int) -> Commit:
    """Raises StoreError: it is missing, or not one."""
    key = commit_key(shard)
    try:
        return Commit.from_json(place.read(key))
    except FileNotFoundError:
        raise StoreError(
            f"{place / key} is missing: shard {shard} is not vouched for; run `unmix extract` again"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place / key} is damaged: {error}; run `unmix verify`") from None
