"""A training step as CUDA graphs: one call sends the device what else the host sends operation by operation.

A graph does the same at every replay, on the same memory. So it holds for all steps of one kind (Now.kind), whose differences
lie in tensors that stay in their places: the batch, what the schedule says (clock.py), weights, moments and buffers. What the
host decides by values, dead features that get new directions, is done between graphs.

The first steps of a kind are made as they come, on the stream of the captures: kernels are compiled and memory is set up. The
last of them shows whether the host waits for the device, which a graph cannot do.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache, partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.train.families.loss import Now

SWITCH = "UNMIX_CUDA_GRAPHS"  # 0 in the environment: there are none
N_BEFORE = 10  # steps of a kind before it is captured: a k that falls has fewer of each
_MOST = 16  # graphs of one learner: of k that falls, each value has one

Parts = dict[str, Tensor]
Work = Callable[[Tensor, Tensor | None, Now], Parts]


class Captured:
    """The steps of a learner, or of a stack. Where they are not captured they are made as they come."""

    def __init__(self, what: str, alone: bool = True) -> None:
        """what: the name of what is trained, for a message. alone: no other process has a part in the steps."""
        self._what, self._left = what, not alone or os.environ.get(SWITCH) == "0"
        self.forget()

    def forget(self) -> None:
        """What is captured is of weights or moments that are in other places now."""
        self.graphs: dict[Hashable, _Graph] = {}
        self._n_seen: Counter[Hashable] = Counter()

    def step(self, work: Work, x: Tensor, y: Tensor | None, now: Now, settings: Hashable = None) -> Parts:
        """What work(x, y, now) returns: scalars, or of each dictionary one, as float64 where a graph made them. settings: of
        the host, that may change and that work reads."""
        device = None if self._left else device_of(x)
        if device is None:
            return work(x, y, now)
        kind = now.kind, settings, *((t.shape, t.dtype) for t in (x, y) if t is not None)
        graph = self.graphs.pop(kind, None)
        if graph is None:
            self._n_seen[kind] += 1
            if self._n_seen[kind] <= N_BEFORE:
                parts, waits = device.aside(partial(work, x, y, now), watched=self._n_seen[kind] == N_BEFORE)
                if waits:
                    self._leave("the host waits for a value of the device")
                return parts
            try:
                graph = _Graph(device, work, x, y, now.at_any())
            except Exception as error:  # a capture fails by whatever the step does that a graph cannot
                first = error.__context__ or error  # before the end of the capture failed, too
                self._leave((str(first).strip().splitlines() or [type(first).__name__])[0])
                return work(x, y, now)
        self.graphs[kind] = graph  # the last used last
        if len(self.graphs) > _MOST:
            del self.graphs[next(iter(self.graphs))]
        return graph.replay(x, y)

    def _leave(self, why: str) -> None:
        self.forget()
        self._left = True
        tqdm.write(f"{self._what} trains without CUDA graphs, its step cannot be captured: {why}")


class _Graph:
    def __init__(self, device: "Cuda", work: Work, x: Tensor, y: Tensor | None, now: Now) -> None:
        self._places = [None if t is None else device.place(role, t) for role, t in (("x", x), ("y", y))]
        tensors = [None if place is None else place.tensor for place in self._places]
        names: list[str] = []

        def run() -> Tensor:
            parts = work(tensors[0], tensors[1], now)  # type: ignore[arg-type]
            names.extend(parts)
            return torch.stack([part.detach().double() for part in parts.values()])

        self._parts, self._again = device.captured(run)
        self._names = names

    def replay(self, *given: Tensor | None) -> Parts:
        for place, t in zip(self._places, given, strict=True):
            if place is not None and t is not None:
                place.hold(t)
        self._again()
        return dict(
            zip(self._names, self._parts.clone().unbind(), strict=True)
        )  # the next graph may work in this memory


class _Place:
    """Where the graphs of all learners of a site read a batch."""

    def __init__(self, like: Tensor) -> None:
        self.tensor = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        self._held: tuple[Tensor, int] | None = None

    def hold(self, x: Tensor) -> None:
        if self._held is None or self._held[0] is not x or self._held[1] != x._version:
            self.tensor.copy_(x)
            self._held = x, x._version


class Cuda:
    """What captures on one device have in common: a stream, the memory that graphs work in, and the places of batches.

    Graphs that share memory must not run at once, and what one leaves there must be copied before the next: all are replayed
    on one stream, and what lasts, weights, moments and buffers, was there before the capture.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()
        self._places: WeakValueDictionary[Hashable, _Place] = WeakValueDictionary()

    def place(self, role: str, x: Tensor) -> _Place:
        key = role, x.shape, x.dtype
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = _Place(x)
        return found

    def aside(self, work: Callable[[], Parts], watched: bool) -> tuple[Parts, bool]:
        """(what work makes on the stream of captures, whether it was seen that the host waits meanwhile)."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = waits_of(work) if watched else (work(), False)
        current.wait_stream(self._stream)
        return found

    def captured(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], Any]]:
        """(what work returns once it has run, what runs it). work is not run here."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # the first steps' memory was the capture stream's: graphs have their own
        # Not torch.cuda.graph: after a capture that failed it leaves its stream the current one.
        with torch.cuda.stream(self._stream):
            # "thread_local": the loader's thread copies meanwhile, which a "global" capture forbids
            graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
            try:
                found = work()
            finally:
                try:
                    graph.capture_end()
                except Exception:
                    with suppress(Exception):  # else PyTorch keeps what other streams free, for a capture under way
                        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._memory)  # type: ignore[attr-defined]
                    raise
        return found, graph.replay


def waits_of(work: Callable[[], Parts]) -> tuple[Parts, bool]:
    """(what work makes, whether PyTorch saw the host wait for a device)."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            made = work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return made, any("called a synchronizing" in str(one.message) for one in told)


_cuda = cache(Cuda)


def device_of(x: Tensor) -> Cuda | None:
    """What captures the steps on the device of x; None: nothing does there."""
    return _cuda(x.device) if x.device.type == "cuda" else None
