"""What lies in a dictionary's folder, whoever wrote it: read with its types, sizes and numbers checked first.

Everything here raises ValueError, one line that names the file, or OSError where a file cannot be read at all.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stores.manifest import file_digest
from stores.names import check_name
from stores.shapes import Float32

WEIGHTS, CONFIG, PROVENANCE = "sae_weights.safetensors", "cfg.json", "provenance.json"
Provenance = dict[str, Any]
Weights = dict[str, Float32[Tensor, "..."]]  # by name
_JSON_BYTES = 1 << 22  # cfg.json and provenance.json have some kilobytes; objects take some 30 times their text
_HEADER_BYTES = 1 << 20  # some 100 a tensor
_DTYPES = ("F64", "F32", "F16", "BF16")
# SAELens's defaults where its matching pursuit's cfg.json lacks one, the types that are read, and what is expected
_PURSUIT = {
    "residual_threshold": (0.01, (int, float), "a number"),
    "max_iterations": (None, (int, NoneType), "a whole number, or null for d_in"),
    "stop_on_duplicate_support": (True, (bool,), "true or false"),
}
WEIGHTS_DIGEST, TENSOR_DIGESTS = "weights_digest", "tensor_digests"
_TEXTS = ("method", "model", "model_digest", "weight_processing", WEIGHTS_DIGEST)


def read_config(path: Path) -> dict[str, Any]:
    """cfg.json of the folder: what SAELens 6 writes, its metadata a table, its hook points names or empty."""
    if not (path / CONFIG).exists() or not (path / WEIGHTS).exists():
        raise ValueError(f"no feature dictionary at {path}: {CONFIG} and {WEIGHTS} are expected there")
    file = path / CONFIG
    config = _modern(json_object(file))
    architecture = str(config.get("architecture"))
    transcoder = architecture.endswith("transcoder")
    with_k = architecture.startswith(("topk", "abs_topk", "abstopk"))
    needed = ["architecture", "d_in", "d_sae", *(["k"] if with_k else [])]
    needed += ["d_out"] if transcoder else []
    if missing := [name for name in needed if name not in config]:
        raise ValueError(f"{file} lacks {', '.join(missing)}: SAELens 6 writes them")
    for name in needed[1:]:
        if type(config[name]) is not int:
            raise ValueError(f"{file}: {name} = {shown(config[name])} is not a whole number")
    metadata = config["metadata"] = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{file}: metadata is {shown(metadata)}, expected an object")
    for name in ("hook_name", "hook_name_out", "model_name"):
        metadata[name] = text_of(file, f"metadata.{name}", metadata.get(name) or "")
    for name in ("hook_name", "hook_name_out"):
        if metadata[name]:
            check_name(metadata[name], f"{file}: metadata.{name}")
    for name, kind in (("reads", str), ("writes", str), ("d_writes", int)):
        found = metadata.get(name) or []
        if not isinstance(found, list) or not all(type(value) is kind for value in found):
            raise ValueError(f"{file}: metadata.{name} is {shown(found)}, expected a list")
        metadata[name] = tuple(found)
    for option in ("normalize_activations", "reshape_activations"):
        if config.get(option, "none") != "none":
            raise ValueError(f"{file}: {option} = {shown(config[option])}, only 'none' can be read")
    for option in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        if not isinstance(config.get(option, True), bool):
            raise ValueError(f"{file}: {option} = {shown(config[option])}, expected true or false")
        if transcoder and config.get(option, False):
            raise ValueError(f"{file}: {option} of a transcoder cannot be read")
    for option, (default, types, expected) in _PURSUIT.items() if architecture == "matching_pursuit" else ():
        if type(config.setdefault(option, default)) not in types:
            raise ValueError(f"{file}: {option} = {shown(config[option])}, expected {expected}")
    return config


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """A cfg.json of SAELens before 6, which has no metadata, as 6 would read it."""
    hook_point = config.get("hook_name", config.get("hook_point"))
    if "metadata" in config or hook_point is None:
        return config
    new = {"architecture": "standard", **config}
    new["metadata"] = {"hook_name": hook_point, "model_name": config.get("model_name") or ""}
    activation, options = (
        config.get("activation_fn", config.get("activation_fn_str", "relu")),
        config.get("activation_fn_kwargs"),
    )
    if activation == "topk" and isinstance(options, dict):
        new |= {"architecture": "topk", "k": options.get("k")}
    elif activation not in (None, "relu"):
        new["architecture"] = f"{new['architecture']} with {shown(activation)}"
    if config.get("normalize_activations") in (None, False):
        new["normalize_activations"] = "none"
    return new


def read_provenance(path: Path) -> Provenance:
    """provenance.json of the folder, empty where there is none."""
    file = path / PROVENANCE
    if not file.exists():
        return {}
    provenance = json_object(file)
    for name in _TEXTS:
        if name in provenance:
            text_of(file, name, provenance[name])
    digests = provenance.get(TENSOR_DIGESTS, {})
    if not isinstance(digests, dict) or not all(type(value) is str for value in digests.values()):
        raise ValueError(f"{file}: {TENSOR_DIGESTS} is {shown(digests)}, expected a digest of each weight")
    if "method" in provenance:
        check_name(provenance["method"], f"{file}: method")
    return provenance


def read_weights(file: Path, shapes: dict[str, tuple[int, ...]], digest: str | None) -> Weights:
    """The tensors of these names and shapes, as float32, all of them finite. digest: what the file's sha256 has to be.

    Nothing is read or allocated before the header agrees with the file's size and with the shapes.
    """
    with _opened(file, shapes) as tensors:
        if digest is not None and file_digest(file) != digest:
            raise ValueError(f"{file} was altered: its digest is not the one in {PROVENANCE}")
        weights = {name: tensors.get_tensor(name).float() for name in shapes}
    for name, x in weights.items():
        check_finite(file, name, x)
    return weights


def map_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> Weights | None:
    """As read_weights, where they lie in the file, with no number read or checked. None: one is not float32."""
    with _opened(file, shapes) as tensors:
        if any(tensors.get_slice(name).get_dtype() != "F32" for name in shapes):
            return None
        return {name: tensors.get_tensor(name) for name in shapes}  # safetensors maps the file


@contextmanager
def _opened(file: Path, shapes: dict[str, tuple[int, ...]]) -> Iterator[Any]:
    """safetensors' handle of a file whose header is what it has to be."""
    check_regular(file)
    check_header(file)
    try:
        with safe_open(file, "pt") as tensors:
            if missing := sorted(set(shapes) - set(tensors.keys())):
                raise ValueError(f"{file} lacks {', '.join(missing)}")
            for name, shape in shapes.items():
                found = tensors.get_slice(name)
                if found.get_dtype() not in _DTYPES:
                    raise ValueError(f"{file}: {name} is of {found.get_dtype()}, expected one of {', '.join(_DTYPES)}")
                if tuple(found.get_shape()) != shape:
                    raise ValueError(f"{file}: {name} is {tuple(found.get_shape())}, expected {shape} by {CONFIG}")
            yield tensors
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {line_of(error)}") from error


def fold_options(file: Path, weights: Weights, config: dict[str, Any]) -> None:
    """Bring weights to what they are where cfg.json's options have the values that FeatureDictionary knows, in place."""
    if not config.get("apply_b_dec_to_input", True):
        if "W_enc" not in weights:  # a matching pursuit, whose b_dec SAELens then adds nowhere
            weights["b_dec"] = torch.zeros_like(weights["b_dec"])
            return
        # (x - b_dec) W_enc + (b_enc + b_dec W_enc) = x W_enc + b_enc
        shift = weights["b_dec"] @ weights["W_enc"]
        weights["b_enc"] = weights["b_enc"] + shift
        if "b_mag" in weights:
            weights["b_mag"] = weights["b_mag"] + shift * weights["r_mag"].exp()
    if config.get("rescale_acts_by_decoder_norm", False):
        if config["architecture"] not in ("standard", "topk"):
            raise ValueError(f"{file}: rescale_acts_by_decoder_norm of {config['architecture']} cannot be read")
        norm = weights["W_dec"].norm(dim=-1)
        weights["W_enc"] = weights["W_enc"] * norm
        weights["b_enc"] = weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / torch.where(norm > 0, norm, 1)[:, None]  # a row of zeros stays one


def json_object(file: Path) -> dict[str, Any]:
    """Raises ValueError: the file is long, or holds no JSON object."""
    check_regular(file)
    if file.stat().st_size > _JSON_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, expected at most {_JSON_BYTES}")
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: not JSON ({line_of(error)})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds {shown(value)}, expected an object")
    return value


def check_regular(file: Path) -> None:
    """Raises ValueError: it is no file, or a link that leads out of its folder. A link into the blobs of the hub's cache,
    where all files of a snapshot lie, stays in it."""
    if not file.is_file():
        raise ValueError(f"{file} is no file: a folder, or what only looks like a file, is in its place")
    if file.is_symlink():
        real, folder = file.resolve(), file.parent.resolve()
        cache = next((parent.parent for parent in folder.parents if parent.name == "snapshots"), None)
        if not real.is_relative_to(folder) and (cache is None or real.parent != cache / "blobs"):
            raise ValueError(f"{file} is a link to {real}, out of its folder: put the file itself there")


def check_header(file: Path) -> None:
    """Of safetensors. Raises ValueError: its header is longer than the file, or than any dictionary's."""
    with file.open("rb") as raw:
        n = int.from_bytes(raw.read(8), "little")
    if n > file.stat().st_size - 8:
        raise ValueError(f"{file} is damaged: its header claims {n} bytes, the file has {file.stat().st_size}")
    if n > _HEADER_BYTES:
        raise ValueError(f"{file}: its header has {n} bytes, expected at most {_HEADER_BYTES}")


def check_finite(file: Path, name: str, x: Float32[Tensor, "..."]) -> None:
    if x.sum().isfinite():  # then each of them is; a thirtieth of the time that counting takes
        return
    if n := int((~x.isfinite()).sum()):
        raise ValueError(f"{file}: {n} of {x.numel()} numbers in {name} are not finite in float32")


def text_of(file: Path, name: str, value: Any) -> str:
    """The value. Raises ValueError: it is no text of one line."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{file}: {name} is {shown(value)}, expected text of one line")
    return value


def shown(value: Any) -> str:
    """A stranger's value in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def line_of(error: Exception) -> str:
    """What a library says of a stranger's file, in one short line."""
    text = " ".join(str(error).split())[:200]
    return text if text.isprintable() else ascii(text)


@contextmanager
def named(file: Path) -> Iterator[None]:
    """A ValueError in it begins with the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
