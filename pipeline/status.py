"""How far each unit of a run is, from files alone. No model, text or array of a store is read for it."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.claims import Claims
from pipeline.config import UserError
from pipeline.extract import stage as extract
from pipeline.failures import Failure, failure
from pipeline.features import stage as features
from pipeline.models.files import ModelFiles
from pipeline.score import stage as score
from pipeline.score.results import HISTOGRAMS
from pipeline.score.subjects import Subject
from pipeline.stages import Run, subjects_at
from pipeline.train import stage as train
from pipeline.train.tasks import tasks
from pipeline.unit_files import json_object, recorded_files
from pipeline.units import Unit
from stores.lease import Holder

State = Literal["done", "running", "failed", "waiting", "conflict"]


@dataclass(frozen=True)
class Progress:
    """A unit's row. waiting: nobody works on it, whether it was begun or not. conflict: the folder holds work of other
    settings, and error says which. workers: the processes that work on it."""

    stage: str
    unit: str  # SITE/NAME, as --only takes it; of the store its name
    state: State
    done: int
    of: int
    counted: str
    rate: float | None  # a second
    folder: Path
    workers: tuple[Holder, ...] = ()
    error: str | None = None
    failure: Failure | None = None

    @property
    def eta_s(self) -> float | None:
        return (self.of - self.done) / self.rate if self.rate else None


def as_json(row: Progress) -> dict[str, Any]:
    return {**asdict(row), "eta_s": row.eta_s, "folder": str(row.folder)}


def status(run: Run) -> list[Progress]:
    """Every unit of the recipe, in the order of the stages."""
    look = partial(_progress, Claims(run.folder))
    rows: list[Progress] = []
    if not run.recipe.store:
        unit = extract.unit_as_begun(run.recipe.extraction, run.folder)
        row = look(unit, *extract.how_far(run.store_path), several=True)
        whole = row.state != "done" or extract.done(unit, run.store_path)
        rows.append(row if whole else replace(row, state="waiting"))
        if rows[0].state != "done":
            # Without a store the dictionaries have no keys yet, but names.
            config = run.recipe.extraction
            files = ModelFiles.find(config.model, config.revision)
            places = [f"{t.site.name}/{t.name}" for t in tasks(run.recipe.train, files.d, config.hook_points)]
            return rows + [_ahead(run, stage, p) for stage in ("train", "score", "report") for p in places]
    store = run.open_store()
    work = train.units(run.recipe.train, run.folder, store)
    trained = [look(unit, *train.how_far(task, unit, run.recipe.train)) for task, unit in work]
    done = [item for item, row in zip(work, trained, strict=True) if row.state == "done"]
    left = [row.unit for row in trained if row.state != "done"]
    subjects = [subject for task, unit in done for subject in subjects_at(task, unit, store)]
    wanted = score.units(run.recipe.score, run.folder, store, subjects)
    if left:  # a set is not known before its last member is there
        wanted = [(what, unit) for what, unit in wanted if isinstance(what, Subject)]
    scored = [
        look(
            unit, *(score.how_far(unit, run.recipe.score, store) if isinstance(what, Subject) else (0, 1, "set", None))
        )
        for what, unit in wanted
    ]
    rows += [*trained, *scored, *(_ahead(run, "score", place) for place in left)]
    if store.description.model == "none":  # of no text to show
        return rows
    both = [(what, row) for (what, _), row in zip(wanted, scored, strict=True) if isinstance(what, Subject)]
    digests = {
        row.folder: digest for _, row in both if row.state == "done" and (digest := _recorded_digest(row.folder))
    }
    ready = [what for what, row in both if row.folder in digests]
    described = features.units(run.recipe.report, run.folder, store, ready, lambda path: digests[path.parent])
    rows += [look(unit, 0, 1, "dictionary", None) for _, unit in described]
    left += [row.unit for _, row in both if row.folder not in digests]
    return rows + [_ahead(run, "report", place) for place in left]


def _recorded_digest(folder: Path) -> str | None:
    """Of what is scored, as its manifest has it. None: it was moved aside or taken back since it was looked at."""
    return (recorded_files(json_object(folder / "manifest.json")) or {}).get(HISTOGRAMS, (0, None))[1]


def _ahead(run: Run, stage: str, place: str) -> Progress:
    """Of what is not known but by its name."""
    of, counted = (run.recipe.train.n_steps, "steps") if stage == "train" else (1, "dictionary")
    return Progress(stage, place, "waiting", 0, of, counted, None, run.folder / _FOLDERS[stage] / place)


_FOLDERS = {"train": "train", "score": "score", "report": "features"}


def _progress(
    claims: Claims, unit: Unit, done: int, of: int, counted: str, grows: Path | None, several: bool = False
) -> Progress:
    """grows: the file or folder whose time says when the last of `done` was done. several: processes work on it at a time."""
    # First who works on it: who has given it back by now may have finished it, and has left the manifest before.
    found = claims.partakers(unit) if several else [claims.worker(unit)]
    workers, failed, error = tuple(one for one in found if one), failure(unit.folder), None
    state: State
    try:
        if unit.state() == "done":
            state, done, workers, failed = "done", of, (), None
        else:
            state = "running" if workers else "failed" if failed else "waiting"
    except UserError as conflict:
        state, error = "conflict", str(conflict)
    rate = unit.rate(done, grows) if state == "running" and grows else None
    return Progress(
        unit.stage,
        unit.name if several else unit.place,
        state,
        done,
        of,
        counted,
        rate,
        unit.folder,
        workers,
        error or (failed.error if failed else None),
        failed,
    )
