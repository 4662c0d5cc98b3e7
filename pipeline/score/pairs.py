"""Which dictionaries of one site are compared, and what is said of each pair."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.score.similarity import Way, both_ways

FOREIGN = "foreign"  # how the methods of dictionaries begin that others made


@dataclass(frozen=True)
class Entry:
    """A scored dictionary as pairs see it. load: its features that are not dead, (n_alive, d_out) directions. key: a digest
    of all that these follow from; what is found of two entries with keys is kept."""

    name: str
    method: str
    settings: dict[str, Any]
    d_sae: int
    signed: bool
    load: Callable[[], Tensor]
    n_alive: int
    d_out: int
    key: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        method: str,
        settings: dict[str, Any],
        d_sae: int,
        signed: bool,
        directions: Tensor,
        key: str = "",
    ) -> Self:
        """Of directions in memory."""
        return cls(name, method, settings, d_sae, signed, lambda: directions, len(directions), directions.shape[1], key)


Measure = Callable[[Entry, Entry, Callable[[], tuple[Tensor, Tensor]]], tuple[Way, Way]]


def measure(a: Entry, b: Entry, load: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Way, Way]:
    """From a to b and back. load: the directions of both."""
    return both_ways(*load(), signed=a.signed or b.signed)


def relation(a: Entry, b: Entry, entries: Sequence[Entry]) -> str | None:
    """Why a and b are compared: "seed" (all else equal), "larger" (b is the next larger of a's kind), "method" (the
    same size, or either a basis; seeds as in the recipe's first), "truth" (either is the known truth), or None."""
    if a.name == b.name:
        return None
    if "truth" in (a.method, b.method):
        return "truth"
    if FOREIGN in (a.method.split()[0], b.method.split()[0]):
        return "foreign" if _first_seed(a, entries) and _first_seed(b, entries) else None
    if a.method != b.method:
        basis = len({a.d_sae, b.d_sae}) == 1 or a.d_sae == a.d_out or b.d_sae == b.d_out
        return "method" if basis and _first_seed(a, entries) and _first_seed(b, entries) else None
    if _kind(a) != _kind(b):
        return None
    if a.d_sae == b.d_sae:
        return "seed"
    own = [e.d_sae for e in entries if e.method == a.method and _kind(e) == _kind(a) and _seed(e) == _seed(a)]
    larger = [d_sae for d_sae in own if d_sae > a.d_sae]
    return "larger" if _seed(a) == _seed(b) and larger and b.d_sae == min(larger) else None


def _kind(entry: Entry) -> dict[str, Any]:
    return {k: v for k, v in entry.settings.items() if k not in ("seed", "d_sae")}


def _seed(entry: Entry) -> int:
    return entry.settings.get("seed", 0)


def _first_seed(entry: Entry, entries: Sequence[Entry]) -> bool:
    return _seed(entry) == min(_seed(e) for e in entries if e.method == entry.method)


def compare(a: Entry, b: Entry) -> tuple[dict[str, Any], Tensor]:
    """The scores of an ordered pair, and the histogram (MCS_BINS,) of the maximal cosines of a's features, in [0, 1]."""
    there, _ = measure(a, b, lambda: (a.load(), b.load()))
    return scores_of(a, b, there), torch.tensor(there.histogram, dtype=torch.float32)


def scores_of(a: Entry, b: Entry, way: Way) -> dict[str, Any]:
    """The columns of an ordered pair."""
    scores: dict[str, Any] = {
        "a": a.name,
        "b": b.name,
        "mmcs": round(way.mmcs, 4),
        "random_floor": round(way.random_floor, 4),
        "fraction_above_0.9": round(way.above, 4),
        "n_alive_a": a.n_alive,
        "n_alive_b": b.n_alive,
        "signed": a.signed or b.signed,
    }
    if way.matched_cosine is not None:
        scores["matched_cosine"] = round(way.matched_cosine, 4)
    return scores


def all_pairs(entries: Sequence[Entry], measured: Measure = measure) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Every pair with a relation, in both directions, as compare has it; each is measured once."""
    directions = lru_cache(maxsize=4)(lambda i: entries[i].load())
    found: dict[tuple[int, int], tuple[Way, Way]] = {}
    for i, a in enumerate(entries):
        for j, b in enumerate(entries):
            why = relation(a, b, entries)
            reverse = relation(b, a, entries)
            if (why or reverse) and a.n_alive and b.n_alive:
                low, high = min(i, j), max(i, j)
                if i < j:
                    found[i, j] = measured(a, b, lambda low=low, high=high: (directions(low), directions(high)))
                way = found[low, high][i > j]
                named = why or ("smaller" if reverse == "larger" else reverse)
                yield {"relation": named, **scores_of(a, b, way)}, torch.tensor(way.histogram, dtype=torch.float32)
