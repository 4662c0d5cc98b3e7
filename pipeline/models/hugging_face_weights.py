"""Settings and weights of the architectures that run on transformers' own modules. They are whole, or refused."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipeline.config import UserError
from pipeline.models.hook_points import Sizes
from pipeline.models.reading import damaged
from pipeline.models.weight_files import check_tied, weight_files

_CHANGE_NOTHING = {
    "_name_or_path", "architectures", "attention_dropout", "bos_token_id", "cache_implementation", "classifier_dropout",
    "dtype", "eos_token_id", "hidden_dropout", "id2label", "initializer_range", "is_decoder", "label2id",
    "output_attentions", "output_hidden_states", "pad_token_id", "pretraining_tp", "return_dict", "torch_dtype",
    "transformers_version", "unsloth_fixed", "use_cache",
}  # fmt: skip
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|attention\.(bias|masked_bias))")  # older versions saved them
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_settings(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What of a config.json's values may change the numbers: all but what is known not to.

    Raises UserError: transformers makes no model of them, or the weights are quantized.
    """
    if "quantization_config" in values:
        raise UserError(f"{path}: the weights are quantized, expected float32, float16 or bfloat16")
    settings = {name: value for name, value in values.items() if name not in _CHANGE_NOTHING}
    try:
        sizes(settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return settings


def sizes(settings: dict[str, Any]) -> Sizes:
    """Of the hook points. Raises UserError: the settings are none that transformers takes."""
    config = transformers_config(settings)
    head = getattr(config, "head_dim", None)
    return Sizes(
        n_layers=config.num_hidden_layers,
        n_positions=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        d_model=config.hidden_size,
        d_mlp=config.intermediate_size,
        n_heads=config.num_attention_heads,
        d_head=head or config.hidden_size // config.num_attention_heads,
        gated=config.model_type != "gpt_neox",
        parallel=getattr(config, "use_parallel_residual", False),
    )


def transformers_config(settings: dict[str, Any], n_layers: int | None = None) -> Any:
    """transformers' own config. n_layers: of the first layers alone. Raises UserError: it takes no such settings."""
    from transformers import CONFIG_MAPPING

    values = {name: value for name, value in settings.items() if name != "model_type"}
    if n_layers is not None:
        values["num_hidden_layers"] = n_layers
        if isinstance(values.get("layer_types"), list):
            values["layer_types"] = values["layer_types"][:n_layers]
    try:
        config: Any = CONFIG_MAPPING[settings["model_type"]](**values)
        least = min(config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.vocab_size)
    except Exception as error:  # of whatever kind its checks raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"transformers takes no such settings: {' '.join(lines)[:200]}") from None
    if least < 1:
        raise UserError("the numbers of layers, heads, coordinates and tokens are expected to be 1 or more")
    return config


def check_weights(folder: Path, settings: dict[str, Any]) -> None:
    """Raises UserError: a file cannot be read; a weight is missing, left over, of another shape or no floating-point one;
    a head that config.json ties to the embedding is another matrix."""
    held = _held(folder, settings)
    model = load(folder, settings, "meta")
    heads = [key for key in held if re.fullmatch(r"(lm_head|embed_out)\.weight", key)]
    embeddings = [key for key in held if re.search(r"(embed_tokens|embed_in)\.weight$", key)]
    if model.config.tie_word_embeddings and heads and embeddings:
        check_tied((held[embeddings[0]][0], embeddings[0]), (held[heads[0]][0], heads[0]))


def load(folder: Path, settings: dict[str, Any], device: str, n_layers: int | None = None) -> Any:
    """A transformers language model with its weights in their own dtype, its first n_layers alone if so asked.

    device "meta": no weight is read. Raises UserError as check_weights does.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    dtypes = {dtype for _, dtype in _held(folder, settings).values()}
    config = transformers_config(settings, n_layers)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with _quiet():
        try:
            model, found = kind.from_pretrained(
                folder, config=config, device_map={"": device}, ignore_mismatched_sizes=True, output_loading_info=True,
                dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32, local_files_only=True, use_safetensors=True,
            )  # fmt: skip
        except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
            raise UserError(
                f"extract.model: {folder} cannot be loaded: {(str(error).splitlines() or ['?'])[0]}"
            ) from None
    kept = config.num_hidden_layers
    for name in sorted(found["missing_keys"]):
        raise UserError(f"extract.model: {folder} lacks the weight {name} of the model in its config.json")
    for name, held, expected in sorted(found["mismatched_keys"]):
        raise UserError(
            f"extract.model: {folder} holds {name} of shape {tuple(held)}, by config.json it should be {tuple(expected)}"
        )
    for name in sorted(found["unexpected_keys"]):
        layer = _LAYER.search(name)
        if not _IGNORED.fullmatch(name) and not (layer and int(layer[1]) >= kept):
            raise UserError(f"extract.model: {folder} holds {name}, which no {config.model_type} language model has")
    return model.eval().requires_grad_(False)


def _held(folder: Path, settings: dict[str, Any]) -> dict[str, tuple[Path, torch.dtype]]:
    """Weight → its file and its dtype. Raises UserError: a file cannot be read, or has other layers than config.json says."""
    held: dict[str, tuple[Path, torch.dtype]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  no dictionary
                    if _IGNORED.fullmatch(key):
                        continue
                    kind = file.get_slice(key).get_dtype()
                    if kind not in _DTYPES:
                        raise UserError(
                            f"extract.model: {path} holds {key} as {kind}, expected one of {tuple(_DTYPES)}"
                        )
                    held[key] = (path, _DTYPES[kind])
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from None
    n, found = sizes(settings).n_layers, len({layer[1] for key in held if (layer := _LAYER.search(key))})
    if found != n:  # before as many modules are made as config.json claims
        raise UserError(f"extract.model: config.json says {n} layers, {folder} holds {found}")
    return held


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports of transformers: what is wrong with the weights is told here, in one line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
