"""Graphs of CPU tensors: what a step sends to PyTorch, with its very tensors and numbers, sent again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.train.captured import Cuda, Parts

_LOOKS = {
    "_local_scalar_dense",
    "lift_fresh",
    "nonzero",
    "equal",
    "is_nonzero",
}  # at a value, or makes a tensor of the host's


def tensors_of(parts: Any) -> list[Tensor]:
    if isinstance(parts, Tensor):
        return [parts]
    return [x for part in parts for x in tensors_of(part)] if isinstance(parts, list | tuple) else []


def memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class Tape(TorchDispatchMode):
    """Keeps each operation with its arguments and what it made. before: memory that operations wrote to, as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        self.own: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _LOOKS:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        for given, declared in zip(args, func._schema.arguments, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                for x in tensors_of(given):
                    if memory(x) not in self.own:
                        whole = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
                        self.before.setdefault(memory(x), (whole, whole.clone()))
        made = func(*args, **kwargs)
        given = {memory(x) for x in tensors_of([args, list(kwargs.values())])}
        new = [
            x if memory(x) not in given else None for x in tensors_of(made)
        ]  # else it is seen through what was given
        self.own |= {memory(x) for x in new if x is not None}
        if new.count(None) < len(new) or not new or func._schema.is_mutable:
            self.calls.append((func, args, kwargs, new))
        return made

    def undo(self) -> None:
        for whole, before in self.before.values():
            whole.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            for old, new in zip(made, tensors_of(func(*args, **kwargs)), strict=True):
                if old is not None:
                    assert old.shape == new.shape, f"{func} made {tuple(old.shape)}, now {tuple(new.shape)}"
                    old.copy_(new)


class Replayed(Cuda):
    """A device that is this machine's memory. It captures as CUDA does: what is captured is not done, and a look at a value is
    an error."""

    def __init__(self) -> None:
        self._places, self.n_captured, self.n_replayed = {}, 0, 0  # type: ignore[assignment]

    def aside(self, work: Callable[[], Parts], watched: bool) -> tuple[Parts, bool]:
        return work(), False

    def captured(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], Any]]:
        tape = Tape()
        try:
            with tape:
                found = work()
        finally:
            tape.undo()
        self.n_captured += 1

        def again() -> None:
            self.n_replayed += 1
            tape.replay()

        return found, again
