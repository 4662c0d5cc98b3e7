"""Whether a feature can be dead, on a device whose values the host reads some steps later."""

from collections import deque

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from pipeline.train.readings import Copy

_STEPS = 4  # so far the host may be ahead of the device before it waits


class Foresight:
    """No feature has been silent for longer than the longest silence some steps ago and the tokens since. Where that is not
    dead_after, none is dead, and what is done for the dead can be left out; else some may be."""

    def __init__(self) -> None:
        self._shown = 0  # tokens
        self._under_way: deque[tuple[int, Copy]] = deque()

    def any_dead(self, dead_after: int) -> bool:
        """Whether some may be at the step that begins. At the first steps the host does not know."""
        if len(self._under_way) < _STEPS:
            return True
        shown, longest = self._under_way.popleft()
        return int(longest.read()) + self._shown - shown > dead_after

    def follow(self, longest: Shaped[Tensor, ""], n_tokens: int) -> None:
        """After a step of n_tokens. longest: silence of a feature, in tokens."""
        self._shown += n_tokens
        self._under_way.append((self._shown, Copy(longest)))

    def state(self) -> Int64[Tensor, "n 2"]:
        """(tokens since, longest silence) of what it has not answered with: a run that goes on from there answers as one that
        was not interrupted, and so takes the same steps."""
        known = [(self._shown - shown, int(longest.read())) for shown, longest in self._under_way]
        return torch.tensor(known, dtype=torch.int64).reshape(-1, 2)

    def load(self, state: Int64[Tensor, "n 2"]) -> None:
        self._shown = 0
        self._under_way = deque((-ago, Copy(torch.tensor(longest))) for ago, longest in state.tolist())
