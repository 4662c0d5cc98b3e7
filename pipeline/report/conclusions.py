"""What the numbers of a run say, in sentences: what is doubtful first.

scores.json has the groups of seeds and says which differences count; here the same is done for what is counted of features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.estimates import Estimate, exact, mean, unpaired

# What is counted of single features, by its key in a row of the index: see overview.py.
COUNTS = {"labels_found": "Labels with one feature of F1 ≥ .9", "rules_found": "Features with a rule of F1 ≥ .7"}
_SAID = {"fvu": "FVU", "ce_score_zero": "CE score"}

Row = dict[str, Any]


def conclusions(rows: Sequence[Row], scores: Mapping[str, Any]) -> list[Row]:
    """[{"kind": "doubt" or "finding", "site", "text"}], doubts first. rows: of the index. scores: scores.json."""
    found = []
    for site in dict.fromkeys(row["site"] for row in rows):
        here = [row for row in rows if row["site"] == site]
        groups = [_with_counts(group, here) for group in scores.get("groups", []) if group["site"] == site]
        found += _marks(here)
        found += _no_control(site, groups)
        found += [one for group in groups for one in _counts(group, groups)]
        found += [
            _compared(one) for one in scores.get("comparisons", []) if one["site"] == site and one["score"] in _SAID
        ]
        found += _stability([pair for pair in scores.get("pairs", []) if pair["site"] == site])
    return sorted(found, key=lambda one: one["kind"] != "doubt")


def _marks(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        for line in [*row.get("warnings", []), *row.get("marks", [])]:
            yield _one("doubt", row["site"], f"{row['name']}: {line}")


def _with_counts(group: Mapping[str, Any], rows: Sequence[Row]) -> Row:
    """counts: of each key of COUNTS the values of its members, where all have one."""
    members = [row for row in rows if row["name"] in group["names"]]
    values = {key: [row.get(key) for row in members] for key in COUNTS}
    counts = {key: found for key, found in values.items() if found and None not in found}
    return dict(group) | {"counts": counts, "sparse": all(row["sparse"] for row in members)}


def _no_control(site: str, groups: Sequence[Row]) -> list[Row]:
    alone = [g["name"] for g in groups if g["sparse"] and not g["control"] and not g["controls"]]
    return [_one("doubt", site, f"No control was scored of {', '.join(alone)}.")] if alone else []


def _counts(group: Row, groups: Sequence[Row]) -> Iterator[Row]:
    """A trained dictionary's counts beside those of the best of its controls, and of the best basis that is not sparse."""
    if group["control"] or not group["sparse"]:
        return
    for key, own in group["counts"].items():
        for kind, others in (
            ("its best control", [g for g in groups if g["name"] in group["controls"]]),
            ("the best basis that is not sparse", [g for g in groups if not g["sparse"]]),
        ):
            others = [g for g in others if key in g["counts"]]
            if not others:
                continue
            other = max(others, key=lambda g: _mean(g["counts"][key]))
            margin = _margin(own, group["exact"], other["counts"][key], other["exact"])
            theirs = f"{kind}, {other['name']}, {_mean(other['counts'][key]):.1f}"
            text = f"{COUNTS[key]}: {group['name']} {_mean(own):.1f}, {theirs}"
            yield _judged(group["site"], text, margin.value, margin.low, margin.high)


def _margin(a: Sequence[float], a_exact: bool, b: Sequence[float], b_exact: bool) -> Estimate:
    """mean(a) - mean(b). exact: the method has no seed."""
    if a_exact and b_exact:
        return exact(a[0] - b[0])
    return mean([x - y for x in a for y in b]) if a_exact or b_exact else unpaired(a, b)


def _compared(row: Mapping[str, Any]) -> Row:
    """A row of comparisons of scores.json."""
    what, low, high = _SAID[row["score"]], row["low"], row["high"]
    other = f"its best control, {row['b']}" if row["relation"] == "control" else f"{row['b']}, the next about as sparse"
    text = f"{what}: {row['a']} beside {other}"
    found = _judged(row["site"], text, row["difference"], low, high, digits=4)
    return found if row["relation"] == "control" else found | {"kind": "finding"}


def _judged(site: str, text: str, value: float, low: float | None, high: float | None, digits: int = 1) -> Row:
    """A margin counts where its 95% interval is above 0; low, high: None or infinite where a seed alone is known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return _one(
            "doubt", site, f"{text}: better by {value:.{digits}f}, of one seed, so that nothing is known of its spread."
        )
    interval = f"better by {value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    if low > 0:
        return _one("finding", site, f"{text}: {interval}.")
    return _one("doubt", site, f"{text}: {interval}, {'worse' if high < 0 else 'no margin that counts'}.")


def _stability(pairs: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """How far features come back with another seed, beside random directions."""
    for pair in pairs:
        if pair.get("relation") != "seed" or pair["a"] > pair["b"] or pair.get("mmcs") is None:
            continue
        text = f"{pair['a']} and {pair['b']}: MMCS {pair['mmcs']:.3f}, random directions {pair['random_floor']:.3f}"
        above = pair["mmcs"] > 1.1 * pair["random_floor"]
        yield _one("finding" if above else "doubt", pair["site"], f"{text}{'.' if above else ': no more than chance.'}")


def _one(kind: str, site: str, text: str) -> Row:
    return {"kind": kind, "site": site, "text": text}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
