"""Which files of a model's folder hold its weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pipeline.config import UserError
from pipeline.models.reading import read_json_object

_INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights. Raises UserError: there are none, or the index names a missing one."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if not (folder / _INDEX).exists():
        raise UserError(
            f"extract.model: {folder} has no weights, expected model.safetensors or {_INDEX}; others are written by "
            f"transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    listed = read_json_object(folder / _INDEX).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) and all(map(_is_name, listed.values())) else set()
    if not names:
        raise UserError(f"extract.model: {folder / _INDEX} has no weight_map of names of files beside it")
    for name in names:
        if not (folder / name).exists():
            raise UserError(f"extract.model: {folder / _INDEX} lists {name}, which is not there: download it again")
    return sorted(folder / name for name in names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value


def check_tied(embedding: tuple[Path, str], head: tuple[Path, str]) -> None:
    """Each a file and the name in it. Raises UserError: config.json says that they are one matrix, and they are not."""
    both = []
    for path, key in (embedding, head):
        with safe_open(path, "pt") as file:
            both.append(file.get_tensor(key))
    if not torch.equal(*both):
        raise UserError(
            f"extract.model: {head[1]} in {head[0]} is not the embedding, config.json says that it is: set "
            "tie_word_embeddings to false there"
        )
