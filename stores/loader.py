"""Batches from a store, in the order of stores/order.py: streamed, or resident in the machine's or the GPU's memory."""

import queue
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from stores.activations import ActivationStore
from stores.memory import free_memory_bytes
from stores.order import Cursor, EpochOrder, Layout, batch_rows, default_window_chunks, epoch_order
from stores.place import Folder

Residency = Literal["auto", "stream", "ram", "gpu"]
T = TypeVar("T")
_RESIDENT_FRACTION = 0.4  # of the memory that is free when the loader starts
_REMOTE_READS = 8  # chunks ahead: one connection alone does not fill a network


@dataclass(frozen=True)
class Batch:
    """One batch: where it stands, and per hook point (batch_size, d) raw activations of the same rows, in the store's
    dtype, on the loader's device."""

    step: int  # over all epochs
    x: dict[str, Tensor]


class BatchLoader:
    """Iterates over batches [first_step, n_steps) of a store's training rows.

    store: where the rows lie. hook_points: read in step, the same rows of each. batch_size: rows of the whole batch;
    process `rank` of `world_size` gets every world_size-th of them. seed: of the order.
    window_chunks: chunks that are mixed at a time, by default enough for 64 batches.
    residency: "stream" holds the window's chunks and reads ahead; "ram" and "gpu" hold all rows, in the machine's memory
    or on the device; "auto" chooses by what memory is free. Which one is used changes no bit of any batch.
    """

    def __init__(
        self,
        store: ActivationStore,
        hook_points: tuple[str, ...],
        batch_size: int,
        *,
        seed: int,
        n_steps: int,
        first_step: int = 0,
        window_chunks: int | None = None,
        residency: Residency = "auto",
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store, self.hook_points, self.device = store, hook_points, torch.device(device)
        self.seed, self.first_step, self.n_steps = seed, first_step, n_steps
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(f"rank {rank} of {world_size} processes for a batch of {batch_size} rows")
        self.rank, self.world_size = rank, world_size
        window = window_chunks or default_window_chunks(batch_size, store.chunk_rows)
        self._chunks = store.description.chunks(
            "train"
        ).tolist()  # the layout's chunks, as they are numbered in the store
        self.layout = Layout(store.n_train_rows, store.chunk_rows, batch_size, window)
        self.residency = self._choose() if residency == "auto" else residency
        self._n_ahead = 1 if isinstance(store.place, Folder) else _REMOTE_READS
        self._memory = _Recycled()

    def _choose(self) -> Residency:
        row_bytes = sum(self.store.d(h) * self.store.stored_dtype(h).itemsize for h in self.hook_points)
        n_bytes = row_bytes * self.store.n_train_rows
        if self.device.type == "cuda" and n_bytes < _RESIDENT_FRACTION * torch.cuda.mem_get_info(self.device)[0]:
            return "gpu"
        window_holds_all = self.layout.window_chunks == self.layout.n_chunks
        return "ram" if window_holds_all or n_bytes < _RESIDENT_FRACTION * free_memory_bytes() else "stream"

    def __iter__(self) -> Iterator[Batch]:
        found = {"stream": self._streamed, "ram": self._resident, "gpu": self._on_device}[self.residency]()
        if self.device.type != "cuda":
            yield from prefetched(found)
            return
        for batch, ready in prefetched(self._copied(found)):
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready)
            for x in batch.x.values():
                x.record_stream(current)
            yield batch

    def _copied(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Any]]:
        """The batches on the device, copied on a stream of their own while the device computes."""
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            for batch in batches:
                x = {h: x.to(self.device, non_blocking=True) for h, x in batch.x.items()}
                yield Batch(batch.step, x), stream.record_event()

    def _cursor(self, step: int) -> Cursor:
        return self.layout.cursor(self.seed, step)

    def _rows(self) -> Iterator[tuple[int, np.ndarray]]:
        for step in range(self.first_step, self.n_steps):
            yield step, batch_rows(self._cursor(step), self.layout)[self.rank :: self.world_size]

    def _resident(self) -> Iterator[Batch]:
        whole = {h: self._whole(h) for h in self.hook_points}
        for step, rows in self._rows():
            x = {h: self._empty(h, len(rows)) for h in self.hook_points}
            for hook_point, out in x.items():
                np.take(whole[hook_point], rows, axis=0, out=_stored(out), mode="clip")
            yield Batch(step, x)

    def _on_device(self) -> Iterator[Batch]:
        whole = {h: _tensor(self._whole(h), self._dtype(h)).to(self.device) for h in self.hook_points}
        for step, rows in self._rows():
            index = torch.from_numpy(rows)
            index = (index.pin_memory() if self.device.type == "cuda" else index).to(self.device, non_blocking=True)
            yield Batch(step, {h: x.index_select(0, index) for h, x in whole.items()})

    def _whole(self, hook_point: str) -> np.ndarray:
        """(n_train_rows, d) as stored."""
        size, n = self.layout.chunk_rows, self.layout.n_rows
        n_read = len(self._chunks) * size  # the last chunk may be short, and is read as it lies
        whole = np.empty((n_read, self.store.d(hook_point)), self.store.stored_dtype(hook_point))
        with ThreadPoolExecutor(2 * self._n_ahead) as pool:
            pieces = [whole[start : start + size] for start in range(0, n_read, size)]
            list(pool.map(lambda chunk, piece: self.store.read_chunk(hook_point, chunk, piece), self._chunks, pieces))
        return whole[:n]

    def _dtype(self, hook_point: str) -> torch.dtype:
        return getattr(torch, self.store.description.dtype)

    def _empty(self, hook_point: str, n_rows: int) -> Tensor:
        shape, dtype = (n_rows, self.store.d(hook_point)), self._dtype(hook_point)
        if self.device.type == "cuda":
            return torch.empty(shape, dtype=dtype, pin_memory=True)  # PyTorch keeps pinned memory for the next one
        return _tensor(self._memory.take(shape, self.store.stored_dtype(hook_point)), dtype)

    def _streamed(self) -> Iterator[Batch]:
        size, ranks = self.layout.batch_size, self.world_size
        window = _Window(self.store, self.hook_points, self.layout, self._chunks, self._n_ahead)
        try:
            for step in range(self.first_step, self.n_steps):
                cursor = self._cursor(step)
                order = epoch_order(self.layout, cursor.seed, cursor.epoch)
                start = cursor.step * size
                x = {h: self._empty(h, len(range(self.rank, size, ranks))) for h in self.hook_points}
                done = 0  # rows of the whole batch
                for stage, first, last in order.stages_of(start, start + size):
                    own = slice(first + (self.rank - done) % ranks, last, ranks)
                    rows = window.rows(order, stage)[own]
                    begin = -(-(done - self.rank) // ranks) if done > self.rank else 0
                    for hook_point, out in x.items():
                        part = _stored(out)[begin : begin + len(rows)]
                        np.take(window.memory[hook_point], rows, axis=0, out=part, mode="clip")
                    done += last - first
                yield Batch(step, x)
        finally:
            window.close()


class _Recycled:
    """Arrays whose memory is used again once nothing refers to it: touching fresh memory costs more than filling it."""

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = defaultdict(list)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        free = self._free[shape, dtype]
        memory = free.pop() if free else np.empty(shape, dtype)
        lent = memory.view()
        weakref.finalize(lent, free.append, memory).atexit = False
        return lent


class _Window:
    """The chunks that a stage mixes and those that are read ahead, in one block of memory per hook point."""

    def __init__(
        self, store: ActivationStore, hook_points: tuple[str, ...], layout: Layout, chunks: list[int], n_ahead: int
    ) -> None:
        self.store, self.layout, self.chunks, self.n_ahead = store, layout, chunks, n_ahead
        n_slots = layout.window_chunks + n_ahead
        self.memory = {
            h: np.empty((n_slots * layout.chunk_rows, store.d(h)), store.stored_dtype(h)) for h in hook_points
        }
        self._slots: dict[int, int] = {}  # chunk → slot
        self._free = list(range(n_slots))
        self._reading: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(n_ahead + 1)  # and one that draws the next stage's order
        self._stage: tuple[int, int] | None = None
        self._stage_rows = np.empty(0, np.int64)

    def rows(self, order: EpochOrder, stage: int) -> np.ndarray:
        """Where in memory each row of the stage lies, in the stage's order."""
        if self._stage != (order.epoch, stage):
            self._hold(order, stage)
            which, offset = order.stage_rows(stage)
            slots = np.array([self._slots[chunk] for chunk in order.window(stage).tolist()])
            self._stage_rows = (slots * self.layout.chunk_rows)[which] + offset
            self._stage = (order.epoch, stage)
        return self._stage_rows

    def _hold(self, order: EpochOrder, stage: int) -> None:
        """Have the stage's chunks there, and the next ones on their way."""
        chunks = order.window(stage).tolist()
        ahead = self._ahead(order, stage, set(chunks))
        for chunk in set(self._slots) - set(chunks) - set(ahead):
            self._wait(chunk)
            self._free.append(self._slots.pop(chunk))
        for chunk in [*chunks, *ahead]:
            if chunk not in self._slots:
                self._slots[chunk] = self._free.pop()
                self._reading[chunk] = self._pool.submit(self._read, chunk, self._slots[chunk])
        for chunk in chunks:
            self._wait(chunk)
        self._pool.submit(
            self._next(order, stage)[0].stage_rows, self._next(order, stage)[1]
        )  # drawn there, kept there

    def _next(self, order: EpochOrder, stage: int) -> tuple[EpochOrder, int]:
        if stage + 1 < self.layout.n_chunks:
            return order, stage + 1
        return epoch_order(self.layout, order.seed, order.epoch + 1), 0

    def _ahead(self, order: EpochOrder, stage: int, held: set[int]) -> list[int]:
        """The next n_ahead chunks that later stages need beside those that are held."""
        found: list[int] = []
        for _ in range(self.n_ahead):
            order, stage = self._next(order, stage)
            for chunk in order.window(stage).tolist():
                if chunk not in held and chunk not in found and len(found) < self.n_ahead:
                    found.append(chunk)
        return found

    def _read(self, chunk: int, slot: int) -> None:
        size = self.layout.chunk_rows
        for hook_point, memory in self.memory.items():
            self.store.read_chunk(hook_point, self.chunks[chunk], memory[slot * size : (slot + 1) * size])

    def _wait(self, chunk: int) -> None:
        if chunk in self._reading:
            self._reading.pop(chunk).result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _stored(x: Tensor) -> np.ndarray:
    """The tensor's memory as it lies in a store: bfloat16 as uint16."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def _tensor(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    """_stored's inverse."""
    return torch.from_numpy(x.view(np.int16)).view(dtype) if dtype == torch.bfloat16 else torch.from_numpy(x)


def prefetched(items: Iterable[T], depth: int = 1, stop: threading.Event | None = None) -> Iterator[T]:
    """The same items, made ahead in a thread; its exception is raised here. The thread ends with the iteration. stop: is
    set then, for items that take long to come."""
    ready: queue.Queue = queue.Queue(depth)
    stop, end = stop or threading.Event(), object()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put((item, None))
                if stop.is_set():
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))
        finally:
            if close := getattr(iterator, "close", None):
                close()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()
