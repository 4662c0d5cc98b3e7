"""What was found of a pair of dictionaries, kept for as long as neither changes: one file each."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from pipeline import stopping
from pipeline.score.pairs import Entry, measure
from pipeline.score.similarity import Way
from pipeline.unit_files import json_object
from stores.manifest import commit_json, digest

VERSION = 1  # of what is measured


class KeptPairs:
    """Measures pairs of entries that have keys once, and reads what it found from then on. A file that is damaged, or half
    written by a process that died, is as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, a: Entry, b: Entry, load: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Way, Way]:
        stopping.look("all is scored, and the pairs before this one are compared")
        if not a.key or not b.key:
            return measure(a, b, load)
        keys = [VERSION, *sorted((a.key, b.key))]
        file = self.folder / f"{digest(keys)}.json"
        ways = _read(file, keys)
        if ways is None:
            there, back = measure(a, b, load)
            ways = (there, back) if a.key < b.key else (back, there)
            commit_json(file, {"ways": [asdict(way) for way in ways], "digest": _digest(keys, ways)})
        first, second = ways
        return (first, second) if a.key < b.key else (second, first)


def _digest(keys: list[int | str], ways: tuple[Way, Way]) -> str:
    return digest([keys, [asdict(way) for way in ways]])


def _read(file: Path, keys: list[int | str]) -> tuple[Way, Way] | None:
    found = json_object(file) or {}
    try:
        first, second = (Way(**{**way, "histogram": tuple(way["histogram"])}) for way in found["ways"])
    except (KeyError, TypeError, ValueError):
        return None
    return (first, second) if found.get("digest") == _digest(keys, (first, second)) else None
