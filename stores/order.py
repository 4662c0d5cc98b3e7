"""Which rows make batch t: pure index arithmetic on (seed, epoch, step).

Chunks are put in an order drawn from (seed, epoch). Each chunk's rows are shuffled and cut into `window_chunks` parts.
Turn s takes one part of each of the `window_chunks` consecutive chunks that begin at place s of that order (cyclic),
and shuffles what it took:

    turn s = shuffle( part 0 of chunk s, part 1 of chunk s+1, …, part W-1 of chunk s+W-1 )

So every row comes once an epoch; W chunks lie in memory at any time and one is read per turn; two rows that were
neighbours in the text meet in one batch as seldom as in a shuffle of W whole chunks. Batches are consecutive pieces
of the epoch's turns, so the position of batch t follows from t alone and seeking costs nothing.

The draws are raw Philox words, whose values NumPy guarantees, not Generator methods, whose values it does not.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

MIN_BATCHES_PER_WINDOW = 64


@dataclass(frozen=True)
class Cursor:
    """The whole data state of a training run: `step` counts batches within `epoch`."""

    seed: int
    epoch: int
    step: int


@dataclass(frozen=True)
class Layout:
    """What the order needs to know of a store: rows [0, n_rows) in chunks of `chunk_rows`, the last may be short."""

    n_rows: int
    chunk_rows: int
    batch_size: int
    window_chunks: int

    def __post_init__(self) -> None:
        if self.batch_size > self.n_rows:
            raise ValueError(f"batch_size {self.batch_size} is more than the {self.n_rows} rows there are")
        if min(self.batch_size, self.chunk_rows, self.window_chunks) < 1:
            raise ValueError(f"batch_size, chunk_rows and window_chunks are at least 1, got {self}")
        object.__setattr__(self, "window_chunks", min(self.window_chunks, self.n_chunks))

    @property
    def n_chunks(self) -> int:
        return -(-self.n_rows // self.chunk_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the order's last n_rows mod batch_size rows sit that epoch out."""
        return self.n_rows // self.batch_size

    def cursor(self, seed: int, step: int) -> Cursor:
        """The cursor of the run's step-th batch, counted over all epochs."""
        return Cursor(seed, *divmod(step, self.steps_per_epoch))


def default_window_chunks(batch_size: int, chunk_rows: int) -> int:
    """Chunks that hold at least 64 batches: smaller windows leave neighbouring tokens together."""
    return max(1, -(-MIN_BATCHES_PER_WINDOW * batch_size // chunk_rows))


def permutation(n: int, *key: int) -> Int64[np.ndarray, " {n}"]:
    """A permutation of range(n), int64, drawn from the integers in key: the same on every machine.

    Random words with their places in the lowest bits, sorted: no two are equal, so every way of sorting gives the same.
    """
    words = np.random.Philox(key=np.random.SeedSequence(key).generate_state(2, np.uint64)).random_raw(n)
    places = np.uint64((1 << max(1, (n - 1).bit_length())) - 1)
    keys = (words & ~places) | np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & places).view(np.int64)


@dataclass(frozen=True)
class EpochOrder:
    """One epoch's order of rows."""

    layout: Layout
    seed: int
    epoch: int
    chunk_order: Int64[np.ndarray, " n_chunks"]  # chunk at each place
    turn_ends: Int64[np.ndarray, " n_chunks"]  # rows of turns 0..s, cumulated

    def turn_size(self, turn: int) -> int:
        return int(self.turn_ends[turn] - (self.turn_ends[turn - 1] if turn else 0))

    def window(self, turn: int) -> Int64[np.ndarray, " window_chunks"]:
        """The chunks that a turn takes its rows from."""
        places = np.arange(turn, turn + self.layout.window_chunks) % self.layout.n_chunks
        return self.chunk_order[places]

    def turn_rows(self, turn: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Of each row of the turn, in order: which chunk of the turn's window it lies in, and where in that chunk."""
        return _turn_rows(self.layout, self.seed, self.epoch, turn)

    def turns_of(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """[(turn, first, last)]: the pieces of turns that make places [start, stop) of the epoch."""
        pieces = []
        turn = int(np.searchsorted(self.turn_ends, start, side="right"))
        while start < stop:
            begin = int(self.turn_ends[turn]) - self.turn_size(turn)
            last = min(stop, int(self.turn_ends[turn]))
            if last > start:
                pieces.append((turn, start - begin, last - begin))
            start, turn = last, turn + 1
        return pieces


def _chunk_size(layout: Layout, chunk: int) -> int:
    return min(layout.chunk_rows, layout.n_rows - chunk * layout.chunk_rows)


@lru_cache(maxsize=512)
def _chunk_shuffle(n: int, seed: int, epoch: int, chunk: int) -> Int64[np.ndarray, " {n}"]:
    return permutation(n, seed, epoch, 1, chunk)


@lru_cache(maxsize=4)
def _turn_rows(
    layout: Layout, seed: int, epoch: int, turn: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    w, parts = layout.window_chunks, []
    for j, chunk in enumerate(epoch_order(layout, seed, epoch).window(turn).tolist()):
        n = _chunk_size(layout, chunk)
        parts.append(_chunk_shuffle(n, seed, epoch, chunk)[j * n // w : (j + 1) * n // w])
    which = np.repeat(np.arange(w), [len(part) for part in parts])
    shuffle = permutation(len(which), seed, epoch, 2, turn)
    return which[shuffle], np.concatenate(parts)[shuffle]


@lru_cache(maxsize=4)
def epoch_order(layout: Layout, seed: int, epoch: int) -> EpochOrder:
    """The order of one epoch: O(n_chunks) to make, cached."""
    n, w = layout.n_chunks, layout.window_chunks
    order = permutation(n, seed, epoch, 0)
    sizes = np.full(n, layout.chunk_rows, dtype=np.int64)
    sizes[order == n - 1] = _chunk_size(layout, n - 1)
    turn_sizes = np.zeros(n, dtype=np.int64)
    for j in range(w):
        turn_sizes += np.roll((j + 1) * sizes // w - j * sizes // w, -j)
    return EpochOrder(layout, seed, epoch, order, np.cumsum(turn_sizes))


def batch_rows(cursor: Cursor, layout: Layout) -> Int64[np.ndarray, " batch_size"]:
    """The rows of the store that make the cursor's batch, in the batch's order.

    Raises IndexError: the step is not one of the epoch's.
    """
    if not 0 <= cursor.step < layout.steps_per_epoch:
        raise IndexError(f"step {cursor.step} is not in an epoch of {layout.steps_per_epoch} steps")
    order = epoch_order(layout, cursor.seed, cursor.epoch)
    start = cursor.step * layout.batch_size
    rows = []
    for turn, first, last in order.turns_of(start, start + layout.batch_size):
        which, offset = order.turn_rows(turn)
        rows.append(order.window(turn)[which[first:last]] * layout.chunk_rows + offset[first:last])
    return np.concatenate(rows)
