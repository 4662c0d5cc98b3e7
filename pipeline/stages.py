"""The stages, in order: what each has to do, and doing it. What is done is skipped, what was begun is resumed."""

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from pipeline.attempts import Attempts
from pipeline.claims import Claims
from pipeline.cluster.config import ClusterConfig
from pipeline.config import Config, UserError, validated
from pipeline.extract import stage as extract
from pipeline.extract.again import with_all_rows
from pipeline.extract.config import ExtractConfig, with_every_layer
from pipeline.extract.text import Documents
from pipeline.features import stage as features
from pipeline.features.config import ReportConfig
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.only import Only
from pipeline.recipe import read_recipe
from pipeline.report.pages import write_report
from pipeline.score import stage as score
from pipeline.score.config import ScoreConfig
from pipeline.score.losses import model_of
from pipeline.score.subjects import Subject, foreign_subjects, subjects_of
from pipeline.sharing import Sharing
from pipeline.train import stage as train
from pipeline.train.config import TrainConfig
from pipeline.train.ranks import Ranks
from pipeline.train.tasks import Task, tasks
from pipeline.unit_files import damage
from pipeline.units import Unit, pending
from stores.activations import ActivationStore
from stores.cpus import cpus_here
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
    cluster: ClusterConfig = ClusterConfig()
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
    only: Only = field(default_factory=Only)
    sharing: Sharing = field(default_factory=Sharing)
    ready: bool = False  # score and report take what is there, and leave what others have still to make

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
            check(self.recipe, self.only)  # a mistake in the recipe is told before the store is made
            raise UserError(
                f"no activation store at {path}: run `unmix extract` with the same recipe and options first"
            )
        store = ActivationStore.open(path)
        if store.nonfinite:
            found = describe_nonfinite(store.nonfinite, store.description.dtype)
            raise UserError(
                f"{found}: nothing can be learned from such rows; extract with another dtype or hook points"
            )
        own = None if self.recipe.store else self.recipe.extraction.keep_bytes
        return with_all_rows(store, self.device, own)


def limit_threads() -> None:
    """No more threads than this process was given CPUs. OMP_NUM_THREADS decides where it is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cpus_here()))


def check(recipe: Recipe, only: Only) -> None:
    """Raises UserError for whatever in the recipe or in what is asked for cannot work, before extract writes anything. Later
    stages check both against the store, and need no model for that."""
    if recipe.store:
        return
    config = recipe.extraction
    files = ModelFiles.find(config.model, config.revision)
    for hook_point in config.hook_points:
        files.d(hook_point)
    only.check([f"{task.site.name}/{task.name}" for task in tasks(recipe.train, files.d, config.hook_points)])


def run_extract(run: Run) -> bool:
    """Returns whether there was anything to do, as do all stages."""
    if run.recipe.store:
        raise UserError(f"the recipe uses the store {run.recipe.store}: there is nothing to extract")
    config = run.recipe.extraction
    unit, path = extract.unit_of(config, run.folder), run.store_path
    if not pending([unit], run.replace) and extract.done(unit, path):
        return False
    with Claims(run.folder) as claims:
        extract.execute(config, unit, path, run.device, run.sharing.worker, claims, run.replace)
    return True


def run_train(run: Run) -> bool:
    store = run.open_store()
    work = train.units(run.recipe.train, run.folder, store)
    run.only.check([unit.place for _, unit in work])
    work = [(task, unit) for task, unit in work if run.only.has(unit.place)]
    ranks = Ranks.join(run.recipe.train.parallel, run.device)
    description = store.description
    weights = lambda: load_model(ModelFiles.of_store(description), description.weight_processing)  # noqa: E731
    did, diverged = False, []

    def make(units: Sequence[Unit]) -> None:
        mine = [(task, unit) for task, unit in work if unit in units]
        found = train.execute(run.recipe.name, run.recipe.train, store, mine, weights, run.device, claims, ranks)
        diverged.extend(found)

    with Claims(run.folder) as claims:
        attempts = Attempts(claims, run.sharing.waits)
        groups = run.sharing.groups([(task.site, unit) for task, unit in work])
        rounds = claims.rounds(groups, run.replace, run.sharing.waits)
        # The first rank's rounds; the others follow it.
        following = lambda: (units := next(rounds, None)) and [unit.folder for unit in units]  # noqa: E731
        while (folders := ranks.decided(following)) is not None:
            did = did or bool(folders)
            mine = [unit for _, unit in work if unit.folder in folders]
            attempts.at(mine, make) if ranks.size == 1 else make(mine)  # ranks fail together
    ranks.leave()
    if ranks.rank == 0:
        train.sweep([unit for _, unit in work])
    advice = [f"{'; '.join(diverged)}: lower the lr, or set grad_clip = 1.0"] if diverged else []
    attempts.end([unit for _, unit in work] if ranks.rank == 0 else [], advice)
    return did


def run_score(run: Run) -> bool:
    store = run.open_store()
    found = partial(trained, run, store, foreign_subjects(run.recipe.score, store))
    work = _asked(run, *found())
    loaded = cache(lambda: model_of(store, run.device))
    did = False
    with Claims(run.folder) as claims:
        attempts = Attempts(claims, run.sharing.waits)
        make = lambda units: score.execute(  # noqa: E731
            run.recipe.score, store, [(s, u) for s, u in work if u in units], run.device, claims, loaded
        )
        for units in _rounds(run, claims, work):
            did = did or bool(units)
            attempts.at(units, make)
        if did and store.description.model == "none":
            print("score: no language model is known to have made the store, so cross-entropy is left out")
        if attempts.closes([unit for _, unit in work]):
            did = score.summarize(run.folder, store, found, claims) or did
    attempts.end([unit for _, unit in work])
    return did


def _rounds(run: Run, claims: Claims, work: Sequence[tuple[Any, Unit]]) -> Iterator[list[Unit]]:
    groups = run.sharing.groups([(unit.folder.parent, unit) for _, unit in work])
    return claims.rounds(groups, run.replace, run.sharing.waits)


def run_report(run: Run) -> bool:
    store = run.open_store()
    if store.description.model == "none":
        raise UserError("report: no language model is known to have made the store, so its rows are of no text to show")
    found = partial(trained, run, store, foreign_subjects(run.recipe.score, store))
    asked = _asked(run, *found())
    if run.ready:
        asked = [(what, unit) for what, unit in asked if unit.is_done()]
    elif left := pending([unit for _, unit in asked], replace=False):
        raise UserError(f"{left[0].name} at {left[0].folder.parent.name} is not scored: run `unmix score` first")
    text = run.recipe.extract and run.recipe.extract.text
    documents = lambda: Documents(text) if text else ()  # noqa: E731
    units_of = partial(features.units, run.recipe.report, run.folder, store)
    work = units_of([what for what, _ in asked if isinstance(what, Subject)])
    shared, did = features.Shared(run.recipe.report, store, documents, run.device), False
    with Claims(run.folder) as claims:
        attempts = Attempts(claims, run.sharing.waits)
        make = lambda units: features.execute(  # noqa: E731
            shared, [(s, u) for s, u in work if u in units], run.folder / "score", claims
        )
        for units in _rounds(run, claims, work):
            did = did or bool(units)
            attempts.at(units, make)
        if attempts.closes([unit for _, unit in work]):
            with claims.alone("the pages"):  # of all that is described by now, by whichever process
                scored = [what for what, unit in found()[0] if isinstance(what, Subject) and unit.is_done()]
                described = [subject for subject, unit in units_of(scored) if unit.is_done()]
                features.write_shared(run.folder / "features", store, described, run.device, did)
                print(f"report: {write_report(run.folder)}")
    attempts.end([unit for _, unit in work])
    return did


def trained(run: Run, store: ActivationStore, foreign: list[Subject]) -> tuple[score.Work, list[str]]:
    """(units of the score stage, of dictionaries that are trained and those of others; SITE/NAME of those that are not
    trained: nobody asks for them, or for what is ready alone). Raises UserError: one that is asked for is not trained."""
    own: list[Subject] = []
    left: list[str] = []
    for task, unit in train.units(run.recipe.train, run.folder, store):
        if unit.is_done():
            own += subjects_at(task, unit, store)
        elif run.only.has(unit.place) and not run.ready:
            raise UserError(f"{task.name} at {task.site.name} is {unit.state()}, not trained: run `unmix train` first")
        else:
            left.append(unit.place)
    subjects = own + foreign
    if not subjects:
        raise UserError(f"none of {len(left)} dictionaries is trained: run `unmix train` with the same options first")
    names = [(s.site, s.name) for s in subjects]
    if twice := {name for site, name in names if names.count((site, name)) > 1}:
        raise UserError(f"score.dictionaries: two dictionaries are called {min(twice)}: rename a folder")
    work: score.Work = score.units(run.recipe.score, run.folder, store, subjects)
    if left:  # a set is not known before its last member is there
        work = [(what, unit) for what, unit in work if isinstance(what, Subject)]
    return work, left


def _asked(run: Run, work: score.Work, left: list[str]) -> score.Work:
    """Those to score or to describe. Raises UserError: a pattern fits none, or one of the run's own is damaged."""
    run.only.check([*left, *(place for what, unit in work for place in score.places(what, unit))])
    asked = [(what, unit) for what, unit in work if run.only.has(*score.places(what, unit))]
    for folder in dict.fromkeys(what.folder for what, _ in asked if isinstance(what, Subject) and what.vouched):
        if found := next(damage(folder), None):
            raise UserError(f"{found.what}: run `unmix verify {shlex.quote(str(run.folder))} --repair`")
    return asked


def subjects_at(task: Task, unit: Unit, store: ActivationStore) -> list[Subject]:
    """A trained dictionary, or those of its two bases whose hook points the store has."""
    found = subjects_of(unit.folder, task.name, task.method, task.config.model_dump(), vouched=True)
    return [subject for subject in found if subject.fits(store)]


STAGES: dict[str, Callable[[Run], bool]] = {
    "extract": run_extract,
    "train": run_train,
    "score": run_score,
    "report": run_report,
}
