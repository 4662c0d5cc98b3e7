"""Where features are active: the strongest tokens of each, and a random sample of all its active ones, with what is around."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64, UInt64

_MANY = 1 << 17  # candidates of a batch, from which on those that cannot be among the best are sorted out first
AROUND = 10  # tokens on either side


@dataclass(frozen=True)
class Entries:
    """Active tokens. row: among the held-out rows; key: the smaller, the better; window: what the feature is at the stored
    positions around, nan where the store has none."""

    feature: Int64[np.ndarray, " n"]
    key: Float[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]
    value: Float32[np.ndarray, " n"]
    window: Float32[np.ndarray, "n width"]

    def __getitem__(self, which: np.ndarray) -> "Entries":
        return Entries(*(getattr(self, name)[which] for name in _NAMES))

    @classmethod
    def joined(cls, parts: list["Entries"]) -> "Entries":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    def __len__(self) -> int:
        return len(self.feature)


_NAMES = ("feature", "key", "row", "value", "window")


class Best:
    """The n entries of each feature with the smallest keys, in memory that does not grow with the rows. Which they are
    depends on the entries alone, not on the order in which they come."""

    def __init__(self, n: int, d_sae: int, width: int) -> None:
        self.n, self.d_sae = n, d_sae
        none = np.zeros(0)
        self._kept = Entries(
            none.astype(np.int64),
            none,
            none.astype(np.int64),
            none.astype(np.float32),
            np.zeros((0, width), np.float32),
        )
        self._waiting: list[Entries] = []
        self._n_waiting = 0
        self._worst = np.full(d_sae, np.inf)  # what a key has to be below, to be among the best

    def promising(self, feature: Int64[np.ndarray, " n"], key: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
        """Which of these may be among the best; where they are many, no more than about n of a feature."""
        near = np.flatnonzero(key < self._worst[feature])
        return near if len(near) <= _MANY else near[_first(feature[near], key[near], self.n)]

    def add(self, entries: Entries) -> None:
        self._waiting.append(entries)
        self._n_waiting += len(entries)
        if self._n_waiting > self.n * self.d_sae // 2:
            self._choose()

    def merge(self, later: "Best") -> None:
        for entries in (later._kept, *later._waiting):
            self.add(entries)

    def result(self) -> Entries:
        """By feature, the best first."""
        self._choose()
        return self._kept

    def _choose(self) -> None:
        found = Entries.joined([self._kept, *self._waiting])
        # Of equal keys the first row's, whatever came first.
        order = np.lexsort((found.row, found.key, found.feature))
        found = found[order]
        self._kept = found[_place(found.feature) < self.n]
        self._waiting, self._n_waiting = [], 0
        counts = np.bincount(self._kept.feature, minlength=self.d_sae)
        last = counts.cumsum() - 1
        full = counts == self.n
        self._worst[full] = np.nextafter(self._kept.key[last[full]], np.inf)


def _first(feature: Int64[np.ndarray, " n"], key: Float[np.ndarray, " n"], n: int) -> Int64[np.ndarray, " m"]:
    """The places of the n smallest keys of each feature, and of what equals the largest of them."""
    order = np.lexsort((key, feature))
    sorted_feature, sorted_key = feature[order], key[order]
    place = _place(sorted_feature)
    kept = place < n
    starts = np.arange(len(order)) - place
    last = sorted_key[np.minimum(starts + n - 1, len(order) - 1)]
    same = (starts + n - 1 < len(order)) & (sorted_key == last) & (place >= n)
    return order[kept | same]


def _place(feature: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Of sorted features: how many of the same come before."""
    new = np.flatnonzero(np.diff(feature, prepend=-1))
    return np.arange(len(feature)) - np.repeat(new, np.diff(new, append=len(feature)))


class Contexts:
    """n_top sequences in which each feature is strongest, each with its strongest token, and n_sampled of its active tokens
    that are drawn without looking at their strength (by a hash of row and feature, so that any part of the rows can be read
    alone)."""

    def __init__(
        self, d_sae: int, positions: tuple[int, ...], context: int, n_top: int = 20, n_sampled: int = 25
    ) -> None:
        self.d_sae, self.n_positions = d_sae, len(positions)
        width = 2 * AROUND + 1
        self.top, self.sample = Best(n_top, d_sae, width), Best(n_sampled, d_sae, width)
        self._positions = np.array(positions)
        self._places = np.full(context + 2 * AROUND, -1)  # of positions that are kept, from AROUND before the first on
        self._places[self._positions + AROUND] = np.arange(len(positions))

    def add(self, z: Float32[np.ndarray, "n d_sae"], first: int) -> None:
        """z: codes of whole sequences; first: the first row among the held-out ones."""
        codes = z.reshape(-1, self.n_positions, self.d_sae)
        strength = np.abs(codes)
        strongest = strength.max(1)
        sequence, feature = np.nonzero((strongest > 0) & (-strongest < self.top._worst))
        near = self.top.promising(feature, -strongest[sequence, feature].astype(np.float64))
        sequence, feature = sequence[near], feature[near]
        place = strength[sequence, :, feature].argmax(1)
        self._add(self.top, codes, first, sequence, place, feature, -strongest[sequence, feature].astype(np.float64))

        row, feature = np.nonzero(z)
        key = uniform(first + row, feature)
        near = self.sample.promising(feature, key)
        sequence, place = np.divmod(row[near], self.n_positions)
        self._add(self.sample, codes, first, sequence, place, feature[near], key[near])

    def merge(self, later: "Contexts") -> None:
        self.top.merge(later.top)
        self.sample.merge(later.sample)

    def _add(
        self,
        best: Best,
        codes: Float32[np.ndarray, "n_sequences n_positions d_sae"],
        first: int,
        sequence: Int64[np.ndarray, " m"],
        place: Int64[np.ndarray, " m"],
        feature: Int64[np.ndarray, " m"],
        key: Float[np.ndarray, " m"],
    ) -> None:
        around = self._places[self._positions[place][:, None] + np.arange(2 * AROUND + 1)]
        window = codes[sequence[:, None], around, feature[:, None]]
        window = np.where(around >= 0, window, np.float32(np.nan))
        row = first + sequence * self.n_positions + place
        best.add(Entries(feature, key, row, codes[sequence, place, feature], window))

    def grouped(self, n_groups: int = 5) -> tuple[Entries, Int32[np.ndarray, " n"]]:
        """(entries by feature and group, strongest first, their groups): 0 the strongest of all; 1 to n_groups the sample by
        its strength, in groups of as many each, 1 the strongest."""
        top, sample = self.top.result(), self.sample.result()
        sample = sample[np.lexsort((sample.row, -np.abs(sample.value), sample.feature))]
        counts = np.bincount(sample.feature, minlength=self.d_sae)[sample.feature]
        group = 1 + _place(sample.feature) * n_groups // np.maximum(counts, 1)
        found = Entries.joined([top, sample])
        groups = np.concatenate([np.zeros(len(top), np.int32), group.astype(np.int32)])
        order = np.lexsort((groups, found.feature))
        return found[order], groups[order]


def uniform(row: Int64[np.ndarray, " n"], feature: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """In [0, 1), by a hash of (row, feature): the finalizer of SplitMix64 (Steele, Lea, Flood 2014), twice."""
    return (_mixed(_mixed(row.astype(np.uint64)) + feature.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53


def _mixed(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def windows_of(
    tokens: Int32[np.ndarray, "n_sequences context"],
    sequence: Int64[np.ndarray, " n"],
    position: Int64[np.ndarray, " n"],
) -> tuple[Int32[np.ndarray, "n width"], Bool[np.ndarray, "n width"]]:
    """(the tokens around, which of them lie in the context)."""
    around = position[:, None] + np.arange(-AROUND, AROUND + 1)
    inside = (around >= 0) & (around < tokens.shape[1])
    return tokens[sequence[:, None], np.where(inside, around, 0)], inside
