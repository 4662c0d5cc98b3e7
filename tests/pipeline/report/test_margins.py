"""Margins of what is counted of features over the best control, chance among them, and over the best basis."""

from typing import Any

import pytest

from pipeline.report.margins import BASIS, CONTROL, SHUFFLED, margins
from tests.pipeline.report.made import beside_a_control, comparison, group, row, seeds

TOPK, FROZEN = "topk-d64-k8", "topk-d64-k8-frozen_decoder"


def found(rows: list[dict], groups: list[dict], **scores: Any) -> dict[tuple[str, str], Any]:
    scores = {"dictionaries": rows, "pairs": [], "groups": groups, **scores}
    return {(one.measure, one.against): one for one in margins(rows, scores)}


def test_the_best_control_may_be_a_trained_one_or_chance() -> None:
    rows, groups = beside_a_control(TOPK, (10, 12), FROZEN, (3, 4))
    for value, name in ((2, FROZEN), (5, SHUFFLED)):
        for one in rows[:2]:
            one["labels_found_shuffled"] = value
        margin = found(rows, groups)["labels_found", CONTROL]
        assert (margin.other.name, margin.by.value) == (name, 11 - max(3.5, value))


def test_a_control_and_a_basis_have_no_margin_of_their_own() -> None:
    rows, groups = beside_a_control(TOPK, (10, 12), FROZEN, (3, 4))
    rows.append(row("neuron_basis", 16, labels_found=7))
    groups.append(group("neuron_basis", ["neuron_basis"], exact=True))
    scores = {"dictionaries": rows, "pairs": [], "groups": groups}
    assert {one.own.name for one in margins(rows, scores)} == {TOPK}
    basis = found(rows, groups)["labels_found", BASIS]
    assert (basis.other.name, basis.by.value) == ("neuron_basis", 4)
    assert basis.by.low == pytest.approx(4 - 12.706 * 1.0, abs=1e-2)  # Student's t with one degree of freedom


@pytest.mark.parametrize(
    ("ours", "theirs", "mark"),
    [((20, 21, 22), (9, 10, 11), ""), ((10, 12, 14), (9, 11, 13), "~"), ((20,), (3, 4), "?"), ((3,), (3, 4), "~")],
)
def test_a_mark_says_whether_a_margin_counts(ours: tuple[int, ...], theirs: tuple[int, ...], mark: str) -> None:
    rows, groups = beside_a_control(TOPK, ours, FROZEN, theirs)
    shown = found(rows, groups)["labels_found", CONTROL].row()
    assert shown["mark"] == mark
    assert (shown["interval"] is None) == (len(ours) == 1)
    assert (shown["name"], shown["other"], shown["n"]) == (TOPK, FROZEN, len(ours))


def test_two_counts_that_agree_are_no_finding() -> None:
    rows, groups = beside_a_control(TOPK, (14, 14), FROZEN, (13, 13))
    rows.append(row("neuron_basis", 16, labels_found=13))
    groups.append(group("neuron_basis", ["neuron_basis"], exact=True))
    for margin in (one for (measure, _), one in found(rows, groups).items() if measure == "labels_found"):
        assert (margin.by.value, margin.nothing) == (1, True)
        assert margin.row()["mark"] == "~"


def test_scores_of_dictionaries_as_wholes_have_the_margins_of_the_table_of_scores() -> None:
    rows, groups = beside_a_control(TOPK, (1, 2), FROZEN, (3, 4))
    rows[0]["fvu"], rows[1]["fvu"] = 0.1, 0.2
    comparisons = [comparison("control", TOPK, FROZEN, -0.1, None, None), comparison("next", TOPK, "x", 1, 0, 2)]
    margin = found(rows, groups, comparisons=comparisons)["fvu", CONTROL]
    assert margin.row() | {"interval": None, "mark": "~", "by": "-0.1000", "own": "0.1500 ± .0707"} == margin.row()


def test_what_a_member_lacks_has_no_margin() -> None:
    rows, groups = beside_a_control(TOPK, (1, 2), FROZEN, (3, 4))
    del rows[1]["labels_found"]
    assert found(rows, groups) == {}
    assert margins(seeds(TOPK, (1,)), {}) == []
