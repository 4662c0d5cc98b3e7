"""What makes a feature fire, as a rule: up to three terms over labels and over the texts of a token and its neighbours.

    token is "self"      in a string and not docstring      name and previous token is "." and not called name

A rule is fitted on the rows of one half and measured on those of the other. Terms are sets of rows, kept as bits: a rule
and all that are a term longer are compared with a feature by counting bits.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, Integer, UInt64
from scipy import sparse

from pipeline.features.probing import both_signs
from pipeline.progress import progress

LABEL, TOKEN, PREVIOUS, NEXT = "label", "token", "previous token", "next token"
PLACES = (TOKEN, PREVIOUS, NEXT)
NEGATIVE = "negative: "  # with which a text begins that says where a signed feature is negative
MAX_TERMS = 3
_BEAM = 4  # rules of each length that are made longer
_TEXTS = 6  # texts of each place that are tried as terms, and half as many to be ruled out
_GAIN = 0.01  # of F1, that a further term has to give
_LEAST_ACTIVE = 10  # rows of each half on which a feature with a rule is active


class Term(NamedTuple):
    """of: LABEL or one of PLACES. which: the label's number, or the token's id. holds: False where it is negated."""

    of: str
    which: int
    holds: bool = True


@dataclass(frozen=True)
class Facts:
    """What rules speak of. tokens: (n_rows, 3) ids at PLACES, -1 for none. first: the rows that rules are fitted on."""

    Y: Bool[np.ndarray, "n_rows n_labels"]
    tokens: Int32[np.ndarray, "n_rows 3"]
    first: Bool[np.ndarray, " n_rows"]

    @cached_property
    def label_bits(self) -> UInt64[np.ndarray, "n_labels n_words"]:
        """Of the first half."""
        return _bits(np.ascontiguousarray(self.Y[self.first].T))

    @cached_property
    def fitted_tokens(self) -> Int32[np.ndarray, "n 3"]:
        return self.tokens[self.first]

    def holds(self, term: Term, rows: Integer[np.ndarray, " n"] | slice) -> Bool[np.ndarray, " n"]:
        own = self.Y[rows, term.which] if term.of == LABEL else self.tokens[rows, PLACES.index(term.of)] == term.which
        return own == term.holds


@dataclass(frozen=True)
class Rule:
    """All terms hold. The scores are of the rows that the rule was not fitted on; share: how much of the feature's summed
    activation, weak ones too, lies on rows where the rule holds. fit_f1: of the rows that it was fitted on. negative: it
    says where a signed feature is negative, and so do its scores."""

    terms: tuple[Term, ...]
    precision: float
    recall: float
    f1: float
    share: float
    fit_f1: float = 0.0
    negative: bool = False

    def text(self, names: Sequence[str], texts: Mapping[int, str]) -> str:
        """names: of the labels. texts: of the tokens."""
        return (NEGATIVE if self.negative else "") + " and ".join(
            ("" if t.holds or t.of != LABEL else "not ")
            + (names[t.which] if t.of == LABEL else f"{t.of} is {'' if t.holds else 'not '}{_quoted(texts, t.which)}")
            for t in sorted(self.terms, key=lambda t: not t.holds)
        )


def neighbours(tokens: Int32[np.ndarray, "n_sequences context"], positions: Sequence[int]) -> Int32[np.ndarray, "n 3"]:
    """The ids at PLACES of each row of a store; -1 beyond the ends of a context."""
    wide, at = np.pad(tokens, ((0, 0), (1, 1)), constant_values=-1), np.array(positions) + 1
    return np.stack([wide[:, at], wide[:, at - 1], wide[:, at + 1]], axis=-1).reshape(-1, len(PLACES))


def rules(codes: sparse.csc_array, facts: Facts, strength: float = 0.2, *, signed: bool = False) -> list[Rule | None]:
    """The rule of each feature for where it is active: its code is positive, and at least strength times its largest
    value on the first half. Activations that are weaker than that are noise more often than not. signed: a feature may
    have its rule for where it is negative instead, whichever sign has the larger F1 on the first half.

    None: it is active on fewer than 10 rows of a half, or on more than half of the first, where saying "always" would
    be a rule of F1 2/3.
    """
    n_features = cast(tuple[int, int], codes.shape)[1]
    if signed:
        found = rules(both_signs(codes), facts, strength)
        return [_better(*pair) for pair in zip(found[:n_features], found[n_features:], strict=True)]
    search = _Search(facts)
    columns = zip(codes.indptr[:-1].tolist(), codes.indptr[1:].tolist())
    found: list[Rule | None] = []
    for a, b in progress(columns, total=n_features, desc="rules", unit="feature"):
        rows, values = codes.indices[a:b], codes.data[a:b]
        fitted = facts.first[rows]
        active = (values > 0) & (values >= strength * values[fitted].max(initial=0))
        n_fitted, n_rest = int((fitted & active).sum()), int((~fitted & active).sum())
        if min(n_fitted, n_rest) < _LEAST_ACTIVE or n_fitted > facts.first.sum() / 2:
            found.append(None)
            continue
        terms, fit_f1 = search.best(rows[fitted & active])
        found.append(_measured(terms, fit_f1, facts, rows[~fitted], np.maximum(values[~fitted], 0), active[~fitted]))
    return found


def _better(positive: Rule | None, negative: Rule | None) -> Rule | None:
    """Of a feature's two signs that with the larger F1 on the first half: the other rows have no say in it."""
    if negative is None or (positive is not None and positive.fit_f1 >= negative.fit_f1):
        return positive
    return replace(negative, negative=True)


def named(found: Sequence[Rule | None], least: float = 0.7) -> int:
    """How many features have a rule of at least this F1."""
    return sum(rule is not None and rule.f1 >= least for rule in found)


class _Search:
    """The best rule by F1 on the first half: of each length a few rules are kept and made longer by every term."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.labels = facts, [Term(LABEL, i) for i in range(facts.Y.shape[1])]
        self.place = np.cumsum(facts.first) - 1  # of a row in the first half
        self.n_rows = int(facts.first.sum())
        self.n_of = [np.bincount(ids[ids >= 0]) for ids in facts.fitted_tokens.T]
        self.bits: dict[Term, np.ndarray] = {}

    def best(self, rows: Integer[np.ndarray, " n"]) -> tuple[tuple[Term, ...], float]:
        """(terms, their F1). rows: of the first half, where the feature is active."""
        mask = np.zeros(self.n_rows, bool)
        mask[self.place[rows]] = True
        active, n_active = _bits(mask), len(rows)
        texts = list(self._texts(self.place[rows]))
        beam = [((), _bits(np.ones(self.n_rows, bool)), n_active, self.n_rows)]
        chosen, best_f1 = (), -1.0  # the first term is taken in any case
        for length in range(1, MAX_TERMS + 1):
            if length > 1:
                texts = list(dict.fromkeys([*texts, *self._ruled_out(beam[0][1] & ~active)]))
            sets = np.concatenate([self.facts.label_bits, *(self._bits_of(t)[None] for t in texts)])
            beam = self._longer(beam, [*self.labels, *texts], sets, active, n_active)
            rule, _, n_true, n_said = beam[0]
            if (f1 := 2 * n_true / (n_active + n_said)) > best_f1 + _GAIN:
                chosen, best_f1 = rule, f1
        return chosen, best_f1

    def _longer(self, beam: list, terms: list[Term], sets: np.ndarray, active: np.ndarray, n_active: int) -> list:
        """The best rules that are a term longer, each (terms, its rows, how many of them are active, how many they are)."""
        both = sets & np.stack([held for _, held, _, _ in beam])[:, None]
        said, true = _count(both), _count(both & active)
        n_true, n_said = np.array([counts for _, _, *counts in beam]).T[..., None]
        true, said = np.stack([true, n_true - true], 1), np.stack([said, n_said - said], 1)  # (rule, term or not, term)
        f1 = 2 * true / (n_active + said)
        found, seen = [], set()
        for at in np.argsort(-f1, axis=None, kind="stable")[: 4 * _BEAM].tolist():
            i, negated, j = np.unravel_index(at, f1.shape)
            rule = (*beam[i][0], terms[j]._replace(holds=not negated))
            if (key := frozenset(rule)) in seen or len(key) < len(rule):
                continue
            seen.add(key)
            held = beam[i][1] & ~sets[j] if negated else beam[i][1] & sets[j]
            found.append((rule, held, int(true[i, negated, j]), int(said[i, negated, j])))
            if len(found) == _BEAM:
                break
        return found

    def _texts(self, at: Int64[np.ndarray, " n"]) -> Iterator[Term]:
        """The texts of each place that tell most of the feature by themselves. at: where it is active."""
        for of, ids, n_of in zip(PLACES, self.facts.fitted_tokens.T, self.n_of):
            found, n_true = np.unique(ids[at], return_counts=True)
            found, n_true = found[found >= 0], n_true[found >= 0]
            f1 = n_true / (len(at) + n_of[found])
            yield from (Term(of, i) for i in found[np.argsort(-f1, kind="stable")[:_TEXTS]].tolist())

    def _ruled_out(self, wrong: UInt64[np.ndarray, " n_words"]) -> Iterator[Term]:
        """The most frequent texts of each place. wrong: where a rule holds and the feature is not active."""
        rows = np.flatnonzero(np.unpackbits(wrong.view(np.uint8), count=self.n_rows))
        for of, ids in zip(PLACES, self.facts.fitted_tokens[rows].T):
            counts = np.bincount(ids[ids >= 0])
            found = np.argsort(-counts, kind="stable")[: _TEXTS // 2]
            yield from (Term(of, i) for i in found[counts[found] > 0].tolist())

    def _bits_of(self, term: Term) -> UInt64[np.ndarray, " n_words"]:
        if term not in self.bits:
            self.bits[term] = _bits(self.facts.fitted_tokens[:, PLACES.index(term.of)] == term.which)
        return self.bits[term]


def _measured(
    terms: tuple[Term, ...],
    fit_f1: float,
    facts: Facts,
    rows: Integer[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    active: Bool[np.ndarray, " n"],
) -> Rule:
    """rows, values: of the other half, where the feature is not zero."""
    said = np.all([~facts.first, *(facts.holds(t, slice(None)) for t in terms)], axis=0)
    n_said, n_active, share = int(said.sum()), int(active.sum()), float(values[said[rows]].sum() / values.sum())
    n_true = int((said[rows] & active).sum())
    return Rule(terms, n_true / max(n_said, 1), n_true / n_active, 2 * n_true / (n_said + n_active), share, fit_f1)


def _bits(held: Bool[np.ndarray, "*more n"]) -> UInt64[np.ndarray, "*more n_words"]:
    packed = np.packbits(held, axis=-1)
    whole = np.zeros((*packed.shape[:-1], -(-packed.shape[-1] // 8) * 8), np.uint8)
    whole[..., : packed.shape[-1]] = packed
    return whole.view(np.uint64)


def _count(sets: UInt64[np.ndarray, "n_rules n n_words"]) -> Int64[np.ndarray, "n_rules n"]:
    return np.bitwise_count(sets).sum(-1, dtype=np.int64)


def _quoted(texts: Mapping[int, str], token: int) -> str:
    return json.dumps(texts.get(token, f"token {token}"), ensure_ascii=False)
