"""A dictionary that a run has trained, with the model that it was trained on and what is known of its features."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.score.histograms import bin_edges
from pipeline.score.results import HISTOGRAMS, read_histogram
from pipeline.score.subjects import Subject, subjects_of
from pipeline.unit_files import json_object
from stores.dictionary import FeatureDictionary
from stores.dictionary_files import CONFIG


def place_of(subject: Subject) -> str:
    return f"{subject.site.name}/{subject.name}"


def named(run: Path, name: str) -> Subject:
    """Raises UserError: no dictionary is trained, none or several are called so, or one is damaged."""
    if not run.is_dir():
        raise UserError(f"there is no folder {run}: expected a run folder, such as {Path('runs') / run.name}")
    folders = sorted(
        path.parent for path in run.glob(f"train/*/*/{CONFIG}") if (path.parent / "manifest.json").exists()
    )
    if not folders:
        raise UserError(f"{run} has no trained dictionary: run `unmix train` on the recipe of {run} first")
    try:
        every = [subject for folder in folders for subject in subjects_of(folder, folder.name, "", {})]
    except ValueError as error:
        raise UserError(str(error)) from None
    found = [subject for subject in every if name in (place_of(subject), subject.name)]
    if len(found) == 1:
        return found[0]
    problem = "several dictionaries are" if found else "no dictionary is"
    raise UserError(f"{problem} called {name} in {run}: name one of {', '.join(map(place_of, found or every))}")


def loaded(subject: Subject) -> FeatureDictionary:
    try:
        return subject.load()
    except ValueError as error:
        raise UserError(str(error)) from None


def largest_of(run: Path, subject: Subject) -> tuple[Callable[[int], float | None], bool]:
    """(feature → its largest activation, by magnitude, on held-out rows; whether it is exact): as the report stage has it, or
    the upper edge of the histogram's last bin. Only of this very dictionary."""

    def made(stage: str) -> Path | None:
        folder = run / stage / place_of(subject)
        inputs = (json_object(folder / "manifest.json") or {}).get("inputs")
        own = isinstance(inputs, dict) and inputs.get("dictionary_digest") == subject.digest
        return folder if own else None

    if folder := made("features"):
        from pipeline.features.files import FEATURES, read_column

        column = read_column(folder / FEATURES, "max")
        return lambda feature: column[feature] or 0.0, True
    if (folder := made("score")) and (folder / HISTOGRAMS).exists():
        counts, edges = read_histogram(folder).counts, bin_edges()

        def edge(feature: int) -> float:
            full = counts[feature].nonzero()
            return float(edges[int(full.max()) + 1]) if len(full) else 0.0

        return edge, False
    return lambda _: None, False


def model_files(run: Path, dictionary: FeatureDictionary) -> tuple[ModelFiles, int]:
    """(the model that the dictionary was trained on, how many positions its rows leave out at the beginning). Raises UserError:
    there is none, or it is another one by now."""
    told = dictionary.provenance
    model, digest = told.get("model", "none"), told.get("model_digest")
    if model == "none":
        raise UserError(f"no language model is known to have made the rows of {run}: there is none to steer")
    extracted = json_object(run / "extract" / "plan.json") or {}
    own = extracted.get("inputs", {}).get("model_digest") == digest
    files = ModelFiles.find(model, extracted["inputs"].get("model_revision") if own else None)
    if files.digest != digest:
        raise UserError(
            f"the dictionary was trained on another model than {model} is now ({str(digest)[:12]}, now {files.digest[:12]}): "
            "restore its weights and config.json"
        )
    return files, extracted["settings"]["positions"]["skip_first"] if own else 1
