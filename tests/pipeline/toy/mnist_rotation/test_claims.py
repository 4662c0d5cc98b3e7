"""The claims of the rotations follow from numbers."""

import copy
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.estimates import unpaired
from pipeline.toy.findings import decide
from pipeline.toy.mnist_rotation.checks_bases import from_few
from pipeline.toy.mnist_rotation.checks_regimes import CHANGES, NAMES
from pipeline.toy.mnist_rotation.claims import CLAIMS
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.training import regimes, small
from tests.pipeline.toy.mutations import check_claims

pytestmark = pytest.mark.slow

AGAINST = {"little"}  # what the other claims say speaks against it


def without_spread(node: Any) -> Any:
    """The same tree; a list of numbers holds their first one only, as often: no interval has a width."""
    if isinstance(node, dict):
        return {key: without_spread(value) for key, value in node.items()}
    if isinstance(node, list) and node and isinstance(node[0], int | float):
        return [node[0]] * len(node)
    return [without_spread(value) for value in node] if isinstance(node, list) else node


def favourable(numbers: dict[str, Any]) -> dict[str, Any]:
    """Numbers under which claims of several checks hold at once, which mutations hardly ever find."""
    points = numbers["descent"]["points"]
    found = without_spread(
        copy.deepcopy({k: v for k, v in numbers.items() if k not in ("rotation", "by_n_fit", "starts")})
    )
    found["descent"]["points"] = points
    chains, last, few = found["chains"], found["descent"]["last"], found["few"]
    for way in ("turn", "back"):
        for layer in ("first", "middle", "last"):
            _set(chains[f"{way}_{layer}"], before=1.0, after=0.5, random=1.0, mass_after=0.5, mass_random=0.1)
    _set(chains["turn_middle"], gain=0.5)
    _set(chains["turn_first"], gain=0.0)
    _set(chains["alone"], gain=0.0)
    _set(chains, identity_turn=1.0, identity_alone=1.0, inputs=1.0, hidden_1=0.9, hidden_2=0.9, null=0.3)
    _set(chains, density_1=1.0, density_2=1.0, same=1.0)
    _set(last, from_identity=1.0, by_mean=1.0, from_random=1.0, solver_from_random=1.0)
    by = found["descent"]["by"]
    by["descent"]["curve"] = [[2.0] * len(curve) for curve in by["descent"]["curve"]]
    by["solver"]["curve"] = [[2.0, 1.0] for _ in by["solver"]["curve"]]
    for way in by.values():
        _set(way, heldout=1.0)
    for row in found["few_inputs"]["rows"]:
        _set(row, fitted=0.2, heldout=0.2)
    for case in found["bounds"].values():
        _set(case, share=1.0)
    _set(found["maps"], before=3.0, from_identity=2.0, from_qr=1.0, invertible_1=1.0, translation=0.0, scaled_1=1.0)
    _set(found["maps"], next_from_identity=2.0, next_invertible_1=1.0, rows_from_identity=2.0, rows_invertible_1=1.0)
    _set(
        found["maps"],
        **{"invertible_0.1": 1.0, "next_invertible_0.1": 1.0, "rows_invertible_0.1": 1.0, "scaled_0.01": 0.0},
    )
    for name, by_name in found["objectives"]["by"].items():
        _set(by_name, **dict.fromkeys(("below_0.01", "below_0.1"), 0.9 if name in ("log", "rational") else 0.1))
    for key in few["mass"]:
        _set(few["mass"], **{key: 0.9})
        _set(few["needed"], **{key: 30 if key.endswith("neurons") else 10})
    _set(few, full=0.9)
    for case in few["at"].values():
        _set(case, accuracy=0.9, same=1.0)
    for part in [part for part in found if part.startswith("regime_")]:
        _set(found[part], loss=0.0, after=1.0, before=2.0, gain=0.5, mass_before=0.1, mass_after=0.2)
    for key in found["attacked"]:
        _set(found["attacked"], **{key: 0.9 if key.startswith("rotated") else 0.5})
    for key in found["finetuned"]:
        if key.endswith("accuracy"):
            _set(found["finetuned"], **{key: 0.9})
    return found


def _set(node: dict[str, Any], **values: float) -> None:
    for key, value in values.items():
        node[key] = [value] * len(node[key])


@pytest.mark.slow
def test_claims_follow_from_the_numbers(numbers: dict[str, Any]) -> None:
    found = favourable(numbers)
    check_claims([claim for claim in CLAIMS if claim.name not in AGAINST], found, n_mutations=60)
    for layer in ("first", "middle", "last"):
        _set(found["chains"][f"turn_{layer}"], gain=0.0)
    check_claims([claim for claim in CLAIMS if claim.name in AGAINST], found, n_mutations=60)


def test_the_favourable_numbers_confirm_the_claims(numbers: dict[str, Any]) -> None:
    found = {finding.claim.name: finding.verdict for finding in decide(CLAIMS, favourable(numbers))}
    assert {name for name, verdict in found.items() if verdict != "confirmed"} == AGAINST


@pytest.mark.parametrize("n_intervals", [1, 26])
def test_an_unpaired_difference_has_the_interval_of_welchs_test(n_intervals: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.1, 32).tolist(), rng.normal(0.5, 2.0, 9).tolist()
    found = unpaired(a, b, "", n_intervals)
    wanted = stats.ttest_ind(a, b, equal_var=False).confidence_interval(1 - 0.05 / n_intervals)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.value == pytest.approx(np.mean(a) - np.mean(b))


def test_the_changes_compare_every_kind_and_kinds_that_differ_in_one_thing() -> None:
    kinds = regimes(Settings())
    pairs = [pair for group in CHANGES.values() for pair in group]
    assert {name for pair in pairs for name in pair} == set(kinds) == set(NAMES)
    assert kinds["plain"] == small(Settings())
    for more, less in pairs:
        assert sum(vars(kinds[more])[key] != vars(kinds[less])[key] for key in vars(kinds[more])) == 1


def test_a_share_of_a_gain_of_nothing_is_not_measured() -> None:
    """Rotations that are no sparser than neurons are not taken, so that their gain is 0."""
    rows = [{"n": n, "heldout": [0.2, 0.0], "fitted": [0.2, 0.0]} for n in (1, 64)]
    (check,) = from_few(0)({"few_inputs": {"rows": rows}})
    assert check.outcome == "open"
    assert "not measured" in str(check)
