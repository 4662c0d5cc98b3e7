"""The chunks of a store that are mixed, and those that are on their way."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Int64

from stores.activations import ActivationStore
from stores.order import EpochOrder, Layout, epoch_order


class Window:
    """The chunks that a turn mixes and those that are read ahead, in one block of memory per hook point."""

    def __init__(
        self, store: ActivationStore, hook_points: tuple[str, ...], layout: Layout, chunks: list[int], n_ahead: int
    ) -> None:
        self.store, self.layout, self.chunks, self.n_ahead = store, layout, chunks, n_ahead
        n_slots = layout.window_chunks + n_ahead
        self.memory = {
            h: np.empty((n_slots * layout.chunk_rows, store.description.stored_width(h)), store.stored_dtype(h))
            for h in hook_points
        }
        self._slots: dict[int, int] = {}  # chunk → slot
        self._free = list(range(n_slots))
        self._reading: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(n_ahead + 1)  # and one that draws the next turn's order
        self._turn: tuple[int, int] | None = None
        self._turn_rows = np.empty(0, np.int64)

    def rows(self, order: EpochOrder, turn: int) -> Int64[np.ndarray, " n"]:
        """Where in memory each row of the turn lies, in the turn's order."""
        if self._turn != (order.epoch, turn):
            self._hold(order, turn)
            which, offset = order.turn_rows(turn)
            slots = np.array([self._slots[chunk] for chunk in order.window(turn).tolist()])
            self._turn_rows = (slots * self.layout.chunk_rows)[which] + offset
            self._turn = (order.epoch, turn)
        return self._turn_rows

    def _hold(self, order: EpochOrder, turn: int) -> None:
        """Have the turn's chunks there, and the next ones on their way."""
        chunks = order.window(turn).tolist()
        ahead = self._ahead(order, turn, set(chunks))
        for chunk in set(self._slots) - set(chunks) - set(ahead):
            self._wait(chunk)
            self._free.append(self._slots.pop(chunk))
        for chunk in [*chunks, *ahead]:
            if chunk not in self._slots:
                self._slots[chunk] = self._free.pop()
                self._reading[chunk] = self._pool.submit(self._read, chunk, self._slots[chunk])
        for chunk in chunks:
            self._wait(chunk)
        self._pool.submit(self._next(order, turn)[0].turn_rows, self._next(order, turn)[1])  # drawn there, kept there

    def _next(self, order: EpochOrder, turn: int) -> tuple[EpochOrder, int]:
        if turn + 1 < self.layout.n_chunks:
            return order, turn + 1
        return epoch_order(self.layout, order.seed, order.epoch + 1), 0

    def _ahead(self, order: EpochOrder, turn: int, held: set[int]) -> list[int]:
        """The next n_ahead chunks that later turns need beside those that are held."""
        found: list[int] = []
        for _ in range(self.n_ahead):
            order, turn = self._next(order, turn)
            for chunk in order.window(turn).tolist():
                if chunk not in held and chunk not in found and len(found) < self.n_ahead:
                    found.append(chunk)
        return found

    def _read(self, chunk: int, slot: int) -> None:
        size = self.layout.chunk_rows
        self.store.have(tuple(self.memory), self.chunks[chunk])
        for hook_point, memory in self.memory.items():
            self.store.read_chunk(hook_point, self.chunks[chunk], memory[slot * size : (slot + 1) * size])

    def _wait(self, chunk: int) -> None:
        if chunk in self._reading:
            self._reading.pop(chunk).result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
