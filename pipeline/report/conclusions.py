"""What the numbers of a run say, in sentences: what is doubtful first, and of that where a margin is nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.margins import BASIS, MEASURES, Margin

_SAID = {"fvu": "FVU", "ce_score_zero": "CE score"}
_NOTHING, _DOUBT, _FINDING = range(3)  # in this order

Row = dict[str, Any]


def conclusions(rows: Sequence[Row], scores: Mapping[str, Any], found: Sequence[Margin]) -> list[Row]:
    """[{"kind": "doubt" or "finding", "site", "text"}], doubts first. rows: of the index. scores: scores.json."""
    said: list[tuple[int, Row]] = []
    for site in dict.fromkeys(row["site"] for row in rows):
        here = [row for row in rows if row["site"] == site]
        groups = [group for group in scores.get("groups", []) if group["site"] == site]
        sparse = {row["name"] for row in here if row["sparse"]}
        trained = [g for g in groups if not g["control"] and sparse.issuperset(g["names"])]
        said += _nothing([one for one in found if one.site == site and one.nothing])
        said += [_counts(one) for one in found if one.site == site and not (one.nothing or one.one_seed)]
        said += _marks(here)
        said += _no_control(site, trained)
        said += _one_seed(site, trained)
        said += [_next(one) for one in scores.get("comparisons", []) if one["site"] == site and _is_next(one)]
        said += _stability([pair for pair in scores.get("pairs", []) if pair["site"] == site])
    return [row for _, row in sorted(said, key=lambda one: one[0])]


def _nothing(found: Sequence[Margin]) -> Iterator[tuple[int, Row]]:
    """A sentence for those that are no better than one and the same in a measure."""
    together: dict[tuple[str, str, str], list[Margin]] = {}
    for one in found:
        together.setdefault((one.measure, one.against, one.other.name), []).append(one)
    for same in together.values():
        digits = MEASURES[same[0].measure][1]
        own = [f"{one.own.name} {one.own.text(digits)} ({one.row()['by']})" for one in same]
        yield _one(_NOTHING, same[0].site, f"{_title(same[0])}: no margin over {_other(same[0])}: {', '.join(own)}.")


def _counts(one: Margin) -> tuple[int, Row]:
    own = one.own.text(MEASURES[one.measure][1])
    by = f"better by {_interval(one.by.value, one.by.low, one.by.high, MEASURES[one.measure][1])}"
    return _one(_FINDING, one.site, f"{_title(one)}: {one.own.name} {own}, {_other(one)}: {by}.")


def _title(one: Margin) -> str:
    title = MEASURES[one.measure][0]
    return title[0].upper() + title[1:]


def _other(one: Margin) -> str:
    """its best control, shuffled codes, 0.0"""
    whose = "the" if one.against == BASIS else "its"
    return f"{whose} {one.against}, {one.other.name}, {one.other.text(MEASURES[one.measure][1])}"


def _interval(value: float, low: float, high: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _no_control(site: str, trained: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    if alone := [g["name"] for g in trained if not g["controls"]]:
        text = f"No control was trained of {', '.join(alone)}: what frozen or drawn directions give is not known."
        yield _one(_DOUBT, site, text)


def _marks(rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    for row in rows:
        for line in [*row.get("warnings", []), *row.get("marks", [])]:
            yield _one(_DOUBT, row["site"], f"{row['name']}: {line}")


def _one_seed(site: str, trained: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    if alone := [g["name"] for g in trained if len(g["names"]) == 1 and not g["exact"]]:
        yield _one(_DOUBT, site, f"One seed alone: {', '.join(alone)}. Nothing is known of the spread of their scores.")


def _is_next(row: Mapping[str, Any]) -> bool:
    return row["relation"] == "next" and row["score"] in _SAID


def _next(row: Mapping[str, Any]) -> tuple[int, Row]:
    """A row of comparisons of scores.json: that one is no better than the next is no doubt of it."""
    text = f"{_SAID[row['score']]}: {row['a']} beside {row['b']}, the next about as sparse: better by "
    if row["low"] is None:
        return _one(
            _FINDING, row["site"], f"{text}{row['difference']:.4f}, of one seed: nothing is known of its spread."
        )
    end = "." if row["low"] > 0 else ", no margin that counts."
    return _one(_FINDING, row["site"], f"{text}{_interval(row['difference'], row['low'], row['high'], 4)}{end}")


def _stability(pairs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Row]]:
    """How far features come back with another seed, beside random directions."""
    for pair in pairs:
        if pair.get("relation") != "seed" or pair["a"] > pair["b"] or pair.get("mmcs") is None:
            continue
        text = f"{pair['a']} and {pair['b']}: MMCS {pair['mmcs']:.3f}, random directions {pair['random_floor']:.3f}"
        above = pair["mmcs"] > 1.1 * pair["random_floor"]
        end = "." if above else ": no more than chance."
        yield _one(_FINDING if above else _DOUBT, pair["site"], f"{text}{end}")


def _one(rank: int, site: str, text: str) -> tuple[int, Row]:
    return rank, {"kind": "finding" if rank == _FINDING else "doubt", "site": site, "text": text}
