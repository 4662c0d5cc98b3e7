"""The labels of a store's rows: texts are put together from held-out sequences, and labelled as wholes."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from pipeline.features.labels.spans import KNOWN, Labeller, Spans
from pipeline.features.labels.token_bytes import token_bytes
from stores.activations import ActivationStore

_SPACE = np.frombuffer(b" \t\n\r\f\v", np.uint8)
_WORD = np.frombuffer(b"_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)
TOKEN_LABELS = ("begins with a space", "continues a word")  # of every labeller, from the tokens
_LEAST = 256  # bytes of a text that is looked for in documents: shorter ones may lie in several


@dataclass(frozen=True)
class Labelled:
    """What is true of rows. passages: which piece of text each row is of, from 0; -1 where it is of none (BOS).

    known: where the labels are known; elsewhere Y is False.
    """

    names: tuple[str, ...]
    Y: Bool[np.ndarray, "n_rows n_labels"]
    known: Bool[np.ndarray, " n_rows"]
    passages: Int32[np.ndarray, " n_rows"]


def labelled_rows(
    store: ActivationStore, tokenizer: Any, n_sequences: int, labeller: Labeller, documents: Iterable[str] = ()
) -> Labelled:
    """The labels of the rows of the first n_sequences held-out sequences, or of all there are.

    Held-out text lies in the store as it was packed: one sequence goes on where the one before it ends, and BOS begins
    each text. A text may be a passage of a longer document: where documents hold it, it is labelled as a part of the
    whole. A token has a label if any of its characters has it; spaces count only in a token of spaces alone. TOKEN_LABELS
    follow the labeller's own.

    documents: the store's text, read again; other documents are passed over. Raises ValueError: the store has no BOS,
    the tokenizer's tokens have no bytes, or the labeller gives other names for another text.
    """
    description = store.description
    if not description.bos:
        raise ValueError("the store's sequences do not begin with BOS, so that the beginnings of texts are not known")
    n_sequences = min(n_sequences, description.part_sequences("heldout"))
    tokens = store.tokens(0, n_sequences, "heldout")
    stream, bos = tokens[:, 1:].reshape(-1), int(tokens[0, 0])
    of = token_bytes(tokenizer)
    edges = [0, *np.flatnonzero(stream == bos).tolist(), len(stream)]
    texts = [stream[a:b][stream[a:b] != bos].tolist() for a, b in pairwise(edges)]
    pieces = [[of.get(i, b"") for i in ids] for ids in texts]
    spans = _spans([b"".join(piece) for piece in pieces], labeller, documents)
    names = next((tuple(n for n in found if n != KNOWN) for found in spans if found), ())
    shape = (len(stream), len(names) + len(TOKEN_LABELS))
    y, known, passages = np.zeros(shape, bool), np.zeros(len(stream), bool), np.full(len(stream), -1, np.int32)
    for i, (piece, found) in enumerate(zip(pieces, spans)):
        rows = slice(edges[i + 1] - len(piece), edges[i + 1])
        passages[rows] = i
        if found:
            if tuple(n for n in found if n != KNOWN) != names:
                raise ValueError(f"the labeller gave {len(found)} names for one text and {len(names)} for another")
            y[rows], known[rows] = _of_tokens(piece, found)
    kept = [p - 1 for p in description.positions if p > 0]
    at = (np.arange(n_sequences)[:, None] * (description.context - 1) + kept).reshape(-1)
    labelled = Labelled((*names, *TOKEN_LABELS), y[at], known[at], passages[at])
    return _with_bos(labelled, n_sequences, 0 in description.positions)


def halves(groups: Int32[np.ndarray, " n_rows"]) -> Bool[np.ndarray, " n_rows"]:
    """Which rows are of the first half: rows of one group (a text, a sequence) stay together.

    Each group in turn goes where fewer rows are.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    first, n = np.zeros(len(sizes), bool), [0, 0]
    for i, size in enumerate(sizes.tolist()):
        first[i] = n[0] <= n[1]
        n[not first[i]] += size
    return first[group]


def _spans(texts: list[bytes], labeller: Labeller, documents: Iterable[str]) -> list[Spans | None]:
    """Of each text, in its own bytes."""
    found: dict[int, Spans | None] = {i: None for i, text in enumerate(texts) if not text}
    for document in documents if len(found) < len(texts) else ():
        data, spans = document.encode("utf-8", "replace"), None
        for i, text in enumerate(texts):
            if i in found or len(text) < _LEAST or (at := data.find(text)) < 0:
                continue
            spans = spans or _labels(labeller, data)
            if spans:
                found[i] = {name: _cut(own, at, at + len(text)) for name, own in spans.items()}
        if len(found) == len(texts):
            break
    return [found[i] if i in found else _labels(labeller, text) for i, text in enumerate(texts)]


def _labels(labeller: Labeller, text: bytes) -> Spans | None:
    try:
        return labeller(text)
    except ValueError:
        return None


def _cut(spans: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    return [(max(a, start) - start, min(b, stop) - start) for a, b in spans if a < stop and b > start]


def _of_tokens(piece: list[bytes], found: Spans) -> tuple[Bool[np.ndarray, "n n_labels"], Bool[np.ndarray, " n"]]:
    """(labels, known) of the tokens of a text."""
    data = np.frombuffer(b"".join(piece), np.uint8)
    ends = np.cumsum([0, *map(len, piece)])
    blank = np.isin(data, _SPACE)
    n_solid = _sums(~blank, ends)
    counts = ~blank | np.repeat(n_solid == 0, np.diff(ends))
    y = [_sums(counts & _mask(spans, len(data)), ends) > 0 for name, spans in found.items() if name != KNOWN]
    y += _token_labels(data, ends)
    whole = _mask(found[KNOWN], len(data)) if KNOWN in found else np.ones(len(data), bool)
    return np.stack(y, axis=1), (_sums(~whole, ends) == 0) & (np.diff(ends) > 0)


def _token_labels(data: Shaped[np.ndarray, " n_bytes"], ends: Int64[np.ndarray, " _"]) -> list[np.ndarray]:
    """Each (n,) bool, those of TOKEN_LABELS."""
    word = np.concatenate([np.isin(data, _WORD) | (data >= 0x80), [False]])
    starts = ends[:-1]
    return [np.append(data, 0)[starts] == ord(" "), word[starts] & word[starts - 1] & (starts > 0)]


def _sums(values: Bool[np.ndarray, " n_bytes"], ends: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " n"]:
    return np.diff(np.concatenate([[0], np.cumsum(values)])[ends])


def _mask(spans: list[tuple[int, int]], n: int) -> Bool[np.ndarray, " {n}"]:
    changes = np.zeros(n + 1, np.int64)
    if spans:
        starts, stops = np.array(spans).T
        np.add.at(changes, starts, 1)
        np.add.at(changes, stops, -1)
    return np.cumsum(changes[:-1]) > 0


def _with_bos(labelled: Labelled, n_sequences: int, bos: bool) -> Labelled:
    """With a row for BOS before those of each sequence, where the store keeps one."""
    if not bos:
        return labelled
    at = np.arange(len(labelled.known)).reshape(n_sequences, -1)[:, 0]
    return Labelled(
        labelled.names,
        np.insert(labelled.Y, at, False, axis=0),
        np.insert(labelled.known, at, False),
        np.insert(labelled.passages, at, np.int32(-1)),
    )
