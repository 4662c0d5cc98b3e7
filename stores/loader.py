"""Batches from a store, in the order of stores/order.py: streamed from disk, or resident in memory; the same bits."""

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from stores.activations import ActivationStore
from stores.order import Cursor, Layout, batch_rows, default_window_chunks, epoch_order

Residency = Literal["auto", "stream", "ram"]
_RAM_FRACTION = 0.4  # of the memory that is free when the loader starts


@dataclass(frozen=True)
class Batch:
    """One batch: where it stands, and per hook point (batch_size, d) float32 raw activations of the same rows."""

    step: int  # over all epochs
    x: dict[str, torch.Tensor]


class BatchLoader:
    """Iterates over batches [first_step, n_steps) of a store's training rows.

    store: where the rows lie. hook_points: read in step, the same rows of each. seed: of the order.
    window_chunks: chunks that are mixed at a time, by default enough for 64 batches.
    residency: "stream" keeps the window's chunks and reads ahead in a thread; "ram" keeps all; "auto" chooses by
    what memory is free. Which one is used changes no bit of any batch.
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
    ) -> None:
        self.store, self.hook_points, self.device = store, hook_points, torch.device(device)
        self.seed, self.first_step, self.n_steps = seed, first_step, n_steps
        window = window_chunks or default_window_chunks(batch_size, store.chunk_rows)
        self.layout = Layout(store.n_train_rows, store.chunk_rows, batch_size, window)
        self.residency = self._choose() if residency == "auto" else residency

    def _choose(self) -> Residency:
        n_bytes = sum(self.store.d(h) for h in self.hook_points) * self.store.n_train_rows * 4
        window_holds_all = self.layout.window_chunks == self.layout.n_chunks
        return "ram" if window_holds_all or n_bytes < _RAM_FRACTION * free_memory_bytes() else "stream"

    def __iter__(self) -> Iterator[Batch]:
        rows = self._resident() if self.residency == "ram" else self._streamed()
        for step, x in _prefetched(rows):
            yield Batch(step, {h: torch.from_numpy(v).to(self.device).float() for h, v in x.items()})

    def _cursor(self, step: int) -> Cursor:
        return self.layout.cursor(self.seed, step)

    def _resident(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        whole = {h: self._whole(h) for h in self.hook_points}
        for step in range(self.first_step, self.n_steps):
            rows = batch_rows(self._cursor(step), self.layout)
            yield step, {h: x[rows] for h, x in whole.items()}

    def _whole(self, hook_point: str) -> np.ndarray:
        pieces = self.store.batches(hook_point, 0, self.store.n_train_rows)
        first = next(pieces)
        whole = np.empty((self.store.n_train_rows, first.shape[1]), first.dtype)
        whole[: len(first)] = first
        filled = len(first)
        for piece in pieces:
            whole[filled : filled + len(piece)] = piece
            filled += len(piece)
        return whole

    def _streamed(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        chunks: dict[int, dict[str, np.ndarray]] = {}
        current: tuple[int, int] = (-1, -1)
        stage_rows: dict[str, np.ndarray] = {}
        for step in range(self.first_step, self.n_steps):
            cursor = self._cursor(step)
            order = epoch_order(self.layout, cursor.seed, cursor.epoch)
            start = cursor.step * self.layout.batch_size
            pieces = []
            for stage, first, last in order.stages_of(start, start + self.layout.batch_size):
                if (cursor.epoch, stage) != current:
                    parts = order.stage_parts(stage)
                    window = [chunk for chunk, _ in parts]
                    chunks = {c: chunks.get(c) or self._read(c) for c in window}
                    shuffle = order.stage_shuffle(stage)
                    stage_rows = {
                        h: np.concatenate([chunks[c][h][offsets] for c, offsets in parts])[shuffle]
                        for h in self.hook_points
                    }
                    current = (cursor.epoch, stage)
                pieces.append({h: x[first:last] for h, x in stage_rows.items()})
            yield step, {h: np.concatenate([p[h] for p in pieces]) for h in self.hook_points}

    def _read(self, chunk: int) -> dict[str, np.ndarray]:
        start = chunk * self.layout.chunk_rows
        stop = min(start + self.layout.chunk_rows, self.layout.n_rows)
        return {h: self.store.rows(h, start, stop) for h in self.hook_points}


def _prefetched(items: Iterator, depth: int = 4) -> Iterator:
    """The same items, made ahead in a thread; its exception is raised here. The thread ends with the iteration."""
    ready: queue.Queue = queue.Queue(depth)
    stop, end = threading.Event(), object()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))

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


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping: what the machine, and a control group if there is one, leave."""
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except OSError:  # not Linux: half of what the machine has
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            return min(free, max(0, int(limit.read()) - int(used.read())))
    except (OSError, ValueError):  # no control group, or "max"
        return free
