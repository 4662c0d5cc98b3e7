"""Batches from a store, in the order of stores/order.py: streamed, or resident in the machine's or the GPU's memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from stores.activations import ActivationStore
from stores.buffers import Recycled, numbers, stored, tensor
from stores.description import row_bytes
from stores.devices import use, with_index
from stores.memory import free_memory_bytes
from stores.order import Cursor, Layout, batch_rows, default_window_chunks, epoch_order
from stores.place import Folder
from stores.prefetch import prefetched
from stores.window import Window

Residency = Literal["auto", "stream", "ram", "gpu"]
_RESIDENT_FRACTION = 0.4  # of the memory that is free when the loader starts
_REMOTE_READS = 8  # chunks ahead: one connection alone does not fill a network


@dataclass(frozen=True)
class Batch:
    """One batch: where it stands, and per hook point raw activations of the same rows, in the store's dtype, on the loader's
    device; int8 as it is stored until the loader hands it out, then float32."""

    step: int  # over all epochs
    x: dict[str, Shaped[Tensor, "batch_size _"]]


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
        self.store, self.hook_points, self.device = store, hook_points, with_index(device)
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
        self._memory = Recycled()

    def _choose(self) -> Residency:
        dtype = self.store.description.dtype
        n_bytes = sum(row_bytes(self.store.d(h), dtype) for h in self.hook_points) * self.store.n_train_rows
        if self.device.type == "cuda" and n_bytes < _RESIDENT_FRACTION * torch.cuda.mem_get_info(self.device)[0]:
            return "gpu"
        window_holds_all = self.layout.window_chunks == self.layout.n_chunks
        return "ram" if window_holds_all or n_bytes < _RESIDENT_FRACTION * free_memory_bytes() else "stream"

    def __iter__(self) -> Iterator[Batch]:
        found = {"stream": self._streamed, "ram": self._resident, "gpu": self._on_device}[self.residency]()
        if self.device.type != "cuda":
            yield from prefetched(Batch(b.step, {h: numbers(x) for h, x in b.x.items()}) for b in found)
            return
        for batch, ready in prefetched(self._copied(found)):
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready)
            for x in batch.x.values():
                x.record_stream(current)
            yield batch

    def _copied(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Any]]:
        """The batches on the device, copied on a stream of their own while the device computes. In a thread of
        their own: what it pins and copies belongs to its current device."""
        use(self.device)
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            for batch in batches:
                x = {h: numbers(x.to(self.device, non_blocking=True)) for h, x in batch.x.items()}
                yield Batch(batch.step, x), stream.record_event()

    def _cursor(self, step: int) -> Cursor:
        return self.layout.cursor(self.seed, step)

    def _rows(self) -> Iterator[tuple[int, Int64[np.ndarray, " batch_size"]]]:
        for step in range(self.first_step, self.n_steps):
            yield step, batch_rows(self._cursor(step), self.layout)[self.rank :: self.world_size]

    def _resident(self) -> Iterator[Batch]:
        whole = {h: self._whole(h) for h in self.hook_points}
        for step, rows in self._rows():
            x = {h: self._empty(h, len(rows)) for h in self.hook_points}
            for hook_point, out in x.items():
                np.take(whole[hook_point], rows, axis=0, out=stored(out), mode="clip")
            yield Batch(step, x)

    def _on_device(self) -> Iterator[Batch]:
        whole = {h: tensor(self._whole(h), self._dtype(h)).to(self.device) for h in self.hook_points}
        for step, rows in self._rows():
            index = torch.from_numpy(rows)
            index = (index.pin_memory() if self.device.type == "cuda" else index).to(self.device, non_blocking=True)
            yield Batch(step, {h: x.index_select(0, index) for h, x in whole.items()})

    def _whole(self, hook_point: str) -> Shaped[np.ndarray, "n_train_rows d_stored"]:
        """As stored."""
        size, n = self.layout.chunk_rows, self.layout.n_rows
        n_read = len(self._chunks) * size  # the last chunk may be short, and is read as it lies
        whole = np.empty((n_read, self.store.description.stored_width(hook_point)), self.store.stored_dtype(hook_point))
        with ThreadPoolExecutor(2 * self._n_ahead) as pool:
            pieces = [whole[start : start + size] for start in range(0, n_read, size)]
            list(pool.map(lambda chunk, piece: self.store.read_chunk(hook_point, chunk, piece), self._chunks, pieces))
        return whole[:n]

    def _dtype(self, hook_point: str) -> torch.dtype:
        return getattr(torch, self.store.description.dtype)

    def _empty(self, hook_point: str, n_rows: int) -> Shaped[Tensor, "{n_rows} d_stored"]:
        shape, dtype = (n_rows, self.store.description.stored_width(hook_point)), self._dtype(hook_point)
        if self.device.type == "cuda":
            return torch.empty(shape, dtype=dtype, pin_memory=True)  # PyTorch keeps pinned memory for the next one
        return tensor(self._memory.take(shape, self.store.stored_dtype(hook_point)), dtype)

    def _streamed(self) -> Iterator[Batch]:
        size, ranks = self.layout.batch_size, self.world_size
        window = Window(self.store, self.hook_points, self.layout, self._chunks, self._n_ahead)
        try:
            for step in range(self.first_step, self.n_steps):
                cursor = self._cursor(step)
                order = epoch_order(self.layout, cursor.seed, cursor.epoch)
                start = cursor.step * size
                x = {h: self._empty(h, len(range(self.rank, size, ranks))) for h in self.hook_points}
                done = 0  # rows of the whole batch
                for turn, first, last in order.turns_of(start, start + size):
                    own = slice(first + (self.rank - done) % ranks, last, ranks)
                    rows = window.rows(order, turn)[own]
                    begin = -(-(done - self.rank) // ranks) if done > self.rank else 0
                    for hook_point, out in x.items():
                        part = stored(out)[begin : begin + len(rows)]
                        np.take(window.memory[hook_point], rows, axis=0, out=part, mode="clip")
                    done += last - first
                yield Batch(step, x)
        finally:
            window.close()
