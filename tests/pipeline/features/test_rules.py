"""Rules of planted features are found as they were planted, and what has no rule gets none that holds on other rows."""

import numpy as np
import pytest
from scipy import sparse

from pipeline.features.rules import NEXT, PREVIOUS, TOKEN, Facts, Rule, Term, named, neighbours, rules

N = 6000
NAMES = ("in a string", "docstring", "name", "keyword")
TEXTS = {5: "self", 6: ".", 7: '<"\n'}


def facts() -> Facts:
    rng = np.random.default_rng(0)
    y = rng.random((N, 4)) < [0.3, 0.1, 0.4, 0.2]
    y[:, 1] &= y[:, 0]  # docstrings are strings
    return Facts(y, rng.integers(-1, 9, (N, 3)).astype(np.int32), rng.random(N) < 0.5)


def fires_where(*where: np.ndarray) -> sparse.csc_array:
    strength = np.random.default_rng(1).uniform(1, 2, (N, len(where)))
    return sparse.csc_array((strength * np.stack(where, axis=1)).astype(np.float32))


def test_a_planted_rule_is_found_and_named() -> None:
    known = facts()
    y, (token, previous, following) = known.Y.T, known.tokens.T
    found = rules(
        fires_where(
            y[0] & y[2], y[0] & ~y[1], token == 5, y[2] & (previous == 6) & ~y[3], (following == 7) & y[3],
            (token == 5) & (previous != 6) & ~y[0], ~y[0] & ~y[2] & y[3],
        ),
        known,
    )  # fmt: skip
    texts = [rule and rule.text(NAMES, TEXTS) for rule in found]
    assert {frozenset(text.split(" and ")) for text in texts if text} == {
        frozenset(text.split(" and "))
        for text in (
            "in a string and name", "in a string and not docstring", 'token is "self"',
            'name and previous token is "." and not keyword', 'keyword and next token is "<\\"\\n"',
            'token is "self" and not in a string and previous token is not "."', "keyword and not in a string and not name",
        )
    }  # fmt: skip
    for rule in found:
        assert rule
        assert (rule.precision, rule.recall, rule.f1, rule.share) == (1, 1, 1, pytest.approx(1))


def test_the_scores_are_of_the_other_half() -> None:
    known = facts()
    active = np.where(known.first, known.Y[:, 0], known.Y[:, 0] & (known.tokens[:, 0] < 4) | known.Y[:, 1])
    (rule,) = rules(fires_where(active), known)
    assert rule
    assert rule.terms == (Term("label", 0),)
    rest = ~known.first
    assert rule.recall == 1
    assert rule.precision == pytest.approx(active[rest].sum() / known.Y[rest, 0].sum())
    assert rule.f1 == pytest.approx(2 * rule.precision / (1 + rule.precision))


def test_the_share_is_of_the_activation() -> None:
    known = facts()
    z = np.where(known.Y[:, 0], 3.0, 0) + np.where(~known.Y[:, 0] & (known.tokens[:, 0] == 3), 1.0, 0)
    (rule,) = rules(sparse.csc_array(z[:, None].astype(np.float32)), known, strength=0.5)
    assert rule
    assert rule.f1 == 1
    rest = z[~known.first]
    assert rule.terms == (Term("label", 0),)
    assert rule.share == pytest.approx((rest == 3).sum() * 3 / rest.sum())


def test_a_feature_that_fires_at_random_has_no_rule() -> None:
    known, rng = facts(), np.random.default_rng(2)
    found = rules(fires_where(*(rng.random(N) < p for p in np.linspace(0.01, 0.45, 100))), known)
    assert all(found)
    assert named(found, 0.7) == 0


def test_a_signed_feature_has_the_rule_of_its_better_sign() -> None:
    known, rng = facts(), np.random.default_rng(4)
    noise, planted = rng.random(N) < 0.1, known.tokens[:, 0] == 5
    z = fires_where(planted & ~noise, noise & ~planted).toarray()
    axes = np.stack([z[:, 0] - z[:, 1], z[:, 1] - z[:, 0], -z[:, 0], z[:, 0]], axis=1)
    codes = sparse.csc_array(axes)
    found = rules(codes, known, signed=True)
    assert [rule and rule.text(NAMES, TEXTS) for rule in found] == [
        'token is "self"', 'negative: token is "self"', 'negative: token is "self"', 'token is "self"'
    ]  # fmt: skip
    first, second, third, _ = found
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.f1 == second.f1 == third.f1 > 0.9
    assert first.share == second.share == pytest.approx(1)
    assert named(found) == 4
    unsigned = rules(codes, known)
    assert unsigned[2] is None
    assert named(unsigned) == 2


def test_the_sign_of_a_rule_is_chosen_on_the_rows_that_it_is_fitted_on() -> None:
    """The negative side is told by the label on the other rows alone."""
    known, rng = facts(), np.random.default_rng(5)
    says = known.Y[:, 0] & (rng.random(N) < 0.9)
    positive = np.where(known.first, says, rng.random(N) < 0.3)
    negative = np.where(known.first, rng.random(N) < 0.3, known.Y[:, 0]) & ~positive
    plus, minus = fires_where(positive, negative).toarray().T
    (rule,) = rules(sparse.csc_array((plus - minus)[:, None]), known, signed=True)
    assert rule is not None
    assert not rule.negative
    assert rule.f1 < 0.5 < 0.9 < rule.fit_f1


def test_a_feature_that_is_hardly_ever_or_mostly_active_has_no_rule() -> None:
    known = facts()
    rare, often = np.zeros(N), np.random.default_rng(0).random(N) < 0.6
    rare[np.flatnonzero(known.first)[:9]] = rare[np.flatnonzero(~known.first)[:500]] = 1
    found = rules(fires_where(rare, often, np.zeros(N), known.Y[:, 0]), known)
    assert found[:3] == [None] * 3
    assert named(found) == 1


def test_no_conjunction_of_two_terms_is_better_on_the_rows_it_is_fitted_on() -> None:
    known, rng = facts(), np.random.default_rng(3)
    active = (
        (known.Y[:, 0] & (rng.random(N) < 0.8)) | (known.Y[:, 2] & (known.tokens[:, 1] == 6)) | (rng.random(N) < 0.05)
    )
    (rule,) = rules(fires_where(active), known)
    assert rule

    def f1(terms: tuple[Term, ...]) -> float:
        said = np.all([known.holds(t, slice(None)) for t in terms], axis=0) & known.first
        return 2 * (said & active).sum() / (said.sum() + (active & known.first).sum())

    places = [Term(of, i, holds) for of in (TOKEN, PREVIOUS, NEXT) for i in range(40) for holds in (True, False)]
    terms = [*places, *(Term("label", i, holds) for i in range(4) for holds in (True, False))]
    assert f1(rule.terms) >= max(f1((a, b)) for a in terms[-8:] for b in terms) - 0.01


def test_neighbours_are_those_of_the_context() -> None:
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6)
    assert neighbours(tokens, (0, 2, 5)).tolist() == [
        [0, -1, 1], [2, 1, 3], [5, 4, -1], [6, -1, 7], [8, 7, 9], [11, 10, -1],
    ]  # fmt: skip


def test_a_rule_reads_as_text() -> None:
    rule = Rule((Term("label", 1, False), Term(PREVIOUS, 6), Term(TOKEN, 99, False)), 1, 1, 1, 1)
    assert rule.text(NAMES, TEXTS) == 'previous token is "." and not docstring and token is not "token 99"'
