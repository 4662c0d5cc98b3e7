"""CUDA devices that are this machine's memory: what is asked of torch.cuda, by which thread, and which device was current."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch


class Event:
    pass


class Stream:
    def record_event(self) -> Event:
        return Event()

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)


@dataclass
class FakeCuda:
    """calls: (what, device that it is for or None where it goes by the current one, current device, thread)."""

    n: int
    calls: list[tuple[str, int | None, int, int]] = field(default_factory=list)
    current: threading.local = field(default_factory=threading.local)

    def now(self) -> int:
        return getattr(self.current, "index", 0)

    def called(self, what: str, device: Any = None) -> None:
        index = None if device is None else torch.device(device).index
        self.calls.append((what, index, self.now(), threading.get_ident()))

    def set_device(self, device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        assert index is not None
        assert index < self.n
        self.current.index = index

    def threads(self) -> set[int]:
        return {thread for *_, thread in self.calls}


def faked(monkeypatch: pytest.MonkeyPatch, n: int) -> FakeCuda:
    """Have torch find n CUDA devices. Tensors "on" them are on the CPU."""
    fake = FakeCuda(n)
    to, empty = torch.Tensor.to, torch.empty

    def moved(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if args and isinstance(args[0], str | torch.device) and torch.device(args[0]).type == "cuda":
            fake.called("to", args[0])
            return x.clone()
        return to(x, *args, **options)

    def pinned(x: torch.Tensor) -> torch.Tensor:
        fake.called("pin")
        return x

    def made(*args: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            fake.called("pin")
        return empty(*args, **options)

    def stream(device: Any) -> Stream:
        fake.called("stream", device)
        return Stream()

    @contextlib.contextmanager
    def within(_: Stream) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, s: fake.called("record"))
    monkeypatch.setattr(torch, "empty", made)
    for name, value in {
        "is_available": lambda: n > 0,
        "device_count": lambda: n,
        "current_device": fake.now,
        "set_device": fake.set_device,
        "Stream": stream,
        "stream": within,
        "current_stream": stream,
        "mem_get_info": lambda device: (1 << 40, 1 << 40),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return fake
