"""Attempts: where the files of a shard lie until its commit says that they are the shard's.

    attempts/00007-<uuid>/<array>     what will be <array>/c/7/0
    attempts/00007-<uuid>/sums.npz    what will be commits/00007.npz

Several processes may write one shard, and their last bits may differ (another processor). Each puts its files into an
attempt of its own. The commit, one exclusive put, names one attempt. Only the files of that one are moved to their final
keys, by its process or by whoever opens the store for writing next: a shard is one process's work, never a mixture.
"""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor

from stores.commits import Commit, commit_key, file_key, read_commit, sums_key
from stores.place import Place

SUMS = "sums.npz"
_FOLDER = "attempts"
_ORPHAN_AGE_S = 600
_MOVES_AT_ONCE = 8


def new_attempt(shard: int) -> str:
    return f"{shard:05d}-{uuid.uuid4().hex}"


def attempt_key(attempt: str, name: str) -> str:
    """name: an array's, or SUMS."""
    return f"{_FOLDER}/{attempt}/{name}"


def keys(commit: Commit) -> dict[str, str]:
    """Where each file of a commit lies until it is moved, by its final key."""
    own = {file_key(name, commit.shard): attempt_key(commit.attempt, name) for name in commit.files}
    return own | {sums_key(commit.shard): attempt_key(commit.attempt, SUMS)}


def discard(place: Place, attempt: str) -> None:
    """Remove an attempt that no commit names."""
    place.remove_folder(f"{_FOLDER}/{attempt}")


def move_in(place: Place, commit: Commit) -> None:
    """Move the files of a committed attempt to their final keys. Idempotent; several processes may do it at once."""
    final = keys(commit)
    with ThreadPoolExecutor(min(_MOVES_AT_ONCE, len(final))) as pool:
        list(pool.map(place.move, final.values(), final))
    place.remove_folder(f"{_FOLDER}/{commit.attempt}")


def left(place: Place) -> list[tuple[int, str]]:
    """(shard, attempt) of those that lie in the store, committed or not."""
    matches = (re.fullmatch(r"(\d{5,})-[0-9a-f]{32}", name) for name in place.names(_FOLDER))
    return [(int(match[1]), match[0]) for match in matches if match]


def committed(place: Place, shard: int) -> Commit | None:
    """A shard's commit, if it has one. Raises StoreError: it is damaged."""
    return read_commit(place, shard) if place.exists(commit_key(shard)) else None


def roll_forward(place: Place) -> None:
    """Move in what processes committed and were killed before they had moved it."""
    for shard, attempt in left(place):
        if (commit := committed(place, shard)) and commit.attempt == attempt:
            move_in(place, commit)


def sweep(place: Place) -> None:
    """Remove what killed processes left, in a store that was closed just now. A young attempt stays: its process may be
    at work. Ages are told by the clock that dated the manifest, not by this machine's."""
    now = place.modified("manifest.json")
    for shard, attempt in left(place) if now else []:
        commit, folder = committed(place, shard), f"{_FOLDER}/{attempt}"
        times = map(place.modified, [folder, *(f"{folder}/{name}" for name in place.names(folder))])
        old = now and max((t for t in times if t), default=0) < now - _ORPHAN_AGE_S
        if old and (commit is None or commit.attempt != attempt):
            discard(place, attempt)
    place.remove_empty(_FOLDER)
