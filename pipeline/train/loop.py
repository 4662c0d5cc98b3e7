"""Several dictionaries on one read of the store."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import Learner
from pipeline.train.source import Source
from pipeline.train.stack import Stack
from stores.loader import Batch


@dataclass(frozen=True)
class StepReport:
    """step: batches learned from so far. metrics: per dictionary, scalars of its last batch, still on the device."""

    step: int
    metrics: dict[str, dict[str, Tensor]]


def train(
    learners: Mapping[str, Learner], batches: Iterable[Batch], source: Source, n_steps: int
) -> Iterator[StepReport]:
    """Show every batch to every learner of a site. Each learns what it would have learned alone.

    learners: some may be taken out between steps.
    """
    n_learners = -1
    for batch in batches:
        if len(learners) != n_learners:
            alone, stacks = _stacks(learners)
            n_learners = len(learners)
        x = joined(batch, source.reads.hook_points)
        y = joined(batch, source.writes.hook_points) if source.writes and not source.autoencodes else None
        metrics = {name: learners[name].step(x, batch.step, n_steps, y) for name in alone}
        for names, stack in stacks:
            metrics.update(zip(names, stack.step(x, batch.step, n_steps, y), strict=True))
        yield StepReport(batch.step + 1, metrics)


def joined(batch: Batch, hook_points: tuple[str, ...]) -> Tensor:
    """(batch, d) float32 rows of several hook points side by side."""
    rows = [batch.x[hook_point] for hook_point in hook_points]
    return (rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)).float()


def _stacks(learners: Mapping[str, Learner]) -> tuple[list[str], list[tuple[list[str], Stack]]]:
    """Who learns alone, and who learns in one product."""
    shapes: dict[Hashable, list[str]] = defaultdict(list)
    for name, learner in learners.items():
        if isinstance(learner, FamilyLearner) and learner.shape is not None:
            shapes[learner.shape].append(name)
    several = [names for names in shapes.values() if len(names) > 1]
    alone = [name for name in learners if not any(name in names for names in several)]
    return alone, [(names, Stack([learners[name] for name in names])) for names in several]  # type: ignore[misc]
