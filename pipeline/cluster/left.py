"""What is left of a run, as far as its folder tells: how many tasks there is work for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.cluster.jobs import Left
from pipeline.extract import stage as extract
from pipeline.features import stage as features
from pipeline.models.files import ModelFiles
from pipeline.score.stage import Work, summarized
from pipeline.score.subjects import Subject, foreign_subjects
from pipeline.stages import Run, trained
from pipeline.train import stage as train
from pipeline.train.tasks import tasks
from pipeline.units import Unit, pending


def left_of(run: Run) -> Left:
    """Raises UserError: something in the recipe cannot work, or what is there was made with other settings."""
    if n_shards := _shards(run):
        config = run.recipe.extraction
        files = ModelFiles.find(config.model, config.revision)
        every = _groups(run, (task.site.name for task in tasks(run.recipe.train, files.d, config.hook_points)))
        return Left(n_shards, dict.fromkeys(("train", "score", "report"), every), table=True, pages=True)
    store = run.open_store()
    units = [unit for _, unit in train.units(run.recipe.train, run.folder, store)]
    untrained, foreign = _undone(units), foreign_subjects(run.recipe.score, store)
    work: Work = []
    if len(untrained) < len(units) or foreign:
        work, _ = trained(replace(run, ready=True), store, foreign)
    unscored = _undone([unit for _, unit in work])
    left = {"train": untrained, "score": untrained + unscored}
    table, pages = not summarized(run.folder, work, [unit.place for unit in untrained]), False
    if store.description.model != "none":  # else there is no text to show
        scored = [what for what, unit in work if isinstance(what, Subject) and unit not in unscored]
        described = features.units(run.recipe.report, run.folder, store, scored)
        left["report"] = left["score"] + _undone([unit for _, unit in described])
        pages = table or _older(run.folder / "report" / "index.html", run.folder / "score" / "scores.json")
    groups = {stage: _groups(run, (unit.folder.parent.name for unit in own)) for stage, own in left.items()}
    return Left(0, groups, table, pages)


def _undone(units: Iterable[Unit]) -> list[Unit]:
    return pending(units, replace=False, sweeps=False)


def _shards(run: Run) -> int:
    """Shards that are not there; 1 where only the store's end is missing. Before a store is begun it is what its settings
    say: text may end before, and shards may have to be smaller."""
    if run.recipe.store:
        return 0
    config, path = run.recipe.extraction, run.store_path
    unit = extract.unit_of(config, run.folder)
    if not _undone([unit]) and extract.done(unit, path):
        return 0
    done, of, _, _ = extract.how_far(path)
    return max(1, of - done if of else -(-config.n_rows // (config.chunk_rows * config.shard_chunks)))


def _groups(run: Run, sites: Iterable[str]) -> dict[str, int]:
    """Site → groups of so many dictionaries there."""
    counted = Counter(sites)
    return {site: -(-n // (run.sharing.together or n)) for site, n in counted.items()}


def _older(path: Path, than: Path) -> bool:
    return not path.exists() or path.stat().st_mtime < than.stat().st_mtime
