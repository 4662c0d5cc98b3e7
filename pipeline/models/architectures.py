"""The architectures that are known, by config.json's model_type: what is read of each before its weights are loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.models import gpt2_weights, hugging_face_weights
from pipeline.models.hook_points import Sizes
from pipeline.models.reading import read_json_object


@dataclass(frozen=True)
class Architecture:
    """settings: what of a config.json (its path, its values) changes the numbers. sizes: of the hook points, by settings.
    check (folder, settings): whether the weights are whole. All raise UserError."""

    settings: Callable[[Path, dict[str, Any]], dict[str, Any]]
    sizes: Callable[[dict[str, Any]], Sizes]
    check: Callable[[Path, dict[str, Any]], object]


_OTHER = Architecture(
    hugging_face_weights.read_settings, hugging_face_weights.sizes, hugging_face_weights.check_weights
)
ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(gpt2_weights.read_settings, gpt2_weights.sizes, gpt2_weights.check_weights),
    "gpt_neox": _OTHER,
    "llama": _OTHER,
    "mistral": _OTHER,
    "qwen2": _OTHER,
    "qwen3": _OTHER,
    "gemma2": _OTHER,
    "gemma3_text": _OTHER,
}


def model_type(folder: Path) -> str:
    """A key of ARCHITECTURES. Raises UserError: config.json cannot be read, or is of an architecture that is not known."""
    found = read_json_object(folder / "config.json").get("model_type")
    if found not in ARCHITECTURES:
        kind = " ".join(str(found).split())
        raise UserError(f"extract.model: {folder} is a {kind[:40]} model, known are {', '.join(ARCHITECTURES)}")
    return str(found)
