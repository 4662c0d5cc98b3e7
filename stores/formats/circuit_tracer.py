"""circuit-tracer's folder: layer_0.safetensors … of one transcoder each, and config.yaml, which names what they read and write.

    z = activation(x W_enc^T + b_enc),  y_hat = z W_dec + b_dec  [+ x W_skip^T]

W_enc (d_sae, d_model), W_dec (d_sae, d_model), W_skip (d_model, d_model); ReLU, or JumpReLU where there is an
activation_function.threshold (d_sae). feature_input_hook and feature_output_hook are names of hook points without their
"blocks.LAYER.".

A cross-layer transcoder is a dictionary of each layer, W_enc_0.safetensors …, that reads it and writes it and all later ones:
W_enc_L (d_sae, d_model), b_enc_L, b_dec_L (d_model), which is layer L's alone, threshold_L (d_sae) in it, and W_dec_L
(d_sae, n_layers - L, d_model) in W_dec_L.safetensors. b_dec here is zero at the later layers, so that what a layer gets is the
sum over all dictionaries that write it. Source: circuit-tracer 0.5.0, transcoder/single_layer_transcoder.py and
cross_layer_transcoder.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import save as save_tensors
from torch import Tensor

from stores.dictionary_files import Weights, check_regular, line_of, named, shown, text_of
from stores.formats.affine import Affine
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.formats.tensors import Entry, TensorFile
from stores.manifest import json_bytes
from stores.site import Site
from stores.spec import Spec

CONFIG = "config.yaml"
_CONFIG_BYTES = 1 << 16
_FILE, _HOOK = re.compile(r"(layer|W_enc|W_dec)_(\d+)\.safetensors"), re.compile(r"blocks\.(\d+)\.(.+)")
_MOST_LAYERS = 1000
_SET, _CROSS = "transcoder_set", "cross_layer_transcoder"
_ROWS = {"W_enc": True, "W_dec": False, "W_skip": True}


def files(path: Path) -> list[Path] | None:
    """Those of the transcoder at a path, None: another format's, or a folder of several."""
    if path.is_dir():
        layers = [
            file
            for file in path.glob("*_*.safetensors")
            if (match := _FILE.fullmatch(file.name)) and match[1] != "W_dec"
        ]
        path = layers[0] if len(layers) == 1 else path
    match, config = _FILE.fullmatch(path.name), path.parent / CONFIG
    if match is None or match[1] == "W_dec" or not config.exists():
        return None
    decoder = decoder_of(path.name)
    return [config, path, *([path.with_name(decoder)] if decoder else [])]


def is_part(path: Path) -> bool:
    """Whether it is the decoder of a cross-layer transcoder, and no dictionary."""
    return _FILE.fullmatch(path.name) is not None and path.name.startswith("W_dec") and _encoder(path).exists()


def decoder_of(name: str) -> str | None:
    """The name of the file that W_enc_N.safetensors is read with; None: it is another file."""
    match = _FILE.fullmatch(name)
    return name.replace("W_enc", "W_dec") if match and match[1] == "W_enc" else None


def _encoder(path: Path) -> Path:
    return path.with_name(path.name.replace("W_dec", "W_enc"))


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, or another kind of model."""
    file, weights, *more = files(path) or []
    config = _config(file)
    kind = config.get("model_kind", _SET)
    if kind != (_CROSS if more else _SET):
        raise ValueError(
            f"{file}: model_kind is {shown(kind)}, only {_SET!r} of layer_N.safetensors and {_CROSS!r} of W_enc_N.safetensors "
            f"can be read"
        )
    hooks = [text_of(file, name, config.get(name, "")) for name in ("feature_input_hook", "feature_output_hook")]
    match = _FILE.fullmatch(weights.name)
    layer = int(match[2]) if match else 0
    tensors, n = _joined(weights, more[0], layer) if more else (open_tensors(weights), 1)
    reads = (f"blocks.{layer}.{hooks[0]}",) if hooks[0] else ()
    writes = tuple(f"blocks.{layer + later}.{hooks[1]}" for later in range(n)) if hooks[1] else ()
    model = text_of(file, "model_name", config.get("model_name") or "")
    if "activation_function.threshold" in tensors.entries:
        below = int((tensors.read("activation_function.threshold") < 0).sum())
        if below:
            raise ValueError(
                f"{weights}: {below} thresholds are less than 0, so codes may be: they cannot be expressed"
            )
    provenance = {"model": model} if model else {}
    with named(file):
        site = Site(reads, writes)
    d_writes = (tensors.entries["b_dec"].shape[0] // n,) * n if more else ()
    return Affine(tensors, stated, "", None, False, True, site, d_writes, provenance, _ROWS)


def _joined(encoder: Path, decoder: Path, layer: int) -> tuple[TensorFile, int]:
    """A layer of a cross-layer transcoder as a transcoder's file, and how many layers it writes."""
    one, two = open_tensors(encoder), open_tensors(decoder)
    names = {"W_enc": "W_enc", "b_enc": "b_enc", "b_dec": "b_dec", "activation_function.threshold": "threshold"}
    theirs = {ours: f"{name}_{layer}" for ours, name in names.items() if f"{name}_{layer}" in one.entries}
    W_dec = f"W_dec_{layer}"
    if unknown := sorted({*one.entries, *two.entries} - {W_dec, *theirs.values()}):
        raise ValueError(f"{encoder}: {ascii(unknown[0])[:60]} has no part in a cross-layer transcoder")
    if W_dec not in two.entries or "b_dec" not in theirs:
        raise ValueError(
            f"{decoder if 'b_dec' in theirs else encoder} lacks {'W_dec' if 'b_dec' in theirs else 'b_dec'}_{layer}"
        )
    dtype, shape = two.entries[W_dec]
    d_model = one.entries[theirs["b_dec"]].shape
    if len(shape) != 3 or shape[2:] != d_model or not 1 <= shape[1] <= _MOST_LAYERS:
        raise ValueError(
            f"{decoder}: {W_dec} is {shape}, expected (d_sae, layers, d_model) with {d_model} by b_dec_{layer}"
        )
    n = shape[1]

    def get(name: str) -> Tensor:
        if name == "W_dec":
            return two.get(W_dec).flatten(1)
        x = one.get(theirs[name])
        return F.pad(x, (0, (n - 1) * len(x))) if name == "b_dec" else x

    entries = {ours: one.entries[name] for ours, name in theirs.items()}
    entries |= {
        "W_dec": Entry(dtype, (shape[0], n * shape[2])),
        "b_dec": Entry(entries["b_dec"].dtype, (n * shape[2],)),
    }
    return TensorFile(encoder, entries, get), n


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
