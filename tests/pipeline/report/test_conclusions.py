"""What is said follows from the numbers."""

from typing import Any

from pipeline.report.conclusions import conclusions
from tests.pipeline.report.made import comparison, group, pair, row

TOPK, FROZEN = "topk-d64-k8", "topk-d64-k8-frozen_decoder"


def texts(kind: str, rows: list[dict], **scores: Any) -> list[str]:
    return [one["text"] for one in conclusions(rows, scores) if one["kind"] == kind]


def seeds(name: str, counts: tuple[int, ...]) -> list[dict]:
    return [row(f"{name}-s{seed}", 64, labels_found=found) for seed, found in enumerate(counts)]


def beside_a_control(ours: tuple[int, ...], theirs: tuple[int, ...], kind: str) -> list[str]:
    rows = seeds(TOPK, ours) + seeds(FROZEN, theirs)
    groups = [
        group(TOPK, [f"{TOPK}-s{seed}" for seed in range(len(ours))], controls=[FROZEN]),
        group(FROZEN, [f"{FROZEN}-s{seed}" for seed in range(len(theirs))], control="frozen decoder"),
    ]
    return texts(kind, rows, groups=groups)


def test_a_count_no_better_than_the_control_s_is_a_doubt() -> None:
    (doubt,) = beside_a_control((10, 12, 14), (9, 11, 13), "doubt")
    assert doubt.startswith(
        f"Labels with one feature of F1 ≥ .9: {TOPK} 12.0, its best control, {FROZEN}, 11.0: better by 1.0"
    )
    assert doubt.endswith("no margin that counts.")
    assert beside_a_control((10, 12, 14), (30, 31, 32), "doubt")[0].endswith("worse.")
    assert not beside_a_control((20, 21, 22), (9, 10, 11), "doubt")
    # Welch: 11 ± t(.975, df 4) of 1 sqrt(2 / 3)
    assert beside_a_control((20, 21, 22), (9, 10, 11), "finding")[0].endswith("better by 11.0 (8.7 to 13.3).")


def test_of_one_seed_no_margin_is_known() -> None:
    assert "nothing is known of its spread" in beside_a_control((20,), (3, 4, 5), "doubt")[0]


def test_what_has_no_control_beside_it_is_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64, rules_found=9), row("neuron_basis", 16, rules_found=3)]
    groups = [group("topk-d64-k8-s0", ["topk-d64-k8-s0"]), group("neuron_basis", ["neuron_basis"], exact=True)]
    none, one_seed = texts("doubt", rows, groups=groups)
    assert none == "No control was scored of topk-d64-k8-s0."
    assert "the best basis that is not sparse, neuron_basis, 3.0" in one_seed


def test_comparisons_of_the_scores_are_said_as_they_are() -> None:
    rows = seeds(TOPK, (1, 2))
    near, clear = (
        comparison("control", TOPK, FROZEN, 0.001, -0.002, 0.004),
        comparison("control", TOPK, FROZEN, 0.02, 0.01, 0.03),
    )
    assert texts("doubt", rows, comparisons=[near]) == [
        f"FVU: {TOPK} beside its best control, {FROZEN}: better by 0.0010 (-0.0020 to 0.0040), no margin that counts."
    ]
    assert texts("finding", rows, comparisons=[clear])[0].endswith("better by 0.0200 (0.0100 to 0.0300).")
    unknown = comparison("next", TOPK, "relu_l1-d64", 0.02, None, None)
    assert "nothing is known" in texts("finding", rows, comparisons=[unknown])[0]


def test_seeds_no_closer_than_chance_are_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64), row("topk-d64-k8-s1", 64)]
    assert texts("doubt", rows, pairs=[pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.21)])
    assert texts("finding", rows, pairs=[pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.7)])


def test_warnings_and_marks_come_first() -> None:
    rows = [row("topk-d64-k8-s0", 64, warnings=["w"]), row("topk-d64-k8-s1", 64, marks=["m"])]
    said = conclusions(rows, {"pairs": [pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.7)]})
    assert [one["text"] for one in said[:2]] == ["topk-d64-k8-s0: w", "topk-d64-k8-s1: m"]
    assert [one["kind"] for one in said] == ["doubt", "doubt", "finding"]
