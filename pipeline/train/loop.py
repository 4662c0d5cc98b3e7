"""Several dictionaries on one read of the store."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.train.methods import Learner
from stores.loader import Batch


@dataclass(frozen=True)
class StepReport:
    """step: batches learned from so far. metrics: per dictionary, scalars of its last batch, still on the device."""

    step: int
    metrics: dict[str, dict[str, Tensor]]


def train(
    learners: Mapping[str, Learner], batches: Iterable[Batch], hook_point: str, n_steps: int
) -> Iterator[StepReport]:
    """Show every batch to every learner. Each learns what it would have learned alone."""
    for batch in batches:
        x = batch.x[hook_point].float()
        yield StepReport(
            batch.step + 1, {name: learner.step(x, batch.step, n_steps) for name, learner in learners.items()}
        )
