"""train: an activation store → feature dictionaries."""

import importlib.metadata
import shutil
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline.claims import Claims
from pipeline.config import UserError
from pipeline.progress import progress
from pipeline.recipe import DictionaryPlan, Recipe, TrainConfig, plan_dictionaries, settings_json
from pipeline.train import checkpoint, logs
from pipeline.train.families.base import FamilyConfig
from pipeline.train.loop import train
from pipeline.train.methods import METHODS, Learner
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.source import Source, Weights
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.loader import BatchLoader

VERSION = 1
_LOG_EVERY = 10
_SHARDED = ("topk", "batch_topk")  # methods that parallel = "features" can train


def plan(recipe: Recipe, run: Path, store: ActivationStore) -> list[tuple[DictionaryPlan, Unit]]:
    """One unit per dictionary. Raises UserError: settings that do not fit the store."""
    config = recipe.train
    logs.check(config)
    if config.batch_size > store.n_train_rows:
        raise UserError(f"train.batch_size = {config.batch_size}, but the store has {store.n_train_rows} training rows")
    plans = plan_dictionaries(recipe, store.d, store.hook_points)
    if config.parallel == "features":
        for p in plans:
            whole = isinstance(p.config, FamilyConfig) and (p.config.resample_every_tokens or p.config.grad_clip)
            if p.method not in _SHARDED or whole:
                raise UserError(
                    f'train.{p.method} at {p.hook_point}: parallel = "features" is for {" and ".join(_SHARDED)}, without '
                    f"resampling and grad_clip"
                )
    if not plans:
        raise UserError(f"the recipe trains nothing: add a table [train.METHOD], METHOD one of {', '.join(METHODS)}")
    for p in plans:
        c = p.config
        if isinstance(c, FamilyConfig) and c.init == "data" and c.d_sae > store.n_train_rows:
            found = f'init = "data" takes d_sae = {c.d_sae} training rows'
            raise UserError(f"train.{p.method} at {p.hook_point}: {found}, the store has {store.n_train_rows}")
    return [(p, _unit(p, config, run, store)) for p in plans]


def _unit(plan: DictionaryPlan, config: TrainConfig, run: Path, store: ActivationStore) -> Unit:
    shared: dict[str, Any] = {"seed": config.seed, "window_chunks": config.window_chunks}
    if METHODS[plan.method].learner:
        shared |= {"batch_size": config.batch_size, "n_tokens": config.n_tokens, "precision": config.precision}
    settings = {"hook_point": plan.hook_point, plan.method: settings_json(plan.config), **shared}
    folder = run / "train" / plan.hook_point / plan.name
    return Unit("train", plan.name, folder, VERSION, settings, {"store_digest": store.digest})


def how_far(plan: DictionaryPlan, unit: Unit, config: TrainConfig) -> tuple[int, int, str, Path]:
    """(done, of, unit of counting, what grows with it), from the last line of the unit's log."""
    log = unit.folder / logs.METRICS
    if METHODS[plan.method].fit:
        return 0, 1, "fit", log
    return logs.last(log).get("step", 0), config.n_steps, "steps", log


def sweep(units: list[Unit]) -> None:
    """Remove the checkpoints of finished units, if the process died before it could."""
    for unit in units:
        if unit.state() == "done":
            shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)


def execute(
    recipe: Recipe,
    store: ActivationStore,
    work: list[tuple[DictionaryPlan, Unit]],
    weights: Callable[[], Weights],
    device: str,
    claims: Claims,
    ranks: Ranks = ALONE,
) -> list[str]:
    """Make dictionaries, those of one hook point on one read of the store.

    work: with units that were begun. weights: of the model that the store was made from, for those who ask. claims: whose
    the units are. ranks: the processes that call this together; the first of them writes.
    Returns a line for each that diverged.
    """
    diverged: list[str] = []
    for hook_point, together in groupby(work, key=lambda item: item[0].hook_point):
        items = {plan.name: (plan, unit) for plan, unit in together}
        source = source_of_store(recipe.train, store, hook_point, weights, ranks)
        for plan, unit in [item for item in items.values() if METHODS[item[0].method].fit]:
            if ranks.rank == 0:
                _fit(recipe, store, source, plan, unit, device, claims)
            del items[plan.name]
        folders = {name: unit.folder / "checkpoints" for name, (_, unit) in items.items()}
        for start, names in ranks.decided(partial(checkpoint.groups, folders)):
            diverged += _Group(recipe, store, source, {n: items[n] for n in names}, device, claims).run(start)
        if ranks.rank == 0 and items:
            from pipeline.train.pictures import draw  # imported late: it takes a second

            draw(next(iter(items.values()))[1].folder.parent, hook_point)
    return diverged


def _provenance(recipe: Recipe, store: ActivationStore, plan: DictionaryPlan, unit: Unit) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "method": plan.method,
        "settings": unit.settings,
        "key": unit.key,
        "hook_point": plan.hook_point,
        "store_digest": store.digest,
        "model": store.description.model,
        "model_digest": store.description.model_digest,
        "weight_processing": store.description.weight_processing,
        "unmix": importlib.metadata.version("unmix"),
    }


def _fit(
    recipe: Recipe,
    store: ActivationStore,
    source: Source,
    plan: DictionaryPlan,
    unit: Unit,
    device: str,
    claims: Claims,
) -> None:
    fit, started = METHODS[plan.method].fit, time.time()
    assert fit is not None
    found = fit(plan.config, source, _provenance(recipe, store, plan, unit))
    if claims.still_holds(unit):
        found.save(unit.folder)
        unit.finish(device, time.time() - started)


def source_of_store(
    config: TrainConfig, store: ActivationStore, hook_point: str, weights: Callable[[], Weights], ranks: Ranks = ALONE
) -> Source:
    """What methods can know of a hook point of a store."""
    rows = cache(partial(_rows, config, store, hook_point))
    heldout = partial(_heldout, store, hook_point)
    return Source(hook_point, store.stats(hook_point), rows, heldout, cache(weights), ranks, config.precision)


def _rows(config: TrainConfig, store: ActivationStore, hook_point: str, n_rows: int) -> np.ndarray:
    """(n_rows, d) training rows, or all there are, in the order in which the learners see them."""
    n_rows = min(n_rows, store.n_train_rows)
    found = np.empty((n_rows, store.d(hook_point)), np.float32)
    if n_rows:
        size = min(n_rows, config.batch_size)
        n_steps = -(-n_rows // size)
        loader = BatchLoader(
            store,
            (hook_point,),
            size,
            seed=config.seed,
            n_steps=n_steps,
            window_chunks=config.window_chunks,
            residency="stream",
        )
        for batch in loader:
            start = batch.step * size
            found[start : start + size] = batch.x[hook_point].float().numpy()[: n_rows - start]
    return found


def _heldout(store: ActivationStore, hook_point: str, n_rows: int) -> np.ndarray:
    """(n_rows, d) held-out rows, or all there are, as far apart as in 16 times as many."""
    found = np.concatenate(list(store.heldout(hook_point, 16 * n_rows)))
    return found[:: max(1, len(found) // n_rows)][:n_rows].astype(np.float32)


class _Group:
    """Dictionaries of one hook point that stand at the same step."""

    def __init__(
        self,
        recipe: Recipe,
        store: ActivationStore,
        source: Source,
        items: dict[str, tuple[DictionaryPlan, Unit]],
        device: str,
        claims: Claims,
    ) -> None:
        self.recipe, self.store, self.items, self.device, self.claims = recipe, store, items, device, claims
        self.ranks, self.first = source.ranks, source.ranks.rank == 0
        self.hook_point = source.hook_point
        self.learners: dict[str, Learner] = {}  # those that have not diverged
        self.diverged: list[str] = []
        self.logs: dict[str, list[logs.Log]] = {}
        for name, (plan, _) in items.items():
            make = METHODS[plan.method].learner
            assert make is not None
            self.learners[name] = make(plan.config, source, device)

    def folder(self, name: str) -> Path:
        return self.items[name][1].folder

    def run(self, start: int) -> list[str]:
        """Train to the end. Returns a line for each that diverged: it is left as its last checkpoint has it, and the
        others go on as if it had not been there."""
        config, n_steps, started = self.recipe.train, self.recipe.train.n_steps, time.time()
        self._leave_lost()
        if not self.learners:
            return self.diverged
        for name, learner in self.learners.items():
            if start:
                learner.load_state(checkpoint.read(self.folder(name) / "checkpoints", start))
            if self.first:
                self.items[name][1].begin(done=start)
                self.logs[name] = logs.open_logs(self.items[name][1], self.hook_point, config, start)
        self.ranks.wait()
        loader = BatchLoader(
            self.store,
            (self.hook_point,),
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
        saved_at = time.monotonic()
        tokens_per_step = config.batch_size * len(self.learners)
        with progress(
            total=n_steps * tokens_per_step, initial=start * tokens_per_step, unit="token",
            desc=f"train {len(self.learners)} at {self.hook_point}", disable=not self.first,
        ) as bar:  # fmt: skip
            for report in train(self.learners, loader, self.hook_point, n_steps):
                bar.update(tokens_per_step)
                last = report.step == n_steps
                due = bool(config.checkpoint_every_steps) and report.step % config.checkpoint_every_steps == 0
                if report.step % _LOG_EVERY == 0 or last:
                    self._drop(report.step, [n for n, m in report.metrics.items() if _nonfinite(m)])
                    self._log(report.step, report.metrics)
                    due = self.ranks.agreed(due or time.monotonic() - saved_at > config.checkpoint_every_s)
                if due and not last:
                    self._save(report.step)
                    saved_at = time.monotonic()
                if not self.learners:
                    break
        for log in [log for own in self.logs.values() for log in own]:
            log.close()
        self._leave_lost()
        self._drop(n_steps, [name for name, learner in self.learners.items() if _nonfinite(learner.state())])
        for name, learner in self.learners.items():
            plan, unit = self.items[name]
            dictionary = learner.to_dictionary(self.hook_point, _provenance(self.recipe, self.store, plan, unit))
            if not self.first:
                continue
            dictionary.save(unit.folder)
            unit.headline.update(logs.last(unit.folder / logs.METRICS))
            unit.finish(self.device, time.time() - started)
            shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)
        self.ranks.wait()
        return self.diverged

    def _drop(self, step: int, names: list[str]) -> None:
        for name in self.ranks.agreed([name for name in names if name in self.learners]):
            del self.learners[name]
            saved = checkpoint.steps(self.folder(name) / "checkpoints")
            kept = f"its state of step {saved[-1]} is kept" if saved else "no checkpoint was written before"
            self.diverged.append(f"{name} at {self.hook_point} diverged before step {step}, {kept}")
            tqdm.write(self.diverged[-1])

    def _leave_lost(self) -> None:
        """Leave those to their new owners that another process took over while this one stood still."""
        units = {name: self.items[name][1] for name in self.learners}
        for name in self.ranks.decided(lambda: [n for n, u in units.items() if not self.claims.still_holds(u)]):
            del self.learners[name]

    def _save(self, step: int) -> None:
        self._leave_lost()
        states = {name: learner.state() for name, learner in self.learners.items()}
        self._drop(step, [name for name, state in states.items() if _nonfinite(state)])
        if not self.first:
            return
        for name in self.learners:
            checkpoint.write(self.folder(name) / "checkpoints", step, states[name])
        for name in self.learners:
            checkpoint.prune(self.folder(name) / "checkpoints", step)

    def _log(self, step: int, metrics: dict[str, dict[str, torch.Tensor]]) -> None:
        d_in = self.store.d(self.hook_point)
        for name in self.learners if self.first else ():
            values = metrics[name]
            record = {"step": step, "tokens": step * self.recipe.train.batch_size}
            record |= {key: round(float(value), 6) for key, value in values.items()}
            if "mse" in record:
                record["fvu"] = round(record["mse"] / d_in, 6)  # x is scaled to E|x - mean|² = d_in
            for log in self.logs[name]:
                log.write(record)


def _nonfinite(tensors: dict[str, torch.Tensor]) -> bool:
    return any(t.is_floating_point() and not bool(t.isfinite().all()) for t in tensors.values())
