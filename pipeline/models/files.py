"""A language model's folder: all that is known before its weights are loaded."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipeline.config import UserError
from pipeline.models.architectures import ARCHITECTURES, model_type
from pipeline.models.hook_points import Sizes
from pipeline.models.hub import model_snapshot
from pipeline.models.reading import read_json_object
from pipeline.models.tokenizer import check_ids, read_tokenizer
from pipeline.models.weight_files import weight_files
from stores.description import Description
from stores.manifest import digest, file_digest

DEMO = Path(__file__).parents[1] / "assets" / "demo"


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder in Hugging Face layout: all that is known before its weights are loaded.

    revision: the commit, of a model on the hub.
    """

    name: str
    folder: Path
    revision: str | None = None

    @classmethod
    def find(cls, name: str, revision: str | None = None) -> "ModelFiles":
        """name: "demo", a folder, or a hub name (downloaded on first use). Raises UserError: there is none."""
        folder, commit = DEMO if name == "demo" else Path(name), None
        if not folder.is_dir():
            folder = model_snapshot(name, revision)
            commit = folder.name
        if not (folder / "config.json").exists():
            raise UserError(f"extract.model: {folder} has no config.json, expected a Hugging Face model folder")
        files = cls(name, folder, commit)
        files.config  # noqa: B018  it is read, or refused
        return files

    @classmethod
    def of_store(cls, description: Description) -> "ModelFiles":
        """The model that a store was made from. Raises UserError: it is not the same any more, not there, or no language
        model."""
        if description.model == "none":
            raise UserError(
                "no language model is known to have made the store: take methods and settings that need none"
            )
        files = cls.find(description.model, description.model_revision)
        if files.digest != description.model_digest:
            raise UserError(
                f"the store was made from another model than {description.model} is now ({description.model_digest[:12]}, "
                f"now {files.digest[:12]}): restore its weights and config.json, or extract again with --replace"
            )
        return files

    def check(self) -> None:
        """Raises UserError: the weights or the tokenizer are not whole, or ids lie outside of the vocabulary."""
        ARCHITECTURES[self.model_type].check(self.folder, self.config)
        check_ids(self.folder, self.tokenizer, self.bos, self.sizes.vocab_size)

    @cached_property
    def model_type(self) -> str:
        """The architecture, as config.json names it."""
        return model_type(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What of config.json changes the numbers, by the architecture's own names."""
        path = self.folder / "config.json"
        return ARCHITECTURES[self.model_type].settings(path, read_json_object(path))

    @cached_property
    def sizes(self) -> Sizes:
        """Which hook points there are, how wide each is, and their order in the pass."""
        return ARCHITECTURES[self.model_type].sizes(self.config)

    @property
    def n_layers(self) -> int:
        return self.sizes.n_layers

    @property
    def n_positions(self) -> int:
        return self.sizes.n_positions

    @property
    def vocab_size(self) -> int:
        return self.sizes.vocab_size

    def d(self, hook_point: str) -> int:
        """Coordinates at a hook point. Raises UserError: the model has no such hook point."""
        return self.sizes.d(hook_point)

    def locate(self, hook_point: str) -> tuple[int, str]:
        """(layer, site): see Sizes. Raises UserError: the model has no such hook point."""
        return self.sizes.locate(hook_point)

    @cached_property
    def digest(self) -> str:
        """Of the weights that are loaded and of what of config.json changes the numbers; names and dates are in neither."""
        return digest({"config": self.config, "weights": [file_digest(path) for path in weight_files(self.folder)]})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.folder)

    @cached_property
    def tokenizer_digest(self) -> str:
        """Of what turns a document into ids: the tokenizer, and BOS."""
        return digest({"tokenizer": self.tokenizer.to_str(), "bos": self.bos})

    @cached_property
    def bos(self) -> int:
        """The token that begins and ends documents. Raises UserError: config.json has none."""
        token = read_json_object(self.folder / "config.json").get("bos_token_id")
        if type(token) is not int or token < 0:
            found = "no bos_token_id" if token is None else f"bos_token_id = {token!r}, expected a token's id"
            raise UserError(f"extract.model: {self.folder / 'config.json'} has {found}")
        return token
