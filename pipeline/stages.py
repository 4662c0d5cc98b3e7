"""The stages, in order: what each has to do, and doing it. What is done is skipped, what was begun is resumed."""

import os
import shlex
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field

from pipeline.claims import Claims
from pipeline.config import Config, UserError, validated
from pipeline.extract import stage as extract
from pipeline.extract.config import ExtractConfig, with_every_layer
from pipeline.extract.text import Documents
from pipeline.features import stage as features
from pipeline.features.config import ReportConfig
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.recipe import read_recipe
from pipeline.report.pages import write_report
from pipeline.score import stage as score
from pipeline.score.config import ScoreConfig
from pipeline.score.subjects import Subject, foreign_subjects, subjects_of
from pipeline.train import stage as train
from pipeline.train.config import TrainConfig
from pipeline.train.ranks import Ranks
from pipeline.train.tasks import Task, tasks
from pipeline.unit_files import damage
from pipeline.units import Unit, pending
from stores.activations import ActivationStore
from stores.description import describe_nonfinite
from stores.writer import StoreWriter


class Recipe(Config):
    """store: an activation store that is there already, a folder or URL; by default the one `extract` makes. One of the two
    is there."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    extract: ExtractConfig | None = None
    train: TrainConfig
    score: ScoreConfig = ScoreConfig()
    report: ReportConfig = ReportConfig()
    store: str | None = None

    @property
    def extraction(self) -> ExtractConfig:
        """Raises UserError: the recipe has none."""
        if self.extract is None:
            raise UserError(f"extract is missing: the recipe {self.name} has no store either")
        return self.extract


def load_recipe(name_or_path: str, sets: list[str] | None = None, name: str | None = None) -> Recipe:
    """A recipe by its name or path, with KEY=VALUE overrides: see read_recipe. Raises UserError.

    All layers that extract.hook_points means by `*` are named, which takes the model's config.json.
    """
    recipe = validated(Recipe, read_recipe(name_or_path, sets, name), "")
    if recipe.store:
        return recipe
    config = recipe.extraction
    if any("*" in hook_point for hook_point in config.hook_points):
        n_layers = ModelFiles.find(config.model, config.revision).n_layers
        recipe = recipe.model_copy(update={"extract": with_every_layer(config, n_layers)})
    return recipe


@dataclass(frozen=True)
class Run:
    """One recipe in one run folder, on one device."""

    recipe: Recipe
    folder: Path
    device: str
    replace: bool = False
    worker: extract.Worker = field(default_factory=extract.Worker)

    @property
    def store_path(self) -> Path | str:
        """Where the activation store lies, or will: a folder or a URL. Raises UserError: a URL of a kind that is not
        known here."""
        return extract.store_path(self.recipe.store or self.recipe.extraction.store, self.folder)

    def open_store(self) -> ActivationStore:
        path = self.store_path
        if self.recipe.store and not StoreWriter.exists(path):
            raise UserError(
                f"store: no activation store at {path}: extract one there, or write one with stores.write_store"
            )
        if not StoreWriter.exists(path):
            raise UserError(f"no activation store at {path}: run `unmix extract {self.recipe.name}` first")
        store = ActivationStore.open(path)
        if store.nonfinite:
            found = describe_nonfinite(store.nonfinite, store.description.dtype)
            raise UserError(
                f"{found}: nothing can be learned from such rows; extract with another dtype or hook points"
            )
        return store


@dataclass(frozen=True)
class Progress:
    """One line of `unmix status`."""

    stage: str
    unit: str
    state: str
    done: int
    of: int
    counted: str
    rate: float | None  # a second
    folder: Path

    @property
    def eta_s(self) -> float | None:
        return (self.of - self.done) / self.rate if self.rate and self.state == "started" else None


def choose_device(name: str) -> str:
    """ "auto" → cuda when there is one. Raises UserError: cuda was asked for and there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cuda"


def check(recipe: Recipe) -> None:
    """Raises UserError for whatever in the recipe cannot work, before extract writes anything. Later stages check the
    recipe against the store, and need no model for that."""
    if recipe.store:
        return
    config = recipe.extraction
    files = ModelFiles.find(config.model, config.revision)
    for hook_point in config.hook_points:
        files.d(hook_point)
    tasks(recipe.train, files.d, config.hook_points)


def run_extract(run: Run) -> bool:
    """Returns whether there was anything to do, as do all stages."""
    if run.recipe.store:
        raise UserError(f"the recipe uses the store {run.recipe.store}: there is nothing to extract")
    config = run.recipe.extraction
    unit, path = extract.unit_of(config, run.folder), run.store_path
    if not pending([unit], run.replace) and extract.done(unit, path):
        return False
    with Claims(run.folder) as claims:
        extract.execute(config, unit, path, run.device, run.worker, claims, run.replace)
    return True


def run_train(run: Run) -> bool:
    store = run.open_store()
    work = train.units(run.recipe.train, run.folder, store)
    ranks = Ranks.join(run.recipe.train.parallel, run.device)
    description = store.description

    def weights() -> LanguageModel:
        return load_model(ModelFiles.of_store(description), description.weight_processing)

    did, diverged = False, []
    with Claims(run.folder) as claims:
        rounds = claims.rounds(_together([(task.site, unit) for task, unit in work]), run.replace)
        # The first rank's rounds; the others follow it.
        while (folders := ranks.decided(lambda: _folders(next(rounds, None)))) is not None:
            did = did or bool(folders)
            mine = [(task, unit) for task, unit in work if unit.folder in folders]
            diverged += train.execute(
                run.recipe.name, run.recipe.train, store, mine, weights, run.device, claims, ranks
            )
    if ranks.rank == 0:
        train.sweep([unit for _, unit in work])
    if diverged:
        raise RuntimeError(f"{'; '.join(diverged)}: lower the lr, or set grad_clip = 1.0; the others are done")
    return did


def _folders(units: list[Unit] | None) -> set[Path] | None:
    return units if units is None else {unit.folder for unit in units}


def _together(work: Sequence[tuple[Hashable, Unit]]) -> list[list[Unit]]:
    """Units that are worked on together: those of one key, which read the same rows."""
    groups: dict[Hashable, list[Unit]] = {}
    for key, unit in work:
        groups.setdefault(key, []).append(unit)
    return list(groups.values())


def run_score(run: Run) -> bool:
    store = run.open_store()
    work = score.units(run.recipe.score, run.folder, store, _all_subjects(run, store))
    did = False
    with Claims(run.folder) as claims:
        for units in claims.rounds(_together([(unit.folder.parent, unit) for _, unit in work]), run.replace):
            did = did or bool(units)
            score.execute(run.recipe.score, store, [(s, u) for s, u in work if u in units], run.device, claims)
    if did and store.description.model == "none":
        print("score: no language model is known to have made the store, so cross-entropy is left out")
    return score.summarize(run.folder, store, work) or did


def run_report(run: Run) -> bool:
    store = run.open_store()
    if store.description.model == "none":
        raise UserError("report: no language model is known to have made the store, so its rows are of no text to show")
    subjects = _all_subjects(run, store)
    scored = score.units(run.recipe.score, run.folder, store, subjects)
    if left := pending([unit for _, unit in scored], replace=False):
        raise UserError(f"{left[0].name} at {left[0].folder.parent.name} is not scored: run `unmix score` first")
    text = run.recipe.extract and run.recipe.extract.text
    documents = lambda: Documents(text) if text else ()  # noqa: E731
    work = features.units(run.recipe.report, run.folder, store, subjects)
    did = False
    with Claims(run.folder) as claims:
        for units in claims.rounds(_together([(unit.folder.parent, unit) for _, unit in work]), run.replace):
            did = did or bool(units)
            mine = [(s, u) for s, u in work if u in units]
            features.execute(run.recipe.report, store, mine, run.folder / "score", documents, run.device, claims)
    if did:
        features.write_tokens(run.folder, store)
    print(f"report: {write_report(run.folder)}")
    return did


def _all_subjects(run: Run, store: ActivationStore) -> list[Subject]:
    """The run's own dictionaries and those of others. Raises UserError: one is not trained, or damaged."""
    own = []
    for task, unit in train.units(run.recipe.train, run.folder, store):
        state = unit.state()
        if state != "done":
            raise UserError(f"{task.name} at {task.site.name} is {state}, not trained: run `unmix train` first")
        if found := next(damage(unit.folder), None):
            raise UserError(f"{found.what}: run `unmix verify {shlex.quote(str(run.folder))} --repair`")
        own += _subjects(task, unit, store)
    subjects = own + foreign_subjects(run.recipe.score, store)
    names = [(s.site, s.name) for s in subjects]
    if twice := {name for site, name in names if names.count((site, name)) > 1}:
        raise UserError(f"score.dictionaries: two dictionaries are called {min(twice)}: rename a folder")
    return subjects


def _subjects(task: Task, unit: Unit, store: ActivationStore) -> list[Subject]:
    """A trained dictionary, or those of its two bases whose hook points the store has."""
    found = subjects_of(unit.folder, task.name, task.method, task.config.model_dump())
    return [subject for subject in found if subject.fits(store)]


STAGES: dict[str, Callable[[Run], bool]] = {
    "extract": run_extract,
    "train": run_train,
    "score": run_score,
    "report": run_report,
}


def status(run: Run) -> list[Progress]:
    """Every unit of the recipe, in the order of the stages."""
    rows = []
    if not run.recipe.store:
        rows.append(_progress(extract.unit_of(run.recipe.extraction, run.folder), *extract.how_far(run.store_path)))
    if not all(row.state == "done" for row in rows):
        # Without a store the dictionaries have no keys yet, but names.
        config = run.recipe.extraction
        files = ModelFiles.find(config.model, config.revision)
        wanted = tasks(run.recipe.train, files.d, config.hook_points)
        return rows + [_ahead(run, "train", t) for t in wanted] + [_ahead(run, "score", t) for t in wanted]
    store = run.open_store()
    work = train.units(run.recipe.train, run.folder, store)
    rows += [_progress(unit, *train.how_far(task, unit, run.recipe.train)) for task, unit in work]
    trained = [(task, unit) for task, unit in work if unit.state() == "done"]
    subjects = [subject for task, unit in trained for subject in _subjects(task, unit, store)]
    scored = score.units(run.recipe.score, run.folder, store, subjects)
    if len(trained) < len(work):  # a set is not known before its last member is there
        scored = [(what, unit) for what, unit in scored if isinstance(what, Subject)]
    rows += [_progress(unit, 0, 1, "dictionary", unit.folder) for _, unit in scored]
    return rows + [_ahead(run, "score", task) for task, unit in work if (task, unit) not in trained]


def _ahead(run: Run, stage: str, task: Task) -> Progress:
    n, counted = (run.recipe.train.n_steps, "steps") if stage == "train" else (1, "dictionary")
    return Progress(stage, task.name, "new", 0, n, counted, None, run.folder / stage / task.site.name / task.name)


def _progress(unit: Unit, done: int, of: int, counted: str, grows: Path | None) -> Progress:
    """grows: the file or folder whose time says when the last of `done` was done."""
    try:
        state = unit.state()
    except UserError:
        state = "other settings"
    done = of if state == "done" else done
    return Progress(unit.stage, unit.name, state, done, of, counted, grows and unit.rate(done, grows), unit.folder)
