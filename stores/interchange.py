"""A dictionary's folder as SAELens 6 has it: names, options, and what SAELens has no word for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from stores.dictionary_files import (
    CONFIG,
    PROVENANCE,
    TENSOR_DIGESTS,
    WEIGHTS,
    WEIGHTS_DIGEST,
    Provenance,
    Weights,
    fold_options,
    map_weights,
    named,
    read_config,
    read_provenance,
    read_weights,
)
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.manifest import bytes_digest, json_bytes
from stores.mapped import Unchecked, tensor_digests
from stores.shapes import Float
from stores.site import Site
from stores.spec import Spec

_ABS_TOPK = "abstopk"  # SAELens's name
_SCALES = ("finetuning_scaling_factor", "scaling_factor")  # of codes before they are decoded; SAELens before 6 has them


def architecture_name(spec: Spec) -> str:
    """SAELens's name, or one like it where SAELens has none; abs_topk, whose name in cfg.json is abstopk."""
    if spec.d_out is None:
        return spec.architecture
    activation = "" if spec.architecture == "standard" else f"{spec.architecture}_"
    return f"{activation}{'skip_' if spec.skip else ''}transcoder"


def _read_architecture(name: str) -> tuple[str, bool, bool]:
    """(architecture, whether it is a transcoder, whether it has a skip matrix) of cfg.json's name."""
    if name == _ABS_TOPK:
        return "abs_topk", False, False
    if not name.endswith("transcoder"):
        return name, False, False
    activation, skip, _ = name.removesuffix("transcoder").rpartition("skip_")
    return (activation if skip else name.removesuffix("transcoder")).removesuffix("_") or "standard", True, bool(skip)


def files(path: Path) -> list[Path] | None:
    """Those that say what the dictionary at a path computes, None: another format's."""
    folder = path.parent if path.name == WEIGHTS and path.is_file() else path
    found = [folder / CONFIG, folder / WEIGHTS]
    return found if all(file.exists() for file in found) else None


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def read_spec(path: Path, stated: Stated) -> Spec:
    """No weights are read. Raises ValueError as read does."""
    folder = _folder(path)
    config = read_config(folder)
    for name, says in (("apply_b_dec_to_input", config.get("apply_b_dec_to_input", True)), ("k", config.get("k"))):
        if getattr(stated, name) not in (None, says):
            raise ValueError(f"{folder / CONFIG}: {name} = {says}, but {getattr(stated, name)} is stated")
    spec = spec_of(folder / CONFIG, config, read_provenance(folder))
    with named(path):
        site = stated.site(path)
        return spec if site is None else replace(spec, site=site)


def read(path: Path, stated: Stated) -> tuple[Spec, Weights]:
    """Raises ValueError, one line that names the file."""
    folder, spec = _folder(path), read_spec(path, stated)
    names, shapes = _saved(spec)
    found = read_weights(folder / WEIGHTS, shapes, read_provenance(folder).get(WEIGHTS_DIGEST))
    weights = {names[saved]: as_saved(names[saved], tensor) for saved, tensor in found.items()}
    config, file = read_config(folder), open_tensors(folder / WEIGHTS)
    for name in _SCALES:
        if name not in file.entries:
            continue
        scale = file.read(name)
        if not config.get("finetuning_scaling_factor") and (scale != 1).any():
            raise ValueError(f"{file.path}: {name} is not 1, and {CONFIG} does not say finetuning_scaling_factor")
        if scale.shape not in ((), (1,), (spec.d_sae,)):
            raise ValueError(f"{file.path}: {name} is {tuple(scale.shape)}, expected {(spec.d_sae,)} by {CONFIG}")
        weights["W_dec"] = weights["W_dec"] * scale[..., None]
    if spec.d_out is None:
        fold_options(folder / CONFIG, weights, config)
    return spec, weights


def _saved(spec: Spec) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """(our name, shape) of each weight in the file, by its name there."""
    names = {saved_name(spec, name): name for name in spec.shapes}
    return names, {s: spec.shapes[n][::-1] if n == "W_skip" else spec.shapes[n] for s, n in names.items()}


def read_mapped(path: Path, stated: Stated) -> tuple[Spec, Weights, Unchecked] | None:
    """As read, with weights that lie in their file. None: they are not ours as they lie there, or were saved when only the
    file had a digest. Raises ValueError as read does, but for what the numbers are."""
    folder, spec = _folder(path), read_spec(path, stated)
    config, provenance, (names, shapes) = read_config(folder), read_provenance(folder), _saved(spec)
    file, digests = folder / WEIGHTS, provenance.get(TENSOR_DIGESTS, {})
    changed = not config.get("apply_b_dec_to_input", True) or config.get("rescale_acts_by_decoder_norm", False)
    if (changed and spec.d_out is None) or any(name in open_tensors(file).entries for name in _SCALES):
        return None
    if WEIGHTS_DIGEST in provenance and not digests.keys() >= names.keys():
        return None
    found = map_weights(file, shapes)
    if found is None:
        return None
    unchecked = Unchecked(file, {name: digests.get(saved) for saved, name in names.items()})
    weights = {names[saved]: x for saved, x in found.items()}
    if spec.skip:
        unchecked.check("W_skip", weights["W_skip"])
        weights["W_skip"] = as_saved("W_skip", weights["W_skip"])
    return spec, weights, unchecked


def digests_of(saved: Weights, data: bytes) -> Provenance:
    """What provenance.json says of the weights that were saved as data."""
    return {WEIGHTS_DIGEST: bytes_digest(data), TENSOR_DIGESTS: tensor_digests(saved)}


def check(spec: Spec) -> None:
    """Raises ValueError: what SAELens cannot express."""
    if spec.architecture in ("linear", "bases"):
        raise ValueError(f"SAELens has no {spec.architecture}: its codes have an activation that sets entries to zero")
    if spec.d_out is not None and spec.architecture not in ("standard", "jumprelu"):
        raise ValueError(
            f"SAELens has no transcoder with {spec.architecture}: its transcoders are standard and jumprelu"
        )


def write(spec: Spec, w: Weights) -> Iterator[tuple[str, bytes]]:
    """The files of what check lets pass."""
    saved = {saved_name(spec, n): as_saved(n, w[n]).contiguous() for n in spec.shapes}
    weights = save_tensors(saved)
    yield WEIGHTS, weights
    yield CONFIG, json_bytes(config_of(spec))
    yield PROVENANCE, json_bytes({**spec.provenance, **digests_of(saved, weights)})


def spec_of(file: Path, config: dict[str, Any], provenance: Provenance) -> Spec:
    """Of a cfg.json that read_config has checked. Raises ValueError: its sizes or names do not fit one another."""
    metadata = config["metadata"]
    if metadata["model_name"] and not provenance:
        provenance = {"model": metadata["model_name"]}
    try:
        architecture, transcoder, skip = _read_architecture(str(config["architecture"]))
        one = Site.at(metadata["hook_name"]).reads
        out = Site.at(metadata["hook_name_out"]).writes if transcoder else one
        site = Site(metadata["reads"] or one, metadata["writes"] or out)
        sizes = architecture, config["d_in"], config["d_sae"]
        d_out = config["d_out"] if transcoder else None
        k = config["k"] if architecture in ("topk", "abs_topk") else 0
        options = {}
        if architecture == "matching_pursuit":
            k = config["d_in"] if config["max_iterations"] is None else config["max_iterations"]
            options = {name: config[name] for name in ("residual_threshold", "stop_on_duplicate_support")}
        return Spec(*sizes, site, k, provenance, d_out, metadata["d_writes"], skip, **options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def saved_name(spec: Spec, name: str) -> str:
    """SAELens's name of a weight."""
    return "b_gate" if spec.architecture == "gated" and name == "b_enc" else name


def as_saved(name: str, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """SAELens keeps W_skip as (d_out, d_in). Its own inverse."""
    return weight.T.contiguous() if name == "W_skip" else weight


def config_of(spec: Spec) -> dict[str, Any]:
    """cfg.json. What only this project knows stands in metadata: the hook points, where there are several."""
    site, autoencodes = spec.site, spec.d_out is None
    metadata = {"hook_name": _only(site.reads), "model_name": spec.provenance.get("model", "")}
    if not autoencodes:
        metadata["hook_name_out"] = _only(site.writes)
    if max(len(site.reads), len(site.writes)) > 1:
        metadata |= {"reads": site.reads, "writes": site.writes, "d_writes": spec.d_writes}
    config = {
        "architecture": _ABS_TOPK if autoencodes and spec.architecture == "abs_topk" else architecture_name(spec),
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        **({} if autoencodes else {"d_out": spec.d_out}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": autoencodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }
    if spec.architecture in ("topk", "abs_topk"):
        config |= {"k": spec.k, "rescale_acts_by_decoder_norm": False}
    if spec.architecture == "matching_pursuit":
        config |= {
            "max_iterations": spec.k,
            "residual_threshold": spec.residual_threshold,
            "stop_on_duplicate_support": spec.stop_on_duplicate_support,
        }
    return config


def _only(hook_points: tuple[str, ...]) -> str:
    return hook_points[0] if len(hook_points) == 1 else ""
