"""Ranks that are threads of one process, for checks that need no other processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.train.ranks import Parallel, Ranks


@dataclass(frozen=True)
class _Meeting:
    """Where threads leave what they bring."""

    barrier: Barrier
    brought: list[Any]


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process."""

    meeting: _Meeting = field(default_factory=lambda: _Meeting(Barrier(1), [None]))

    def reduced(self, x: Tensor, by: Literal["sum", "min"]) -> Tensor:
        parts = torch.stack(self.each(x))
        return x.copy_(parts.sum(0) if by == "sum" else parts.amin(0))

    def started(self, x: Tensor) -> Callable[[], object]:
        self.reduced(x, "sum")
        return lambda: None

    def exchanged(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        return torch.stack([other[self.rank] for other in self.each(x)]), lambda: None

    def shared(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        return torch.cat(self.each(x)), lambda: None

    def each(self, x: Tensor) -> list[Tensor]:
        self.meeting.brought[self.rank] = x.clone()
        self.meeting.barrier.wait(60)
        found = list(self.meeting.brought)
        self.meeting.barrier.wait(60)
        return found


def in_threads(n: int, parallel: Parallel, work: Callable[[Ranks], Any]) -> list[Any]:
    """What work(ranks) returns in each of n threads that learn together. Raises what the first of them raised."""
    meeting, raised = _Meeting(Barrier(n), [None] * n), []

    def one(rank: int) -> Any:
        try:
            return work(Threads(rank, n, parallel, meeting))
        except BaseException as error:
            raised.append(error)
            meeting.barrier.abort()

    with ThreadPoolExecutor(n) as pool:
        found = list(pool.map(one, range(n)))
    if raised:
        raise raised[0]
    return found
