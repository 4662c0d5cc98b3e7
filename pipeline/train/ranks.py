"""Several processes that train the same dictionaries, as torchrun starts them: by parts of each batch, or of the features.

Each function is a collective: all processes call it, in the same order. With one process it does nothing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import UserError
from pipeline.torchrun import variable

T = TypeVar("T")
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # PyTorch 2.13 has another name for it
Parallel = Literal["data", "features"]
_AS_LONG_AS_IT_TAKES = timedelta(days=365)


@dataclass(frozen=True)
class Ranks:
    """parallel: "data": each process sees its rows of a batch and holds whole dictionaries; "features": each sees whole
    batches and holds its part of every dictionary's features.

    waiting: where processes wait for what takes long in one of them, a fit, a checkpoint, another job's unit. It goes over
    gloo, which has no time-out here and sees at once when a process has died; sums over devices have the backend's.
    """

    rank: int = 0
    size: int = 1
    parallel: Parallel = "data"
    waiting: Any = field(default=None, repr=False, compare=False, kw_only=True)
    _n_rows: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def join(parallel: Parallel, device: str) -> "Ranks":
        """Meet the processes that torchrun started beside this one, if it did.

        Raises UserError: a variable that torchrun sets is missing, or is not what it would set.
        """
        size = variable("WORLD_SIZE", 1, at_least=1)
        rank = variable("RANK", 0 if size == 1 else None)
        if rank >= size:
            raise UserError(
                f"RANK = {rank} in the environment, but WORLD_SIZE = {size}: start with torchrun, or unset both"
            )
        if size > 1 and not dist.is_initialized():
            if not os.environ.get("MASTER_ADDR"):
                raise UserError(f"MASTER_ADDR is not set in the environment, WORLD_SIZE = {size}: start with torchrun")
            variable("MASTER_PORT", None, at_least=1, at_most=65535)
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
        waiting = dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES) if size > 1 else None
        return Ranks(rank, size, parallel, waiting=waiting)

    @property
    def splits_rows(self) -> bool:
        return self.size > 1 and self.parallel == "data"

    @property
    def splits_features(self) -> bool:
        return self.size > 1 and self.parallel == "features"

    def shard(self, d_sae: int) -> slice:
        """The features that this process holds."""
        if not self.splits_features:
            return slice(0, d_sae)
        return slice(d_sae * self.rank // self.size, d_sae * (self.rank + 1) // self.size)

    def n_own(self, n: int) -> int:
        """How many of a batch's first n rows this process sees."""
        return len(range(self.rank, n, self.size)) if self.splits_rows else n

    def reduced(self, x: Tensor, by: Literal["sum", "min"]) -> Tensor:
        """x, in its place, of all processes together."""
        dist.all_reduce(x, dist.ReduceOp.SUM if by == "sum" else dist.ReduceOp.MIN)
        return x

    def started(self, x: Tensor) -> Callable[[], object]:
        """The sum of all processes' x goes into it while this one goes on. Returns what waits for it."""
        work = dist.all_reduce(x, async_op=True)
        assert work is not None
        return work.wait

    def exchanged(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        """(y, what waits for it): row r of x goes to process r, and what process r sends here is row r of y."""
        y = torch.empty_like(x)
        work = dist.all_to_all_single(y, x, async_op=True)
        assert work is not None
        return y, work.wait

    def shared(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        """(y, what waits for it): what all processes bring, one behind the other."""
        y = x.new_empty((self.size * len(x), *x.shape[1:]))
        work = _all_gather(y, x, async_op=True)
        assert work is not None
        return y, work.wait

    def each(self, x: Tensor) -> list[Tensor]:
        """Every process's x, of one shape."""
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x)
        return parts

    def total(self, x: Tensor) -> Tensor:
        """The sum over all processes; no gradient."""
        if self.size > 1:
            x = self.reduced(x.detach().clone(), "sum")
        return x

    def first(self, x: Tensor) -> Tensor:
        """x as the first process has it."""
        return self.total(x if self.rank == 0 else torch.zeros_like(x))

    def n_rows(self, n: int) -> int:
        """Rows of the whole batch of which this process has n. The others are asked once, and not by a device."""
        if not self.splits_rows:
            return n
        if n not in self._n_rows:
            self._n_rows[n] = int(self.total(torch.tensor(n)))
        return self._n_rows[n]

    def smallest(self, x: Tensor) -> Tensor:
        """The least of all processes' x."""
        if self.size > 1:
            x = self.reduced(x.detach().clone(), "min")
        return x

    def whole_sum(self, part: Tensor) -> Tensor:
        """The sum of what each process's features contribute; each gets the whole gradient for its part."""
        return _SumOfShards.apply(part, self) if self.splits_features else part  # type: ignore[return-value]

    def gathered(self, x: Tensor) -> list[Tensor]:
        """Every process's x; the shapes may differ along dimension 0."""
        if self.size == 1:
            return [x]
        lengths = self.each(torch.tensor([len(x)], device=x.device))
        longest = max(int(n) for n in lengths)
        padded = torch.zeros((longest, *x.shape[1:]), dtype=x.dtype, device=x.device)
        padded[: len(x)] = x
        return [part[: int(n)] for part, n in zip(self.each(padded), lengths, strict=True)]

    def whole_batch(self, x: Tensor) -> Tensor:
        """The rows of the whole batch in their order, of which process r has those from r on in steps of `size`."""
        if not self.splits_rows:
            return x
        parts = self.gathered(x)
        whole = torch.empty((sum(map(len, parts)), *x.shape[1:]), dtype=x.dtype, device=x.device)
        for r, part in enumerate(parts):
            whole[r :: self.size] = part
        return whole

    def kept_of_largest(self, values: Tensor, k: int) -> Tensor:
        """(batch, m) bool, m ≤ k: which of this process's values are among the k largest of their row over all processes.

        Of equal ones those of lower ranks come first, so that there are exactly k.
        """
        m = values.shape[1]
        everyone = torch.cat(self.each(F.pad(values.detach(), (0, k - m), value=-torch.inf)), dim=1)
        best = everyone.sort(dim=-1, descending=True, stable=True).indices[:, :k]
        kept = torch.zeros_like(everyone, dtype=torch.bool).scatter(1, best, True)
        return kept[:, self.rank * k :][:, :m]

    def agreed(self, value: T) -> T:
        """The first process's value."""
        return self.decided(lambda: value)

    def decided(self, decide: Callable[[], T]) -> T:
        """What the first process decides, however long it takes; the others do not look. What it raises, all raise."""
        if self.size == 1:
            return decide()
        box = [_outcome(decide) if self.rank == 0 else None]
        dist.broadcast_object_list(box, group=self.waiting)
        return _result(box[0])

    def of_each(self, work: Callable[[], T]) -> list[T]:
        """What each process makes of it, once all have, however long that takes. What one raises, all raise."""
        if self.size == 1:
            return [work()]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, _outcome(work), group=self.waiting)
        return [_result(outcome) for outcome in found]

    def in_any(self, found: bool) -> bool:
        """Whether it is so in one of the processes."""
        return any(self.of_each(lambda: found))

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier(self.waiting)

    def leave(self) -> None:
        """Part, all at once: one that ends before the others closes the connections that they still have."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _result(outcome: Any) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value


class _SumOfShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:  # type: ignore[override]
        return ranks.reduced(part.clone(), "sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


ALONE = Ranks()
