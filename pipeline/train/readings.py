"""Numbers on their way from the device to the host."""

from collections.abc import Mapping

import torch
from torch import Tensor

Values = dict[str, dict[str, float]]


class Copy:
    """A tensor as it is now, for the host to read when its copy is there."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)  # from a device into memory that it can write to by itself
        self._written = None
        if tensor.device.type != "cpu":
            self._written = torch.Event(tensor.device)
            self._written.record()

    def read(self) -> Tensor:
        """Waits for the copy alone."""
        if self._written is not None:
            self._written.synchronize()
        return self._copy


class Readings:
    """What each dictionary reports, read together by one copy. Of a device it is read when its next step has been sent, so
    that the device always has work; of a CPU at once."""

    def __init__(self, device: str) -> None:
        self.behind = torch.device(device).type != "cpu"
        self._under_way: list[_Reading] = []

    def send(self, step: int, metrics: Mapping[str, Mapping[str, Tensor]]) -> None:
        """metrics: scalars of the step, by dictionary."""
        self._under_way.append(_Reading(step, metrics))

    def arrived(self, step: int, *, all_of_them: bool = False) -> list[tuple[int, Values]]:
        """(step, values) of what was sent before this step, once each; on a CPU, or if all are asked for, of this step
        too."""
        due = [own for own in self._under_way if own.step < step or all_of_them or not self.behind]
        self._under_way = [own for own in self._under_way if own not in due]
        return [(own.step, own.values()) for own in due]


class _Reading:
    def __init__(self, step: int, metrics: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.step = step
        self._names = {name: list(own) for name, own in metrics.items()}
        found = [value.detach().double() for own in metrics.values() for value in own.values()]
        self._copy = Copy(torch.stack(found) if found else torch.zeros(0))

    def values(self) -> Values:
        found = iter(self._copy.read().tolist())
        return {name: {key: next(found) for key in keys} for name, keys in self._names.items()}
