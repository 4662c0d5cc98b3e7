"""Published orderings: what hand-made numbers say of them."""

from typing import Any

import pytest

from pipeline.score.orderings import FAILS, HOLDS, NO_SPREAD, ORDERINGS, WITHIN, Ordering, published_orderings, verdict

BELOW = Ordering("topk", "relu_l1", "fvu", "a paper")


def run_of(*groups: dict[str, Any], pairs: tuple[dict, ...] = ()) -> dict[str, Any]:
    """What scores.json has of groups: each with its method, FVU of its seeds, and what else is given."""
    rows, found = [], []
    for group in groups:
        given = {"site": "a", "d_sae": 64, "l0": 32.0, "control": None, **group}
        name = f"{given['method']}-{given['site']}-{given['l0']:g}-{given['d_sae']}"
        names = [f"{name}-s{seed}" for seed in range(len(given["fvu"]))]
        common = {key: given[key] for key in ("site", "d_sae", "l0")}
        rows += [{"name": n, "fvu": value, **common} for n, value in zip(names, given["fvu"], strict=True)]
        found.append(
            {key: given[key] for key in ("site", "d_sae", "control", "method")} | {"name": name, "names": names}
        )
    return {"dictionaries": rows, "groups": found, "pairs": list(pairs)}


@pytest.mark.parametrize(
    ("less", "more", "expected"),
    [
        ([0.10, 0.11, 0.12], [0.20, 0.21, 0.22], HOLDS),
        ([0.20, 0.21, 0.22], [0.10, 0.11, 0.12], FAILS),
        # by Welch 0.01 ± 2.78 · 0.01 √(2/3), which is .0227
        ([0.10, 0.11, 0.12], [0.11, 0.12, 0.13], WITHIN),
        ([0.13, 0.12, 0.11], [0.12, 0.11, 0.10], WITHIN),
        ([0.10], [0.20, 0.21, 0.22], HOLDS + NO_SPREAD),
        ([0.3], [0.2], FAILS + NO_SPREAD),
        ([0.2], [0.2], FAILS + NO_SPREAD),
    ],
)
def test_a_verdict_is_what_the_spread_allows(less: list[float], more: list[float], expected: str) -> None:
    assert verdict(less, more) == expected
    scores = run_of({"method": "topk", "fvu": less}, {"method": "relu_l1", "fvu": more})
    assert [row["verdict"] for row in published_orderings(scores, [BELOW])] == [expected]


def test_a_row_says_who_and_where_and_how_much() -> None:
    scores = run_of({"method": "topk", "fvu": [0.10, 0.12]}, {"method": "relu_l1", "fvu": [0.25], "l0": 33.0})
    (row,) = published_orderings(scores, [BELOW])
    assert (row["ordering"], row["source"], row["site"], row["l0"]) == (
        "topk below relu_l1 in FVU",
        "a paper",
        "a",
        32.5,
    )
    assert (row["less"], row["more"]) == ("topk-a-32-64", "relu_l1-a-33-64")
    assert row["values"] == ["0.110 ± .014", "0.250"]


def test_others_than_equals_are_not_compared() -> None:
    """Another site, size or L0, or a control."""
    strangers = (
        {"method": "relu_l1", "fvu": [0.2], "site": "b"},
        {"method": "relu_l1", "fvu": [0.2], "d_sae": 128},
        {"method": "relu_l1", "fvu": [0.2], "l0": 34.0},
        {"method": "relu_l1", "fvu": [0.2], "control": "frozen decoder"},
        {"method": "relu_l1", "fvu": [0.2], "l0": 0.0},
        {"method": "gated", "fvu": [0.2]},
    )
    assert published_orderings(run_of({"method": "topk", "fvu": [0.1]}, *strangers), [BELOW]) == []
    assert published_orderings({}, [BELOW]) == []


def test_two_seeds_are_one_pair_of_which_no_spread_is_known() -> None:
    alike = Ordering("topk", "relu_l1", "mmcs", "a paper")
    groups = {"method": "topk", "fvu": [0.1, 0.1]}, {"method": "relu_l1", "fvu": [0.2, 0.2]}
    pairs = tuple(
        {
            "site": "a",
            "a": f"{m}-a-32-64-s{i}",
            "b": f"{m}-a-32-64-s{1 - i}",
            "relation": "seed",
            "mmcs": value + i / 100,
        }
        for m, value in (("topk", 0.5), ("relu_l1", 0.8))
        for i in range(2)
    )
    (row,) = published_orderings(run_of(*groups, pairs=pairs), [alike])
    assert (row["values"], row["verdict"]) == (["0.505", "0.805"], HOLDS + NO_SPREAD)
    assert published_orderings(run_of(*groups), [alike]) == []  # a pair is missing


def test_each_ordering_has_a_source_that_can_be_looked_up() -> None:
    assert len({(o.less, o.more, o.score) for o in ORDERINGS}) == len(ORDERINGS)
    assert all("arXiv:" in o.source for o in ORDERINGS)
