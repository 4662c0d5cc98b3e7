"""circuit-tracer's folder: layer_0.safetensors … of one transcoder each, and config.yaml, which names what they read and write.

    z = activation(x W_enc^T + b_enc),  y_hat = z W_dec + b_dec  [+ x W_skip^T]

W_enc (d_sae, d_model), W_dec (d_sae, d_model), W_skip (d_model, d_model); ReLU, or JumpReLU where there is an
activation_function.threshold (d_sae). feature_input_hook and feature_output_hook are names of hook points without their
"blocks.LAYER.". Source: circuit-tracer 0.5.0, transcoder/single_layer_transcoder.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from stores.dictionary_files import Weights, check_regular, line_of, named, shown, text_of
from stores.formats.affine import Affine
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.manifest import json_bytes
from stores.site import Site
from stores.spec import Spec

CONFIG = "config.yaml"
_CONFIG_BYTES = 1 << 16
_FILE, _HOOK = re.compile(r"layer_(\d+)\.safetensors"), re.compile(r"blocks\.(\d+)\.(.+)")
_ROWS = {"W_enc": True, "W_dec": False, "W_skip": True}


def files(path: Path) -> list[Path] | None:
    """Those of the transcoder at a path, None: another format's, or a folder of several."""
    if path.is_dir():
        layers = [file for file in path.glob("layer_*.safetensors") if _FILE.fullmatch(file.name)]
        path = layers[0] if len(layers) == 1 else path
    folder = path.parent
    return [folder / CONFIG, path] if _FILE.fullmatch(path.name) and (folder / CONFIG).exists() else None


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, or another kind than per-layer transcoders."""
    file, weights = files(path) or []
    config = _config(file)
    if config.get("model_kind", "transcoder_set") != "transcoder_set":
        raise ValueError(f"{file}: model_kind is {shown(config['model_kind'])}, only 'transcoder_set' can be read")
    hooks = [text_of(file, name, config.get(name, "")) for name in ("feature_input_hook", "feature_output_hook")]
    match = _FILE.fullmatch(weights.name)
    layer = int(match[1]) if match else 0
    reads, writes = ((f"blocks.{layer}.{hook}",) if hook else () for hook in hooks)
    model = text_of(file, "model_name", config.get("model_name") or "")
    tensors = open_tensors(weights)
    if "activation_function.threshold" in tensors.entries:
        below = int((tensors.read("activation_function.threshold") < 0).sum())
        if below:
            raise ValueError(
                f"{weights}: {below} thresholds are less than 0, so codes may be: they cannot be expressed"
            )
    provenance = {"model": model} if model else {}
    with named(file):
        site = Site(reads, writes)
    return Affine(tensors, stated, "", None, False, True, site, (), provenance, _ROWS)


def _config(file: Path) -> dict[str, Any]:
    check_regular(file)
    if file.stat().st_size > _CONFIG_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, expected at most {_CONFIG_BYTES}")
    try:
        import yaml
    except ImportError:
        raise ValueError(f"{file} is YAML: install pyyaml to read it") from None
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: not YAML ({line_of(error)})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds {type(config).__name__}, expected keys and values")
    # Aliases in YAML make values of which no text fits into memory: only texts are looked at
    return {key: value for key, value in config.items() if isinstance(key, str) and isinstance(value, str)}


def layer_of(spec: Spec) -> tuple[int, str, str]:
    """(layer, feature_input_hook, feature_output_hook). Raises ValueError: circuit-tracer has no such site."""
    site = spec.site
    matches = [_HOOK.fullmatch(name) for name in (*site.reads, *site.writes)]
    if len(matches) != 2 or not all(matches) or len({match[1] for match in matches if match}) > 1:
        raise ValueError(
            f"circuit-tracer has no place for what is at {site.name!r}: its transcoders read and write one hook point each, of "
            f"one layer, as blocks.0.hook_resid_mid--blocks.0.hook_mlp_out"
        )
    one, two = (match for match in matches if match)
    return int(one[1]), one[2], two[2]


def check(spec: Spec) -> None:
    """Raises ValueError: what circuit-tracer cannot express."""
    if spec.d_out is None:
        raise ValueError("circuit-tracer has no autoencoder: it replaces MLPs, by transcoders alone")
    if spec.architecture not in ("standard", "jumprelu"):
        raise ValueError(f"circuit-tracer has no {spec.architecture}: its transcoders are standard and jumprelu")
    if spec.d_out != spec.d_in:
        sizes = f"d_in = {spec.d_in} and d_out = {spec.d_out}"
        raise ValueError(f"circuit-tracer has no transcoder of {sizes}: both are d_model there")
    layer_of(spec)


def write(spec: Spec, w: Weights) -> Iterator[tuple[str, bytes]]:
    """The files of what check lets pass; of a set config.yaml is the same in all."""
    layer, reads, writes = layer_of(spec)
    weights = {
        "W_enc": w["W_enc"].T.contiguous(),
        "b_enc": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
        **({"activation_function.threshold": w["threshold"]} if spec.architecture == "jumprelu" else {}),
        **({"W_skip": w["W_skip"].T.contiguous()} if spec.skip else {}),
    }
    model = spec.provenance.get("model", "")
    config = {"model_name": model, "model_kind": "transcoder_set", "scan": ""}
    yield f"layer_{layer}.safetensors", save_tensors(weights)
    yield CONFIG, json_bytes({**config, "feature_input_hook": reads, "feature_output_hook": writes})  # JSON is YAML
