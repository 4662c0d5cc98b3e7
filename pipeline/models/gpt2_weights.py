"""A GPT-2's settings and weights in Hugging Face layout. They are whole, or refused."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.config import Config, UserError, validated
from pipeline.models.hook_points import Sizes
from pipeline.models.reading import damaged
from pipeline.models.weight_files import check_tied, weight_files

_IGNORED = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older versions saved as a weight
_FLOATS = ("F64", "F32", "F16", "BF16")


class Gpt2Settings(Config):
    """What of config.json changes the numbers, with the defaults of transformers' GPT2Config. Nothing else is read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    n_embd: int = Field(default=768, ge=1)
    n_head: int = Field(default=12, ge=1)
    n_inner: int | None = Field(default=None, ge=1)
    n_layer: int = Field(default=12, ge=1)
    n_positions: int = Field(default=1024, ge=1)
    scale_attn_by_inverse_layer_idx: bool = False
    scale_attn_weights: bool = True
    tie_word_embeddings: bool = True
    vocab_size: int = Field(default=50257, ge=1)


def read_settings(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Gpt2Settings of a config.json's values; n_inner is filled in. Raises UserError: one cannot be."""
    found = validated(Gpt2Settings, values, str(path))
    if found.n_embd % found.n_head:
        raise UserError(f"{path}: n_embd = {found.n_embd} is no multiple of n_head = {found.n_head}")
    if found.activation_function != "gelu_new":
        from transformers.activations import ACT2FN

        if found.activation_function not in ACT2FN:
            raise UserError(f"{path}: unknown activation_function {found.activation_function!r}, GPT-2's is gelu_new")
    return {**found.model_dump(), "n_inner": found.n_inner or 4 * found.n_embd}


def sizes(settings: dict[str, Any]) -> Sizes:
    """Of the hook points of a GPT-2, by read_settings."""
    return Sizes(
        n_layers=settings["n_layer"],
        n_positions=settings["n_positions"],
        vocab_size=settings["vocab_size"],
        d_model=settings["n_embd"],
        d_mlp=settings["n_inner"],
        n_heads=settings["n_head"],
        d_head=settings["n_embd"] // settings["n_head"],
    )


def shapes(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every weight of a GPT-2, as transformers saves it; matrices are (d_in, d_out).

    The listing is the architecture: what is not in it is not read.
    """
    d, d_mlp = settings["n_embd"], settings["n_inner"]
    yield "wte.weight", (settings["vocab_size"], d)
    yield "wpe.weight", (settings["n_positions"], d)
    for layer in range(settings["n_layer"]):
        yield from ((f"h.{layer}.ln_1.weight", (d,)), (f"h.{layer}.ln_1.bias", (d,)))
        yield from ((f"h.{layer}.attn.c_attn.weight", (d, 3 * d)), (f"h.{layer}.attn.c_attn.bias", (3 * d,)))
        yield from ((f"h.{layer}.attn.c_proj.weight", (d, d)), (f"h.{layer}.attn.c_proj.bias", (d,)))
        yield from ((f"h.{layer}.ln_2.weight", (d,)), (f"h.{layer}.ln_2.bias", (d,)))
        yield from ((f"h.{layer}.mlp.c_fc.weight", (d, d_mlp)), (f"h.{layer}.mlp.c_fc.bias", (d_mlp,)))
        yield from ((f"h.{layer}.mlp.c_proj.weight", (d_mlp, d)), (f"h.{layer}.mlp.c_proj.bias", (d,)))
    yield from (("ln_f.weight", (d,)), ("ln_f.bias", (d,)))
    if not settings["tie_word_embeddings"]:
        yield "lm_head.weight", (settings["vocab_size"], d)


def read_weights(folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Every weight, float32, by the names of `shapes`. Raises UserError as check_weights does."""
    held = check_weights(folder, settings)
    weights = {}
    for name, _ in shapes(settings):
        path, key = held[name]
        with safe_open(path, "pt") as file:
            weights[name] = file.get_tensor(key).to(torch.float32, copy=True)  # no view of the file, which may change
    return weights


def check_weights(folder: Path, settings: dict[str, Any]) -> dict[str, tuple[Path, str]]:
    """Weight → (file, its name there), when the files hold just the model's weights.

    Raises UserError: a file cannot be read; a weight is missing, left over, of another shape or no floating-point one;
    a head that config.json ties to the embedding is another matrix.
    """
    held: dict[str, tuple[Path, str]] = {}
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  no dictionary
                    name = key.removeprefix("transformer.")
                    if _IGNORED.fullmatch(name):
                        continue
                    if name in held:
                        raise UserError(f"extract.model: {path} holds {key} a second time")
                    part = file.get_slice(key)
                    held[name], found[name] = (path, key), (tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from None
    layers = len({match[1] for name in found if (match := re.match(r"h\.(\d+)\.", name))})
    if layers != settings["n_layer"]:  # before as many names are listed as config.json claims
        raise UserError(f"extract.model: config.json says n_layer = {settings['n_layer']}, {folder} holds {layers}")
    left = set(found)
    for name, shape in shapes(settings):
        if name not in found:
            raise UserError(f"extract.model: {folder} lacks the weight {name} of the model in its config.json")
        path, key = held[name]
        if found[name][0] != shape:
            raise UserError(
                f"extract.model: {path} holds {key} of shape {found[name][0]}, by config.json it should be {shape}"
            )
        if found[name][1] not in _FLOATS:
            raise UserError(f"extract.model: {path} holds {key} as {found[name][1]}, expected one of {_FLOATS}")
        left.remove(name)
    if "lm_head.weight" in left:
        left.remove("lm_head.weight")
        check_tied(held["wte.weight"], held["lm_head.weight"])
    if left:
        name = sorted(left)[0]
        raise UserError(f"extract.model: {held[name][0]} holds {held[name][1]}, which no GPT-2 language model has")
    return held
