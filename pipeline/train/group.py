"""Dictionaries of one site that learn together, from where they stand to the end."""

import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipeline import failures, stopping
from pipeline.claims import Claims
from pipeline.progress import progress
from pipeline.train import checkpoint, logs
from pipeline.train.config import TrainConfig
from pipeline.train.learner import FamilyLearner
from pipeline.train.loop import train
from pipeline.train.methods import Learner
from pipeline.train.readings import Readings, Values
from pipeline.train.source import Source
from pipeline.train.tasks import Task
from pipeline.units import Unit, versions
from stores.activations import ActivationStore
from stores.loader import BatchLoader

_LOG_EVERY = 10  # steps


def provenance(recipe: str, store: ActivationStore, task: Task, unit: Unit) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "method": task.method,
        "settings": unit.settings,
        "key": unit.key,
        "reads": list(task.site.reads),
        "writes": list(task.site.writes),
        "store_digest": store.digest,
        "model": store.description.model,
        "model_revision": store.description.model_revision,
        "model_digest": store.description.model_digest,
        "weight_processing": store.description.weight_processing,
        "text": store.description.text,
        "unmix": versions()["unmix"],
    }


class Group:
    """Dictionaries of one site that stand at the same step."""

    def __init__(
        self,
        recipe: str,
        config: TrainConfig,
        store: ActivationStore,
        source: Source,
        items: dict[str, tuple[Task, Unit]],
        device: str,
        claims: Claims,
    ) -> None:
        self.recipe, self.config, self.store = recipe, config, store
        self.items, self.device, self.claims = items, device, claims
        self.ranks, self.first = source.ranks, source.ranks.rank == 0
        self.source, self.where = source, source.site.name
        self.learners: dict[str, Learner] = {}  # those that have not diverged
        self.diverged: list[str] = []
        self.logs: dict[str, list[logs.Log]] = {}
        for name, (task, _) in items.items():
            make = task.made_by.learner
            assert make is not None
            self.learners[name] = make(task.config, source, device)

    def folder(self, name: str) -> Path:
        return self.items[name][1].folder

    def run(self, start: int) -> list[str]:
        """Train to the end. Returns a line for each that diverged: it is left as its last checkpoint has it, and the
        others go on as if it had not been there."""
        config, n_steps, started = self.config, self.config.n_steps, time.time()
        self._leave_lost()
        if not self.learners:
            return self.diverged
        for name, learner in self.learners.items():
            if start:
                learner.load_state(self._read(name, start))
            if self.first:
                self.items[name][1].begin(done=start)
                self.logs[name] = logs.open_logs(self.items[name][1], self.where, config, start)
        self.ranks.wait()
        loader = BatchLoader(
            self.store,
            self._hook_points(),
            config.batch_size,
            seed=config.seed,
            n_steps=n_steps,
            first_step=start,
            window_chunks=config.window_chunks,
            residency=config.residency,
            device=self.device,
            rank=self.ranks.rank if self.ranks.splits_rows else 0,
            world_size=self.ranks.size if self.ranks.splits_rows else 1,
        )
        try:
            self._learn(loader)
        finally:
            for log in [log for own in self.logs.values() for log in own]:
                log.close()
        if self.ranks.splits_features:
            self._save(n_steps)  # for the first, to make whole dictionaries of
        else:
            self._leave_lost()
            self._drop(n_steps, [name for name, learner in self.learners.items() if _nonfinite(learner.state())])
        for name in self.learners if self.first else ():
            task, unit = self.items[name]
            record = logs.last(unit.folder / logs.METRICS)
            told = task.config.warnings(record, self.source.reads.d) if record else []
            found = provenance(self.recipe, self.store, task, unit) | ({"warnings": told} if told else {})
            dictionary = self._of_all_features(name).to_dictionary(found)
            for line in told:
                tqdm.write(f"{name} at {self.where}: {line}")
            dictionary.save(unit.folder)
            unit.finish(self.device, time.time() - started, record)
            shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)
        self.ranks.wait()
        return self.diverged

    def _learn(self, loader: BatchLoader) -> None:
        """Show all batches to the learners. Raises Stopped, once these are saved."""
        config, n_steps, saved_at = self.config, self.config.n_steps, time.monotonic()
        tokens_per_step = config.batch_size * len(self.learners)
        with progress(
            total=n_steps * tokens_per_step, initial=loader.first_step * tokens_per_step, unit="token",
            desc=f"train {len(self.learners)} at {self.where}", disable=not self.first,
        ) as bar:  # fmt: skip
            readings = Readings(self.device)
            for report in train(self.learners, loader, self.source, n_steps):
                bar.update(tokens_per_step)
                last = report.step == n_steps
                due = bool(config.checkpoint_every_steps) and report.step % config.checkpoint_every_steps == 0
                talking = report.step % _LOG_EVERY == 0 or last  # then processes wait for each other anyway
                if talking:
                    readings.send(report.step, report.metrics)
                self._note(readings.arrived(report.step, all_of_them=last))
                if talking:
                    due = self.ranks.agreed(due or time.monotonic() - saved_at > config.checkpoint_every_s)
                if talking or self.ranks.size == 1:
                    due = self.ranks.in_any(stopping.asked()) or due
                if due and not last:
                    self._note(readings.arrived(report.step, all_of_them=True))  # what is resumed is not logged again
                    self._save(report.step)
                    saved_at = time.monotonic()
                    # Here the others wait until the first has saved.
                    if self.ranks.in_any(stopping.asked()):
                        n = len(self.learners)
                        what = f"{n} dictionar{'y' if n == 1 else 'ies'} at {self.where}"
                        stopping.stop(f"{what} saved at step {report.step:,} of {n_steps:,}")
                if not self.learners:
                    break

    def _drop(self, step: int, names: list[str]) -> None:
        """Leave those that are not finite, in this process or another."""
        found = set().union(*self.ranks.of_each(lambda: names))
        for name in [name for name in self.learners if name in found]:
            del self.learners[name]
            saved = checkpoint.steps(self.folder(name) / "checkpoints")
            kept = f"its state of step {saved[-1]} is kept" if saved else "no checkpoint was written before"
            self.diverged.append(f"{name} at {self.where} diverged before step {step}, {kept}")
            tqdm.write(self.diverged[-1])
            if self.first:
                failures.keep(self.folder(name), self.diverged[-1])

    def _leave_lost(self) -> None:
        """Leave those to their new owners that another process took over while this one stood still."""
        units = {name: self.items[name][1] for name in self.learners}
        for name in self.ranks.decided(lambda: [n for n, u in units.items() if not self.claims.still_holds(u)]):
            del self.learners[name]

    def _save(self, step: int) -> None:
        self._leave_lost()
        states = {name: learner.state() for name, learner in self.learners.items()}
        self._drop(step, [name for name, state in states.items() if _nonfinite(state)])
        for name, state in [(name, states[name]) for name in self.learners]:
            folder = self.folder(name) / "checkpoints"
            learner = self.learners[name]
            divided = learner.divided(state) if isinstance(learner, FamilyLearner) else []
            if divided:
                own = state if self.first else {part: state[part] for part in divided}
                parts = self.ranks.of_each(partial(checkpoint.write_part, folder, step, own, self.ranks.rank))
                if self.first:
                    checkpoint.join(folder, step, parts, divided)
            elif self.first:
                checkpoint.write(folder, step, state)
        for name in self.learners if self.first else ():
            checkpoint.prune(self.folder(name) / "checkpoints", step)

    def _read(self, name: str, step: int) -> dict[str, torch.Tensor]:
        """What this process holds of a checkpoint."""
        folder, learner = self.folder(name) / "checkpoints", self.learners[name]
        return (
            checkpoint.read(folder, step, learner.own)
            if isinstance(learner, FamilyLearner)
            else checkpoint.read(folder, step)
        )

    def _of_all_features(self, name: str) -> Learner:
        """One that holds a whole dictionary: on the CPU, from the last checkpoint, where no process does."""
        learner = self.learners[name]
        if not (self.ranks.splits_features and isinstance(learner, FamilyLearner)):
            return learner
        whole = learner.alone()
        whole.load_state(checkpoint.read(self.folder(name) / "checkpoints", self.config.n_steps))
        return whole

    def _hook_points(self) -> tuple[str, ...]:
        """What a batch has to hold."""
        writes = self.source.writes.hook_points if self.source.writes else ()
        return tuple(dict.fromkeys(self.source.reads.hook_points + writes))

    def _note(self, readings: list[tuple[int, Values]]) -> None:
        """Log what the learners reported, less those that have diverged."""
        for step, metrics in readings:
            self._drop(step, [n for n, own in metrics.items() if not all(map(math.isfinite, own.values()))])
            self._log(step, metrics)

    def _log(self, step: int, metrics: Values) -> None:
        for name in self.learners if self.first else ():
            record = {"step": step, "tokens": step * self.config.batch_size}
            record |= {key: round(value, 6) for key, value in metrics[name].items()}
            if "mse" in record:
                # rows are scaled to E|y - mean|² = d_out
                record[self.items[name][0].config.fvu_name] = round(record["mse"] / self.source.targets.d, 6)
            for log in self.logs[name]:
                log.write(record)


def _nonfinite(tensors: dict[str, torch.Tensor]) -> bool:
    return any(t.is_floating_point() and not bool(t.isfinite().all()) for t in tensors.values())
