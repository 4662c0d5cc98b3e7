"""What is said follows from the numbers."""

from pipeline.report.conclusions import conclusions
from tests.pipeline.report.made import pair, row


def texts(kind: str, rows: list[dict], pairs: list[dict] | None = None) -> list[str]:
    return [one["text"] for one in conclusions(rows, pairs or []) if one["kind"] == kind]


def test_a_margin_no_larger_than_the_spread_is_a_doubt() -> None:
    def rows(control: int) -> list[dict]:
        seeds = [row(f"topk-d64-k8-s{seed}", 64, labels_found=found) for seed, found in enumerate((10, 14))]
        return [*seeds, row("topk-d64-k8-frozen-s0", 64, labels_found=control, control="frozen decoder")]

    (doubt,) = texts("doubt", rows(8))  # 12 - 8 = 14 - 10
    assert "no margin that counts" in doubt
    assert "topk-d64-k8 12 (10 to 14 over 2 seeds), the best control, topk-d64-k8-frozen, 8 (one seed)" in doubt
    assert not texts("doubt", rows(7))
    assert "a margin of 5." in texts("finding", rows(7))[0]


def test_what_has_no_control_beside_it_is_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64, rules_found=9), row("neuron_basis", 16, rules_found=3)]
    assert texts("doubt", rows) == ["No control was scored beside the trained dictionaries."]
    assert "the best basis that is not sparse, neuron_basis, 3" in texts("finding", rows)[0]


def test_families_are_compared_at_equal_size_and_l0_alone() -> None:
    topk = [row(f"topk-d64-k8-s{seed}", 64, fvu=fvu) for seed, fvu in enumerate((0.05, 0.06))]
    relu = [row(f"relu_l1-d64-s{seed}", 64, fvu=fvu) for seed, fvu in enumerate((0.08, 0.085))]
    (said,) = texts("finding", topk + relu)
    assert said == "topk-d64-k8 has FVU 0.0550, relu_l1-d64 0.0825, at L0 8.0 and 8.0; the spread over seeds is 0.0100."
    close = [one | {"fvu": one["fvu"] - 0.02} for one in relu]
    assert "no more than the spread over seeds, 0.0100" in texts("doubt", topk + close)[0]
    assert not conclusions(topk + [one | {"l0": 12.0} for one in relu], [])
    assert not conclusions(topk + [one | {"d_sae": 128} for one in relu], [])


def test_seeds_no_closer_than_chance_are_a_doubt() -> None:
    rows = [row("topk-d64-k8-s0", 64), row("topk-d64-k8-s1", 64)]
    assert texts("doubt", rows, [pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.21)])
    assert texts("finding", rows, [pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.7)])


def test_warnings_and_marks_come_first() -> None:
    rows = [row("topk-d64-k8-s0", 64, warnings=["w"]), row("topk-d64-k8-s1", 64, marks=["m"])]
    said = conclusions(rows, [pair("topk-d64-k8-s0", "topk-d64-k8-s1", 0.7)])
    assert [one["text"] for one in said[:2]] == ["topk-d64-k8-s0: w", "topk-d64-k8-s1: m"]
    assert [one["kind"] for one in said] == ["doubt", "doubt", "finding"]
