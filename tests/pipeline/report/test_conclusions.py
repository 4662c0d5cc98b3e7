"""What is said follows from the numbers."""

from typing import Any

from pipeline.report.conclusions import conclusions
from pipeline.report.margins import margins
from tests.pipeline.report.made import beside_a_control, comparison, group, pair, row, seeds

TOPK, FROZEN = "topk-d64-k8", "topk-d64-k8-frozen_decoder"


def texts(kind: str, rows: list[dict], **scores: Any) -> list[str]:
    scores = {"dictionaries": rows, "pairs": [], **scores}
    return [one["text"] for one in conclusions(rows, scores, margins(rows, scores)) if one["kind"] == kind]


def said(kind: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> list[str]:
    rows, groups = beside_a_control(TOPK, ours, FROZEN, theirs)
    return texts(kind, rows, groups=groups)


def test_where_a_margin_is_nothing_it_is_said_first() -> None:
    best = f"its best control, {FROZEN}"
    assert said("doubt", (10, 12, 14), (9, 11, 13)) == [
        f"Labels with one feature of F1 ≥ .9: no margin over {best}, 11.0 ± 2.0: {TOPK} 12.0 ± 2.0 (+1.0)."
    ]
    assert said("doubt", (10, 12, 14), (30, 31, 32))[0].endswith(f"{TOPK} 12.0 ± 2.0 (-19.0).")
    assert said("doubt", (20, 21, 22), (9, 10, 11)) == []
    # Welch: 11 ± t(.975, df 4) of 1 sqrt(2 / 3)
    assert said("finding", (20, 21, 22), (9, 10, 11))[0].endswith("10.0 ± 1.0: better by 11.0 (8.7 to 13.3).")


def test_of_one_seed_a_margin_above_zero_is_no_nothing_but_its_spread_is_not_known() -> None:
    (doubt,) = said("doubt", (20,), (3, 4, 5))
    assert doubt == f"One seed alone: {TOPK}. Nothing is known of the spread of their scores."
    assert "no margin" in said("doubt", (3,), (3, 4, 5))[0]


def test_those_that_are_no_better_than_the_same_are_one_sentence() -> None:
    rows = [row("a-s0", 64, rules_found=3), row("b-s0", 64, rules_found=2), row("neuron_basis", 16, rules_found=3)]
    groups = [group(name, [name], controls=["c"]) for name in ("a-s0", "b-s0")] + [
        group("neuron_basis", ["neuron_basis"])
    ]
    (first, _) = texts("doubt", rows, groups=groups)
    assert first == (
        "Features with a rule of F1 ≥ .7: no margin over the best basis that is not sparse, neuron_basis, 3.0: "
        "a-s0 3.0 (+0.0), b-s0 2.0 (-1.0)."
    )


def test_what_has_no_control_beside_it_is_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64, rules_found=9), row("neuron_basis", 16, rules_found=3)]
    groups = [group("topk-d64-k8-s0", ["topk-d64-k8-s0"]), group("neuron_basis", ["neuron_basis"], exact=True)]
    none, one_seed = texts("doubt", rows, groups=groups)
    assert none.startswith("No control was trained of topk-d64-k8-s0")
    assert one_seed.startswith("One seed alone: topk-d64-k8-s0.")


def test_comparisons_of_the_scores_are_said_as_they_are() -> None:
    rows, groups = beside_a_control(TOPK, (1, 2), FROZEN, (3, 4))
    near, clear = (
        comparison("control", TOPK, FROZEN, 0.001, -0.002, 0.004),
        comparison("control", TOPK, FROZEN, 0.02, 0.01, 0.03),
    )
    assert texts("doubt", rows, groups=groups, comparisons=[near])[0] == (
        f"FVU: no margin over its best control, {FROZEN}, 0.0500 ± .0000: {TOPK} 0.0500 ± .0000 (+0.0010)."
    )
    assert texts("finding", rows, groups=groups, comparisons=[clear])[0].endswith(
        "better by 0.0200 (0.0100 to 0.0300)."
    )
    unknown = comparison("next", TOPK, "relu_l1-d64", 0.02, None, None)
    assert "nothing is known" in texts("finding", rows, comparisons=[unknown])[0]


def test_seeds_no_closer_than_chance_are_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64), row("topk-d64-k8-s1", 64)]
    assert texts("doubt", rows, pairs=[pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.21)])
    assert texts("finding", rows, pairs=[pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.7)])


def test_margins_that_are_nothing_come_first_then_warnings_and_marks() -> None:
    rows = [*seeds(TOPK, (3, 3), warnings=["w"]), row("neuron_basis", 16, labels_found=4, marks=["m"])]
    groups = [group(TOPK, [f"{TOPK}-s{i}" for i in range(2)], controls=["c"]), group("neuron_basis", ["neuron_basis"])]
    scores = {"groups": groups, "pairs": [pair(f"{TOPK}-s0", f"{TOPK}-s1", 0.7)]}
    found = conclusions(rows, scores, margins(rows, scores))
    assert "no margin" in found[0]["text"]
    assert [one["text"] for one in found[1:4]] == [f"{TOPK}-s0: w", f"{TOPK}-s1: w", "neuron_basis: m"]
    assert [one["kind"] for one in found] == ["doubt"] * 4 + ["finding"]
