"""What is scored: a run's own dictionaries, and those of others that fit its store."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.score.config import ScoreConfig
from pipeline.score.pairs import FOREIGN
from stores.activations import ActivationStore
from stores.description import Description
from stores.dictionary import OUTPUT, FeatureDictionary
from stores.dictionary_files import CONFIG, Provenance
from stores.names import check_name


@dataclass(frozen=True)
class Subject:
    """A dictionary to be scored, where it lies, and what it is called."""

    hook_point: str
    name: str
    method: str
    settings: dict[str, Any]
    folder: Path
    origin: str = ""  # the method that provenance.json names

    def load(self, device: str = "cpu") -> FeatureDictionary:
        return FeatureDictionary.load(self.folder, device)

    def output(self) -> "Subject | None":
        """The dictionary of what the layer writes that was learned with this one, if there is such."""
        folder = self.folder / OUTPUT
        if not (folder / CONFIG).exists():
            return None
        hook_point = FeatureDictionary.load(folder).hook_point
        return Subject(hook_point, f"{self.name}-output", self.method, self.settings, folder, self.origin)


def foreign_subjects(config: ScoreConfig, store: ActivationStore) -> list[Subject]:
    """The dictionaries of score.dictionaries. Raises UserError: one is not there, or does not fit the store."""
    subjects = []
    for path in config.dictionaries:
        try:
            folder = Path(path).resolve()  # "." has a name, too
            name = check_name(folder.name, "the folder")
            dictionary = FeatureDictionary.load(folder)
        except (ValueError, OSError) as error:
            raise UserError(f"score.dictionaries: {error}") from None
        hook_point = dictionary.hook_point
        if dictionary.spec.d_out is not None:
            raise UserError(
                f"score.dictionaries: {path} is a transcoder ({hook_point}), only autoencoders can be scored"
            )
        if hook_point not in store.hook_points:
            raise UserError(
                f"score.dictionaries: {path} is of {hook_point!r}, the store has {', '.join(store.hook_points)}"
            )
        if dictionary.d_in != store.d(hook_point):
            raise UserError(
                f"score.dictionaries: the store has d = {store.d(hook_point)} at {hook_point}, {path} takes d_in = "
                f"{dictionary.d_in}: was it trained on another model?"
            )
        _check_model(path, dictionary.provenance, store.description)
        origin = dictionary.provenance.get("method", "")
        method = "truth" if origin == "truth" else f"{FOREIGN} {dictionary.spec.architecture}"
        subjects.append(Subject(hook_point, name, method, {"name": name}, folder, origin))
    return subjects


def _check_model(path: str, provenance: Provenance, description: Description) -> None:
    """Raises UserError: the dictionary was learned on other activations. A model known by name alone gets a warning."""
    found, expected = provenance.get("model_digest"), description.model_digest
    if found not in (None, expected):
        raise UserError(
            f"score.dictionaries: {path} was learned on model {found[:12]} ({provenance.get('model', 'no name')}), the store "
            f"was made from {expected[:12]} ({description.model}): leave it out, or score it on a store of its own model"
        )
    processing = provenance.get("weight_processing", description.weight_processing)
    if processing != description.weight_processing:
        raise UserError(
            f"score.dictionaries: {path} was trained with weight processing {processing!r}, the store has "
            f"{description.weight_processing!r}"
        )
    model = provenance.get("model")
    if found is None and model and _plain(model) != _plain(description.model):
        print(
            f"score: {path} says that it is of model {model}, the store is of {description.model}: its scores mean nothing "
            f"if these are not the same",
            file=sys.stderr,
        )


def _plain(model: str) -> str:
    """A model's name without its owner's; TransformerLens calls gpt2 gpt2-small."""
    return Path(model).name.lower().removesuffix("-small")
