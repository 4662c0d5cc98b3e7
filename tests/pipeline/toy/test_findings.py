"""Estimates against closed forms, and verdicts by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.toy.findings import Check, Claim, Estimate, Finding, decide, difference, exact, mean, median, rate


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 100), (41, 100), (100, 100), (7, 10**6)])
def test_rate_has_wilsons_interval(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert (rate(k, n).low, rate(k, n).high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_rate_says_of_how_many() -> None:
    assert str(rate(41, 100)) == "41% (31.9% to 50.8%, 100 seeds)"
    assert str(rate(0, 0)) == "not measured (0 seeds)"
    with pytest.raises(ValueError, match="k = 3 is not in"):
        rate(3, 2)


def test_mean_has_students_interval() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert (found.value, found.low) == pytest.approx((2.0, 2 - 4.302653 / math.sqrt(3)), abs=1e-5)
    assert mean([5.0]).low == -math.inf  # one value says nothing of others
    assert difference([1.0, 2.0], [0.0, 1.0]) == mean([1.0, 1.0])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(2000, 60))
    for estimate, truth in ((mean, 1.0), (median, math.log(2))):
        covered = np.mean([e.low <= truth <= e.high for e in map(estimate, draws)])
        assert 0.92 < covered < 0.98, estimate.__name__


@pytest.mark.parametrize(
    ("low", "high", "relation", "outcome"),
    [
        (0.5, 0.6, "≥", "holds"), (0.4, 0.6, "≥", "open"), (0.3, 0.4, "≥", "fails"),
        (0.51, 0.6, "≤", "fails"), (0.4, 0.6, "≤", "open"), (0.3, 0.5, "≤", "holds"),
    ],
)  # fmt: skip
def test_a_check_is_decided_by_its_whole_interval(low: float, high: float, relation: str, outcome: str) -> None:
    assert Check("x", Estimate(0.5, low, high), relation, 0.5).outcome == outcome  # type: ignore[arg-type]


def _finding(*outcomes: str) -> Finding:
    values = {"holds": 1.0, "fails": -1.0, "open": math.nan}
    return Finding(Claim("c", "s", "S.", lambda _: ()), tuple(Check("x", exact(values[o]), "≥", 0) for o in outcomes))


def test_verdicts() -> None:
    assert _finding("holds", "holds").verdict == "confirmed"
    assert _finding("fails", "fails").verdict == "refuted"
    assert _finding("holds", "fails").verdict == "partly"
    assert _finding("holds", "open").verdict == "partly"
    assert _finding("fails", "open").verdict == "not decided"
    assert _finding("open").verdict == "not decided"


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10))
def test_every_number_has_a_sentence_and_a_json_form(value: float, bound: float) -> None:
    finding = Finding(Claim("c", "s", "S.", lambda _: ()), (Check("what", exact(value), "≤", bound),))
    (check,) = finding.values()["checks"]
    assert check["text"].startswith("what: ")
    assert check["value"] is None or math.isfinite(check["value"])


def test_decide_follows_the_numbers() -> None:
    claim = Claim("more", "s", "There is more.", lambda n: [Check("how much", exact(n["x"]), "≥", 1)])
    assert [decide([claim], {"x": x})[0].verdict for x in (0, 2)] == ["refuted", "confirmed"]
