"""train: an activation store → feature dictionaries."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import stopping
from pipeline.claims import Claims
from pipeline.config import UserError, settings_json
from pipeline.train import checkpoint, logs
from pipeline.train.config import TrainConfig
from pipeline.train.group import Group, provenance
from pipeline.train.loop import joined
from pipeline.train.memory import keep_freed
from pipeline.train.own_methods import check, methods
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.source import Activations, Source, Weights
from pipeline.train.tasks import Task, tasks
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.description import StoreError
from stores.loader import BatchLoader
from stores.order import default_window_chunks
from stores.site import Site

VERSION = 8


def units(config: TrainConfig, run: Path, store: ActivationStore) -> list[tuple[Task, Unit]]:
    """One unit per dictionary. Raises UserError: settings that do not fit the store."""
    logs.check(config)
    if config.batch_size > store.n_train_rows:
        raise UserError(f"train.batch_size = {config.batch_size}, but the store has {store.n_train_rows} training rows")
    wanted = tasks(config, store.d, store.hook_points)
    if config.parallel == "features":
        for task in wanted:
            if not task.made_by.divisible:
                known = methods(config.method_files)
                divisible = ", ".join(name for name, method in known.items() if method.divisible)
                raise UserError(
                    f'train.{task.method} at {task.site.name}: parallel = "features" is for {divisible}, '
                    f'set train.parallel = "data"'
                )
    if not wanted:
        known = ", ".join(methods(config.method_files))
        raise UserError(f"the recipe trains nothing: add a table [train.METHOD], METHOD one of {known}")
    for task in wanted:
        held = [side for side in (task.site.reads, task.site.writes) if set(side) <= set(store.hook_points)]
        for setting, n in task.config.rows_to_begin(max(sum(map(store.d, side)) for side in held)).items():
            if n > store.n_train_rows:
                raise UserError(
                    f"train.{task.method} at {task.site.name}: {setting} begins from {n} training rows, the "
                    f"store has {store.n_train_rows}: take a larger store, or leave it out"
                )
    if store.rolling:
        window_chunks = config.window_chunks or default_window_chunks(config.batch_size, store.chunk_rows)
        for task in wanted:
            both = dict.fromkeys(task.site.reads + task.site.writes)
            try:
                store.rolling.check(tuple(h for h in both if h in store.hook_points), window_chunks)
            except StoreError as error:
                raise UserError(str(error)) from None
    return [(task, _unit(task, config, run, store)) for task in wanted]


def _unit(task: Task, config: TrainConfig, run: Path, store: ActivationStore) -> Unit:
    shared: dict[str, Any] = {"seed": config.seed, "window_chunks": config.window_chunks}
    if task.made_by.learner:
        shared |= {"batch_size": config.batch_size, "n_tokens": config.n_tokens, "precision": config.precision}
    site = {"reads": list(task.site.reads), "writes": list(task.site.writes)}
    settings = {**site, task.method: settings_json(task.config), **shared}
    if task.made_by.origin:
        settings["method"] = task.made_by.origin
    folder = run / "train" / task.site.name / task.name
    return Unit("train", task.name, folder, VERSION, settings, {"store_digest": store.digest})


def how_far(task: Task, unit: Unit, config: TrainConfig) -> tuple[int, int, str, Path]:
    """(done, of, unit of counting, what grows with it), from the last line of the unit's log."""
    log = unit.folder / logs.METRICS
    if task.made_by.fit:
        return 0, 1, "fit", log
    return logs.last(log).get("step", 0), config.n_steps, "steps", log


def sweep(units: list[Unit]) -> None:
    """Remove the checkpoints of finished units, if the process died before it could."""
    for unit in units:
        if unit.state() == "done":
            shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)


def execute(
    recipe: str,
    config: TrainConfig,
    store: ActivationStore,
    work: list[tuple[Task, Unit]],
    weights: Callable[[], Weights],
    device: str,
    claims: Claims,
    ranks: Ranks = ALONE,
) -> list[str]:
    """Make dictionaries, those of one site on one read of the store.

    work: with units that were begun. weights: of the model that the store was made from, for those who ask. claims: whose
    the units are. ranks: the processes that call this together; the first of them writes.
    Returns a line for each that diverged.
    """
    if device == "cpu":
        keep_freed()
    diverged: list[str] = []
    for name, method in {task.method: task.made_by for task, _ in work}.items():
        check(method, name)
    for site, together in groupby(work, key=lambda item: item[0].site):
        items = {task.name: (task, unit) for task, unit in together}
        source = source_of_store(config, store, site, weights, ranks)
        if all(task.made_by.reads_only for task, _ in items.values()):
            source = replace(source, writes=None)
        for task, unit in [item for item in items.values() if item[0].made_by.fit]:
            ranks.decided(partial(_fit, recipe, store, source, task, unit, device, claims))
            del items[task.name]
        folders = {name: unit.folder / "checkpoints" for name, (_, unit) in items.items()}
        for start, names in ranks.decided(partial(checkpoint.groups, folders)):
            diverged += Group(recipe, config, store, source, {n: items[n] for n in names}, device, claims).run(start)
        if items:
            ranks.decided(partial(_draw, next(iter(items.values()))[1].folder.parent, site, claims))
    return diverged


def _draw(folder: Path, site: Site, claims: Claims) -> None:
    from pipeline.train.pictures import draw  # imported late: it takes a second

    with claims.alone(f"curves at {site.name}"):  # another may train others of the site
        draw(folder, site.name)


def _fit(
    recipe: str,
    store: ActivationStore,
    source: Source,
    task: Task,
    unit: Unit,
    device: str,
    claims: Claims,
) -> None:
    stopping.look("the dictionaries before this one are done")
    fit, started = task.made_by.fit, time.time()
    assert fit is not None
    found = fit(task.config, source, provenance(recipe, store, task, unit))
    if claims.still_holds(unit):
        found.save(unit.folder)
        unit.finish(device, time.time() - started)


def source_of_store(
    config: TrainConfig, store: ActivationStore, site: Site, weights: Callable[[], Weights], ranks: Ranks = ALONE
) -> Source:
    """What methods can know of a site's hook points in a store."""

    def activations(hook_points: tuple[str, ...]) -> Activations:
        rows = cache(partial(_rows, config, store, hook_points))
        moments = tuple(map(store.stats, hook_points))
        return Activations(hook_points, moments, rows, partial(_heldout, store, hook_points))

    reads = activations(site.reads)
    writes = reads if site.writes == site.reads else None
    if writes is None and set(site.writes) <= set(store.hook_points):
        writes = activations(site.writes)
    return Source(site, reads, writes, cache(weights), ranks, config.precision)


def _rows(config: TrainConfig, store: ActivationStore, hook_points: tuple[str, ...], n_rows: int) -> np.ndarray:
    """(n_rows, d) training rows, or all there are, in the order in which the learners see them."""
    n_rows = min(n_rows, store.n_train_rows)
    found = np.empty((n_rows, sum(map(store.d, hook_points))), np.float32)
    if n_rows:
        size = min(n_rows, config.batch_size)
        n_steps = -(-n_rows // size)
        loader = BatchLoader(
            store,
            hook_points,
            size,
            seed=config.seed,
            n_steps=n_steps,
            window_chunks=config.window_chunks,
            residency="stream",
        )
        for batch in loader:
            start = batch.step * size
            found[start : start + size] = joined(batch, hook_points).numpy()[: n_rows - start]
    return found


def _heldout(store: ActivationStore, hook_points: tuple[str, ...], n_rows: int) -> np.ndarray:
    """(n_rows, d) held-out rows, or all there are, as far apart as in 16 times as many."""
    found = []
    for hook_point in hook_points:
        rows = np.concatenate(list(store.heldout(hook_point, 16 * n_rows)))
        found.append(rows[:: max(1, len(rows) // n_rows)][:n_rows].astype(np.float32))
    return np.concatenate(found, axis=-1)
