"""Which dictionaries of one site are compared, and what is said of each pair."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.score.similarity import matched_cosine, mcs, mmcs, random_directions
from stores.manifest import seed_of

_MATCHING_LIMIT = 4096  # rows; the Hungarian method is cubic
MCS_BINS = 50
FOREIGN = "foreign"  # how the methods of dictionaries begin that others made


@dataclass(frozen=True)
class Entry:
    """A scored dictionary as pairs see it. directions: of its features that are not dead, (n_alive, d_out)."""

    name: str
    method: str
    settings: dict[str, Any]
    d_sae: int
    signed: bool
    directions: Tensor


def relation(a: Entry, b: Entry, entries: list[Entry]) -> str | None:
    """Why a and b are compared: "seed" (all else equal), "larger" (b is the next larger of a's kind), "method" (the
    same size, or either a basis; seeds as in the recipe's first), "truth" (either is the known truth), or None."""
    if a.name == b.name:
        return None
    if "truth" in (a.method, b.method):
        return "truth"
    if FOREIGN in (a.method.split()[0], b.method.split()[0]):
        return "foreign" if _first_seed(a, entries) and _first_seed(b, entries) else None
    if a.method != b.method:
        basis = len({a.d_sae, b.d_sae}) == 1 or a.d_sae == a.directions.shape[1] or b.d_sae == b.directions.shape[1]
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


def _first_seed(entry: Entry, entries: list[Entry]) -> bool:
    return _seed(entry) == min(_seed(e) for e in entries if e.method == entry.method)


def compare(a: Entry, b: Entry) -> tuple[dict[str, Any], Tensor]:
    """The scores of an ordered pair, and the histogram (MCS_BINS,) of the maximal cosines of a's features, in [0, 1]."""
    signed = a.signed or b.signed
    found = mcs(a.directions, b.directions, signed=signed)
    floor = random_directions(len(b.directions), b.directions.shape[1], seed_of("floor"))
    scores: dict[str, Any] = {
        "a": a.name,
        "b": b.name,
        "mmcs": round(float(found.double().mean()), 4),
        "random_floor": round(mmcs(a.directions, floor, signed=signed), 4),
        "fraction_above_0.9": round(float((found > 0.9).double().mean()), 4),
        "n_alive_a": len(a.directions),
        "n_alive_b": len(b.directions),
        "signed": signed,
    }
    if max(len(a.directions), len(b.directions)) <= _MATCHING_LIMIT:
        scores["matched_cosine"] = round(matched_cosine(a.directions, b.directions, signed=signed), 4)
    return scores, torch.histc(found, MCS_BINS, 0, 1)


def all_pairs(entries: list[Entry]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Every pair with a relation, in both directions."""
    for a in entries:
        for b in entries:
            why = relation(a, b, entries)
            reverse = relation(b, a, entries)
            if (why or reverse) and len(a.directions) and len(b.directions):
                scores, histogram = compare(a, b)
                yield {"relation": why or ("smaller" if reverse == "larger" else reverse), **scores}, histogram
