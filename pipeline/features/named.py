"""What single features say of labels: probes of a dictionary, and each feature's best label and rule."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import sparse

from pipeline.features.files import lists, texts
from pipeline.features.labels.rows import Labelled, halves, labelled_rows
from pipeline.features.labels.spans import Labeller
from pipeline.features.probes import Probe, all_coordinates, best_feature, best_label, few_features, single_scores
from pipeline.features.rules import Facts, neighbours, rules
from pipeline.features.shuffled import densest, shuffled
from stores.activations import ActivationStore

_SIZES = (2, 5)
_N_SHUFFLED = 32  # features, of which a label's best and the rules are the level of chance
_LEAST = 10  # rows with a label in each half; of fewer, nothing is told

SMALL = "small: "  # with which a label begins that a signed feature tells by a small value


@dataclass(frozen=True)
class Truth:
    """What is true of the first held-out rows. rows: those whose labels are known; first: the half of them that is chosen and
    fitted on, whole passages of text. token_texts: of ids."""

    names: tuple[str, ...]
    rows: np.ndarray
    facts: Facts
    token_texts: Mapping[int, str]

    @property
    def first(self) -> Bool[np.ndarray, " n_rows"]:
        return self.facts.first

    @property
    def often(self) -> Bool[np.ndarray, " n_labels"]:
        """Which labels have rows enough in both halves."""
        Y = self.facts.Y
        return (Y[self.first].sum(0) >= _LEAST) & (Y[~self.first].sum(0) >= _LEAST)


def truth_of(
    store: ActivationStore,
    tokenizer: Any,
    n_rows: int,
    labeller: Labeller,
    documents: Callable[[], Iterable[str]],
    token_texts: Mapping[int, str],
) -> Truth | None:
    """Of the first n_rows held-out rows, whole sequences. documents: the store's text, read again. None: of no row are the
    labels known."""
    description = store.description
    n_sequences = n_rows // description.n_positions
    found: Labelled = labelled_rows(store, tokenizer, n_sequences, labeller, documents())
    rows = np.flatnonzero(found.known)
    if not len(rows):
        return None
    tokens = neighbours(store.tokens(0, n_sequences, "heldout"), description.positions)[rows]
    first = halves(found.passages[rows])
    if first.all():  # one passage: its sequences are divided
        first = halves((rows // description.n_positions).astype(np.int32))
    return Truth(found.names, rows, Facts(found.Y[rows], tokens, first), token_texts)


def named_columns(
    codes: sparse.csc_array, signed: bool, truth: Truth, everything: Probe
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(columns of features.parquet, columns of probes.parquet). codes: (n_rows, d_sae), of truth's rows alone. everything:
    the probe on all coordinates, which stands beside."""
    Y, first, often = truth.facts.Y, truth.first, truth.often
    names = np.array(truth.names)[often]
    single = single_scores(codes, Y[:, often], first, signed)
    best = best_feature(single)
    probes = {1: best, **few_features(codes, Y[:, often], first, best.features[:, 0], _SIZES)}
    label, small, auroc, f1 = best_label(single)
    found = rules(codes, truth.facts, signed=signed)
    fired = np.diff(codes.indptr) > 0
    features = {
        "label": texts(
            [
                f"{SMALL if turned else ''}{names[i]}" if alive else None
                for i, turned, alive in zip(label, small, fired, strict=True)
            ]
        ),
        "label_auroc": _where(fired, auroc),
        "label_f1": _where(fired, f1),
        "rule": texts([rule and rule.text(truth.names, truth.token_texts) for rule in found]),
        **{
            f"rule_{name}": np.array([np.nan if rule is None else getattr(rule, name) for rule in found], np.float32)
            for name in ("precision", "recall", "f1", "share")
        },
    }
    beside = {"f1_all": everything.f1.astype(np.float32), "auroc_all": everything.auroc.astype(np.float32)}
    return features, _probe_columns(names, Y[:, often], probes) | beside


def chance_columns(codes: sparse.csc_array, signed: bool, truth: Truth) -> tuple[dict[str, Any], dict[str, Any]]:
    """What shuffled codes give: columns for the same two tables as named_columns. Of the densest features alone, null for the
    others."""
    rule_f1, chosen = np.full(len(codes.indptr) - 1, np.nan, np.float32), densest(codes, _N_SHUFFLED)
    found = shuffled(sparse.csc_array(codes[:, chosen]))
    best = best_feature(single_scores(found, truth.facts.Y[:, truth.often], truth.first, signed))
    rule_f1[chosen] = [np.nan if rule is None else rule.f1 for rule in rules(found, truth.facts, signed=signed)]
    return {"rule_f1_shuffled": rule_f1}, {
        "f1_shuffled": best.f1.astype(np.float32),
        "auroc_shuffled": best.auroc.astype(np.float32),
    }


def coordinates(x: np.ndarray, truth: Truth) -> Probe:
    """The logistic probe on all coordinates of what is read, (n_rows, d)."""
    return all_coordinates(x, truth.facts.Y[:, truth.often], truth.first)


def _probe_columns(
    names: np.ndarray, Y: Bool[np.ndarray, "n_rows n_labels"], probes: dict[int, Probe]
) -> dict[str, Any]:
    columns: dict[str, Any] = {"label": texts(names.tolist()), "n_positive": Y.sum(0)}
    share = Y.mean(0)
    columns["f1_always"] = (2 * share / (1 + share)).astype(np.float32)
    for size, probe in probes.items():
        columns |= {
            f"f1_{size}": probe.f1.astype(np.float32),
            f"auroc_{size}": probe.auroc.astype(np.float32),
            f"features_{size}": lists(probe.features, probe.features >= 0),
        }
    return columns


def _where(kept: Bool[np.ndarray, " n"], values: np.ndarray) -> np.ndarray:
    return np.where(kept, values, np.nan).astype(np.float32)
