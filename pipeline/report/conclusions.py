"""What the numbers of a run say, in sentences: what is doubtful first. A difference counts if it is larger than the spread
over seeds."""

import re
from collections.abc import Sequence
from typing import Any

_SEED = re.compile(r"-s\d+$")
_NEAR_L0 = 1.25  # two dictionaries are at equal L0 if neither has more than this many times the other's
# what is counted of single features, by its key in a row of the index: see overview.py
COUNTS = {"labels_found": "Labels with one feature of F1 ≥ .9", "rules_found": "Features with a rule of F1 ≥ .7"}

Row = dict[str, Any]


def conclusions(rows: Sequence[Row], pairs: Sequence[Row]) -> list[Row]:
    """[{"kind": "doubt" or "finding", "site", "text"}], doubts first."""
    found = []
    for site in dict.fromkeys(row["site"] for row in rows):
        here = [row for row in rows if row["site"] == site]
        found += [*_marks(site, here), *_against_controls(site, here), *_orderings(site, here)]
        found += _stability(site, [pair for pair in pairs if pair["site"] == site])
    return sorted(found, key=lambda one: one["kind"] != "doubt")


def settings_of(row: Row) -> str:
    """A name without its seed."""
    return _SEED.sub("", row["name"])


def _groups(rows: Sequence[Row], key: str) -> dict[str, list[float]]:
    """Settings → the values of a key over seeds."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.get(key) is not None:
            groups.setdefault(settings_of(row), []).append(float(row[key]))
    return groups


def _marks(site: str, rows: Sequence[Row]) -> list[Row]:
    return [
        _one("doubt", site, f"{row['name']}: {line}")
        for row in rows
        for line in [*row.get("warnings", []), *row.get("marks", [])]
    ]


def _against_controls(site: str, rows: Sequence[Row]) -> list[Row]:
    """The best trained dictionary beside the best control, and beside the best basis that is not sparse, in what is said of
    single features."""
    trained = [row for row in rows if row["sparse"] and not row.get("control")]
    references = {
        "control": [row for row in rows if row.get("control")],
        "basis that is not sparse": [row for row in rows if not row["sparse"] and not row.get("control")],
    }
    found = []
    for key, what in COUNTS.items():
        ours = _groups(trained, key)
        for kind, others in references.items():
            if ours and (theirs := _groups(others, key)):
                found.append(_margin(site, what, ours, kind, theirs))
    if not references["control"] and any(_groups(trained, key) for key in COUNTS):
        found.append(_one("doubt", site, "No control was scored beside the trained dictionaries."))
    return found


def _margin(site: str, what: str, ours: dict[str, list[float]], kind: str, theirs: dict[str, list[float]]) -> Row:
    """The best of each, by its mean over seeds."""
    best, other = (max(groups, key=lambda name: _mean(groups[name])) for groups in (ours, theirs))
    margin, spread = _mean(ours[best]) - _mean(theirs[other]), max(_spread(ours[best]), _spread(theirs[other]))
    text = f"{what}: {best} {_over_seeds(ours[best])}, the best {kind}, {other}, {_over_seeds(theirs[other])}"
    if margin <= spread:
        return _one("doubt", site, f"{text}: no margin that counts.")
    return _one("finding", site, f"{text}: a margin of {margin:.0f}.")


def _orderings(site: str, rows: Sequence[Row]) -> list[Row]:
    """Families of equal size at equal L0, by FVU."""
    sparse = [row for row in rows if row["sparse"] and not row.get("control") and row["l0"] > 0]
    fvu, l0 = _groups(sparse, "fvu"), _groups(sparse, "l0")
    size = {settings_of(row): row["d_sae"] for row in sparse}
    method = {settings_of(row): row["method"] for row in sparse}
    names, found = sorted(fvu, key=lambda name: (size[name], _mean(fvu[name]))), []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            ratio = _mean(l0[a]) / _mean(l0[b])
            if size[a] != size[b] or method[a] == method[b] or not 1 / _NEAR_L0 <= ratio <= _NEAR_L0:
                continue
            spread, text = (
                max(_spread(fvu[a]), _spread(fvu[b])),
                f"{a} has FVU {_mean(fvu[a]):.4f}, {b} {_mean(fvu[b]):.4f}",
            )
            at = f"at L0 {_mean(l0[a]):.1f} and {_mean(l0[b]):.1f}"
            if min(len(fvu[a]), len(fvu[b])) < 2:
                found.append(_one("finding", site, f"{text}, {at}; one seed, so no spread is known."))
            elif _mean(fvu[b]) - _mean(fvu[a]) <= spread:
                found.append(_one("doubt", site, f"{text}, {at}: no more than the spread over seeds, {spread:.4f}."))
            else:
                found.append(_one("finding", site, f"{text}, {at}; the spread over seeds is {spread:.4f}."))
    return found


def _stability(site: str, pairs: Sequence[Row]) -> list[Row]:
    """How far features come back with another seed, beside random directions."""
    found = []
    for pair in pairs:
        if pair.get("relation") != "seed" or pair["a"] > pair["b"] or pair.get("mmcs") is None:
            continue
        text = f"{pair['a']} and {pair['b']}: MMCS {pair['mmcs']:.3f}, random directions {pair['random_floor']:.3f}"
        kind = "finding" if pair["mmcs"] > 1.1 * pair["random_floor"] else "doubt"
        found.append(_one(kind, site, text + ("." if kind == "finding" else ": no more than chance.")))
    return found


def _one(kind: str, site: str, text: str) -> Row:
    return {"kind": kind, "site": site, "text": text}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _over_seeds(values: Sequence[float]) -> str:
    """12 (11 to 13 over 3 seeds)"""
    if len(values) == 1:
        return f"{values[0]:.0f} (one seed)"
    return f"{_mean(values):.0f} ({min(values):.0f} to {max(values):.0f} over {len(values)} seeds)"
