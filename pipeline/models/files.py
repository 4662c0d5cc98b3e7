"""A language model's folder: all that is known before its weights are loaded."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipeline.config import UserError, nearest
from pipeline.models.gpt2_weights import check_weights, read_settings, weight_files
from pipeline.models.hub import model_snapshot
from pipeline.models.reading import read_json_object
from pipeline.models.tokenizer import check_ids, read_tokenizer
from stores.description import Description
from stores.manifest import digest, file_digest

DEMO = Path(__file__).parents[1] / "assets" / "demo"
SITES = ("hook_resid_pre", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")


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
        """The model that a store was made from. Raises UserError: it is not the same any more, or not there."""
        files = cls.find(description.model, description.model_revision)
        if files.digest != description.model_digest:
            raise UserError(
                f"the store was made from another model than {description.model} is now ({description.model_digest[:12]}, "
                f"now {files.digest[:12]}): restore its weights and config.json, or extract again with --replace"
            )
        return files

    def check(self) -> None:
        """Raises UserError: the weights or the tokenizer are not whole, or ids lie outside of the vocabulary."""
        check_weights(self.folder, self.config)
        check_ids(self.folder, self.tokenizer, self.bos, self.config["vocab_size"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """What of config.json changes the numbers: see Gpt2Settings."""
        return read_settings(self.folder / "config.json")

    @property
    def n_layers(self) -> int:
        return self.config["n_layer"]

    @property
    def n_positions(self) -> int:
        return self.config["n_positions"]

    @property
    def hook_points(self) -> list[str]:
        return [f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in SITES]

    def d(self, hook_point: str) -> int:
        """Coordinates at a hook point. Raises UserError: the model has no such hook point."""
        _, site = self.locate(hook_point)
        d_model = self.config["n_embd"]
        return self.config["n_inner"] if site in ("mlp.hook_pre", "mlp.hook_post") else d_model

    def locate(self, hook_point: str) -> tuple[int, str]:
        """(layer, site). Raises UserError: no such site, or no such layer."""
        match = re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.(.+)", hook_point)
        if match and match[2] in SITES:
            if int(match[1]) < self.n_layers:
                return int(match[1]), match[2]
            raise UserError(
                f"hook point {hook_point!r}: layer {match[1]} is out of range, {self.name} has layers 0 to {self.n_layers - 1}"
            )
        sites = [f"blocks.L.{site}" for site in SITES]
        hint = nearest(re.sub(r"\d+", "L", hook_point, count=1), sites)
        if "mean" in hint:
            hint += f" (of: {', '.join(sites)})"
        raise UserError(f"unknown hook point {hook_point!r}{hint}, for L from 0 to {self.n_layers - 1}")

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
        """GPT-2 has one special token, which begins and ends documents. Raises UserError: config.json has none."""
        token = read_json_object(self.folder / "config.json").get("bos_token_id")
        if type(token) is not int or token < 0:
            found = "no bos_token_id" if token is None else f"bos_token_id = {token!r}, expected a token's id"
            raise UserError(f"extract.model: {self.folder / 'config.json'} has {found}")
        return token
