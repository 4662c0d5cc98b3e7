"""Groups of seeds, their controls, and which differences count."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.score.spread import summary

SITE = "blocks.0.hook_resid_post"
TRAINED, DECODER, COVARIANCE = [0.10, 0.12, 0.11], [0.20, 0.24, 0.22], [0.5, 0.5, 0.53]


def seeds(method: str, label: str, fvu: list[float], l0: float = 32.0, **settings: Any) -> list[tuple[dict, dict]]:
    """Rows and settings of one dictionary for each value."""
    return [
        (
            {
                "site": SITE,
                "name": f"{label}-s{i}",
                "method": method,
                "d_sae": 64,
                "l0": l0,
                "fvu": value,
                "dead": i,
                "sparse": True,
            },
            {"d_sae": 64, "k": 32, "frozen": None, **settings, "seed": i},
        )
        for i, value in enumerate(fvu)
    ]


def one(method: str, fvu: float, l0: float) -> list[tuple[dict, dict]]:
    row = {"site": SITE, "name": method, "method": method, "d_sae": 64, "l0": l0, "fvu": fvu, "dead": 0, "sparse": True}
    return [(row, {"n_rows": 10})]


def found(*parts: list[tuple[dict, dict]], pairs: tuple[dict, ...] = ()) -> tuple[dict[str, dict], list[dict]]:
    rows, settings = zip(*(item for part in parts for item in part), strict=True)
    both = summary(rows, settings, pairs)
    return {group["name"]: group for group in both["groups"]}, both["comparisons"]


def compared(comparisons: list[dict], relation: str, a: str, score: str = "fvu") -> dict | None:
    same = [c for c in comparisons if (c["relation"], c["a"], c["score"]) == (relation, a, score)]
    assert len(same) <= 1
    return same[0] if same else None


ALL = (
    seeds("topk", "topk-d64", TRAINED),
    seeds("topk", "topk-d64-frozen_decoder", DECODER, frozen="decoder"),
    seeds("covariance", "covariance-d64-k32", COVARIANCE, l0=30.0),
)


def test_a_score_has_its_mean_spread_and_students_interval() -> None:
    groups, _ = found(*ALL)
    fvu = groups["topk-d64"]["scores"]["fvu"]
    low, high = stats.t.interval(0.95, 2, np.mean(TRAINED), stats.sem(TRAINED))
    assert (fvu["mean"], fvu["std"]) == pytest.approx((0.11, 0.01))
    assert (fvu["low"], fvu["high"]) == pytest.approx((low, high), abs=1e-6)
    assert groups["topk-d64"]["names"] == [f"topk-d64-s{i}" for i in range(3)]
    assert groups["topk-d64"]["scores"]["dead"]["mean"] == 1


def test_the_margin_is_over_the_best_control_with_welchs_interval() -> None:
    groups, comparisons = found(*ALL)
    assert groups["topk-d64"]["controls"] == ["topk-d64-frozen_decoder", "covariance-d64-k32"]
    margin = compared(comparisons, "control", "topk-d64")
    assert margin
    wanted = stats.ttest_ind(DECODER, TRAINED, equal_var=False).confidence_interval()
    assert (margin["b"], margin["apart"]) == ("topk-d64-frozen_decoder", True)
    assert margin["difference"] == pytest.approx(0.11)
    assert (margin["low"], margin["high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert compared(comparisons, "control", "topk-d64-frozen_decoder") is None


def test_a_control_that_is_better_has_a_negative_margin() -> None:
    better = seeds("topk", "topk-d64-frozen_encoder", [0.05, 0.06, 0.05], frozen="encoder")
    margin = compared(found(*ALL, better)[1], "control", "topk-d64")
    assert margin
    assert (margin["b"], margin["apart"], round(margin["difference"], 4)) == ("topk-d64-frozen_encoder", True, -0.0567)


def test_a_control_of_another_family_counts_where_it_is_as_sparse_and_a_twin_always() -> None:
    relu = seeds("relu_l1", "relu_l1-d64", [0.15])
    twin = seeds("relu_l1", "relu_l1-d64-frozen_decoder", [0.9], l0=9.0, frozen="decoder")
    groups, comparisons = found(*ALL, relu, twin)
    assert set(groups["relu_l1-d64-s0"]["controls"]) == {
        "relu_l1-d64-frozen_decoder-s0",
        "topk-d64-frozen_decoder",
        "covariance-d64-k32",
    }
    margin = compared(comparisons, "control", "relu_l1-d64-s0")
    assert margin
    assert margin["b"] == "topk-d64-frozen_decoder"


def test_of_another_size_or_sparsity_or_kind_is_no_control() -> None:
    strangers = (
        seeds("covariance", "covariance-d64-k64", [0.3], l0=64.0),
        [(row | {"d_sae": 128}, own | {"d_sae": 128}) for row, own in seeds("covariance", "covariance-d128", [0.3])],
        seeds("topk", "topk-k16-frozen_decoder", [0.3], l0=16, frozen="decoder", k=16),
        seeds("relu_l1", "relu_l1-frozen_decoder", [0.3], l0=50.0, frozen="decoder"),
        one("random", 0.3, 32.0),
    )
    groups, comparisons = found(seeds("topk", "topk-d64", TRAINED), *strangers)
    assert groups["topk-d64"]["controls"] == []
    assert compared(comparisons, "control", "topk-d64") is None


def test_a_difference_within_the_spread_is_marked() -> None:
    near = [value + 0.001 for value in TRAINED]
    _, comparisons = found(*ALL, seeds("relu_l1", "relu_l1-d64", near))
    next_one = compared(comparisons, "next", "topk-d64")
    assert next_one
    assert (next_one["b"], next_one["apart"]) == ("relu_l1-d64", False)
    after = compared(comparisons, "next", "relu_l1-d64")
    assert after
    assert (after["b"], after["apart"]) == ("topk-d64-frozen_decoder", True)
    assert compared(comparisons, "next", "covariance-d64-k32") is None  # the worst


def test_what_is_far_less_sparse_is_not_next() -> None:
    _, comparisons = found(*ALL, one("pca", 0.15, 64.0))
    next_one = compared(comparisons, "next", "topk-d64")
    assert next_one
    assert next_one["b"] == "topk-d64-frozen_decoder"


def test_bases_are_compared_with_nothing() -> None:
    dense = [({**row, "sparse": False}, own) for row, own in one("pca", 0.0, 64.0) + one("neuron_basis", 0.0, 64.0)]
    assert found(dense)[1] == []


def test_of_one_seed_nothing_is_known() -> None:
    groups, comparisons = found(seeds("topk", "topk-d64", [0.1]), seeds("relu_l1", "relu_l1-d64", [0.9]))
    fvu = groups["topk-d64-s0"]["scores"]["fvu"]
    assert fvu == {"mean": 0.1, "std": None, "low": None, "high": None}
    next_one = compared(comparisons, "next", "topk-d64-s0")
    assert next_one
    assert (next_one["low"], next_one["high"], next_one["apart"]) == (None, None, False)


def test_a_method_without_a_seed_is_exact() -> None:
    groups, comparisons = found(seeds("topk", "topk-d64", TRAINED), one("pca", 0.15, 32.0))
    assert groups["pca"]["scores"]["fvu"] == {"mean": 0.15, "std": 0.0, "low": 0.15, "high": 0.15}
    next_one = compared(comparisons, "next", "topk-d64")
    assert next_one
    interval = stats.ttest_1samp(TRAINED, 0.15).confidence_interval()
    assert (next_one["low"], next_one["high"]) == pytest.approx((0.15 - interval.high, 0.15 - interval.low), abs=1e-6)


def test_mmcs_is_the_mean_over_pairs_with_the_jackknifes_spread() -> None:
    names = [f"topk-d64-s{i}" for i in range(3)]
    value = {(0, 1): 0.5, (1, 0): 0.6, (0, 2): 0.7, (2, 0): 0.4, (1, 2): 0.8, (2, 1): 0.9}
    pairs = [{"site": SITE, "a": names[a], "b": names[b], "relation": "seed", "mmcs": v} for (a, b), v in value.items()]
    mmcs = found(ALL[0], pairs=tuple(pairs))[0]["topk-d64"]["scores"]["mmcs"]
    without = np.array([0.85, 0.55, 0.55])  # the pair that is left without each seed
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert mmcs["mean"] == pytest.approx(0.65)
    assert mmcs["std"] == pytest.approx(np.sqrt(3) * error, abs=1e-6)
    assert mmcs["high"] - mmcs["mean"] == pytest.approx(stats.t.ppf(0.975, 2) * error, abs=1e-6)
    assert "mmcs" not in found(ALL[0], pairs=tuple(pairs[:3]))[0]["topk-d64"]["scores"]


def test_two_seeds_are_one_pair_whose_mmcs_has_no_spread() -> None:
    pairs = [
        {"site": SITE, "a": f"topk-s{a}", "b": f"topk-s{1 - a}", "relation": "seed", "mmcs": 0.5 + a / 10}
        for a in (0, 1)
    ]
    groups, _ = found(seeds("topk", "topk", [0.1, 0.2]), pairs=tuple(pairs))
    assert groups["topk"]["scores"]["mmcs"] == {"mean": 0.55, "std": None, "low": None, "high": None}


def test_a_score_that_is_not_there_for_all_is_left_out() -> None:
    own = seeds("topk", "topk-d64", TRAINED)
    own[0][0]["kl"] = 0.3
    own[0][0]["ultra_low_density"] = None
    groups, _ = found(own)
    assert set(groups["topk-d64"]["scores"]) == {"l0", "fvu", "dead"}
    assert math.isfinite(groups["topk-d64"]["scores"]["l0"]["std"])


def test_settings_that_no_name_tells_are_groups_of_their_own() -> None:
    first, second = seeds("topk", "topk-d64", [0.1, 0.2], lr=1.0), seeds("topk", "topk-d64", [0.1] * 4, lr=2.0)[2:]
    groups, _ = found(first, second)
    assert {name: group["names"] for name, group in groups.items()} == {
        "topk-d64": ["topk-d64-s0", "topk-d64-s1"],
        "topk-d64-s2": ["topk-d64-s2", "topk-d64-s3"],
    }


def test_counts_that_agree_over_seeds_have_an_interval() -> None:
    zero, one_dead = (
        [({**row, "dead": n}, own) for row, own in seeds("topk", f"n{n}", [0.1, 0.2], lr=n)] for n in (0, 1)
    )
    groups, comparisons = found(zero, one_dead)
    half = stats.t.ppf(0.975, 1) * (1 / 12 / 2) ** 0.5
    assert groups["n0"]["scores"]["dead"] == pytest.approx({"mean": 0, "std": 0, "low": -half, "high": half}, abs=1e-6)
    margin = compared(comparisons, "next", "n0", "dead")
    assert margin
    assert (margin["difference"], margin["apart"]) == (1, False)
