"""What changes from step to step, for a device: in tensors that stay in their places."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.train import static
from pipeline.train.families.base import Family
from pipeline.train.families.loss import Now


class Clock:
    """Of one learner, or of one stack."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, ...], Float[Tensor, " n"]] = {}

    def now(self, model: Family, step: int, n_steps: int, any_dead: bool) -> Now:
        """What the model's schedule says of a step. On a device it holds until the next one is asked for."""
        scheduled: dict[str, float | Tensor] = {**model.schedule(step, n_steps)}
        if static.wanted(model.tokens_since_fired):
            changing = {name: value for name, value in scheduled.items() if isinstance(value, float)}
            names = tuple(changing)
            if names not in self._places:
                self._places[names] = torch.zeros(len(names), device=model.tokens_since_fired.device)
            send(list(changing.values()), self._places[names])
            scheduled.update(zip(names, self._places[names].unbind(), strict=True))
        return Now(step, n_steps, any_dead, scheduled)


def send(numbers: Sequence[float], places: Float[Tensor, " n"]) -> None:
    """Put numbers into their places on a device, for what it does next. The host does not wait: PyTorch gives pinned memory to
    nobody else before it was copied."""
    given = torch.tensor(numbers, dtype=torch.float32, pin_memory=places.device.type == "cuda")
    places.copy_(given, non_blocking=True)
