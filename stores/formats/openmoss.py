"""OpenMOSS's folder (Language-Model-SAEs: lm-saes, llamascopium; Llama Scope): autoencoders and transcoders.

Version 2 has config.json, and sae_weights.safetensors with W_E (d_model, d_sae), b_E, W_D (d_sae, d_model), b_D, and
activation_function.log_jumprelu_threshold. Version 1 has hyperparams.json, and encoder.weight, encoder.bias, decoder.weight
and decoder.bias in sae_weights.safetensors or in checkpoints.

    pre = a x W_E + b_E                version 1 with apply_decoder_bias_to_pre_encoder: (a x - b_D) W_E + b_E
    z   = f(pre |W_D|) / |W_D|         with sparsity_include_decoder_norm; else f(pre)
    y_hat = (z W_D + b_D) / c          a, c = sqrt(d_model) / mean norm of what is read, of what is written

where norm_activation is "dataset-wise", else a = c = 1. All of that is folded: codes here are z / a, of rows W_D a / c; with
sparsity_include_decoder_norm rows are of unit length, and codes as much larger. Thresholds are scaled with the codes, as the
training had them; llamascopium's fold_activation_scale leaves them. Version 1's one jump_relu_threshold is of codes that are
folded already, as its loader has it. Source: llamascopium 2.0.0b34, models/sae.py; lm-saes 1.1.0, sae.py.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stores.dictionary_files import Weights, json_object, named, shown, text_of
from stores.formats.affine import Affine
from stores.formats.notes import whole_number
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.formats.tensors import Entry, TensorFile
from stores.site import Site
from stores.spec import Spec

CONFIG, OLD_CONFIG, WEIGHTS = "config.json", "hyperparams.json", "sae_weights.safetensors"
CHECKPOINTS = "checkpoints"  # version 1's folder of weights
_OLD = (WEIGHTS, f"{CHECKPOINTS}/pruned.safetensors", f"{CHECKPOINTS}/final.safetensors")  # the first that is there
_NORM = "dataset_average_activation_norm"
_ACTIVATIONS = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu"}


def files(path: Path) -> list[Path] | None:
    """Those of the dictionary at a path, None: another format's."""
    inner = path if path.is_dir() else path.parent
    for folder in (inner, inner.parent) if inner.name == CHECKPOINTS else (inner,):
        for config, names in ((CONFIG, (WEIGHTS,)), (OLD_CONFIG, _OLD)):
            possible = [folder / name for name in names]
            there = [file for file in possible if file.exists() and path in (folder, file.parent, file)]
            if not there or not (folder / config).exists():
                continue
            if config == OLD_CONFIG or _has_type(folder / config):
                return [folder / config, there[0]]
    return None


def _has_type(config: Path) -> bool:
    """Others have a config.json, too."""
    try:
        return "sae_type" in json_object(config)
    except (ValueError, OSError):
        return False


@dataclass(frozen=True)
class _Scaled(Affine):
    """An Affine of a x that gives c y. unit: whether decoder rows get unit length. threshold: of all codes as they are here;
    None: the file has one of each, or there is none."""

    a: float = 1.0
    c: float = 1.0
    unit: bool = False
    threshold: float | None = None

    def _architecture(self, names: Any) -> str:
        return "jumprelu" if self.threshold is not None else super()._architecture(names)

    def weights(self, spec: Spec) -> Weights:
        one = self.threshold is not None
        own = super().weights(replace(spec, architecture="standard") if one else spec)
        own["b_enc"], own["b_dec"] = own["b_enc"] / self.a, own["b_dec"] / self.c
        own["W_dec"] = own["W_dec"] * (self.a / self.c)
        if self.threshold is not None:
            own["threshold"] = torch.full((spec.d_sae,), self.threshold)
        elif "threshold" in own:
            own["threshold"] = own["threshold"] / (self.c if self.unit else self.a)
        if self.unit:
            norm = own["W_dec"].norm(dim=-1)
            own["W_enc"], own["b_enc"] = own["W_enc"] * norm, own["b_enc"] * norm
            own["W_dec"] = own["W_dec"] / torch.where(norm > 0, norm, 1)[:, None]  # a row of zeros stays one
        return own


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, or an option that cannot be expressed."""
    file, weights = files(path) or []
    config, old = json_object(file), file.name == OLD_CONFIG
    if config.get("sae_type", "sae" if old else None) != "sae":
        raise ValueError(f"{file}: sae_type is {shown(config.get('sae_type'))}, only 'sae' can be read")
    activation = str(config.get("act_fn", "relu")).lower()
    if activation not in _ACTIVATIONS:
        raise ValueError(f"{file}: act_fn is {shown(config['act_fn'])}, only {', '.join(_ACTIVATIONS)} can be read")
    unit, bias, subtracts, glu = (
        _truth(file, config, name, default)
        for name, default in (
            ("sparsity_include_decoder_norm", True),
            ("use_decoder_bias", True),
            ("apply_decoder_bias_to_pre_encoder", old),
            ("use_glu_encoder", False),
        )
    )
    if glu:
        raise ValueError(f"{file}: use_glu_encoder = true cannot be read: an encoder here is affine")
    reads = text_of(file, "hook_point_in", config.get("hook_point_in"))
    writes = text_of(file, "hook_point_out", config.get("hook_point_out") or reads)
    subtracts = subtracts and bias and old
    if subtracts and reads != writes:
        raise ValueError(f"{file}: apply_decoder_bias_to_pre_encoder of a transcoder cannot be read")
    with named(file):
        site = Site((reads,), (writes,))
    tensors, d = open_tensors(weights), whole_number(file, config, "d_model")
    if not bias:
        tensors = _with_zeros(tensors, "decoder.bias" if old else "b_D", d)
    a, c = (math.sqrt(d) / norm for norm in _norms(file, config, tensors, (reads, writes), math.sqrt(d), old))
    threshold = _threshold(file, config) if old and activation != "relu" else None
    k = whole_number(file, config, "top_k", 50) if activation == "topk" and threshold is None else None
    ignored = tuple(name for name in tensors.entries if name.startswith(f"{_NORM}."))
    found = _Scaled(
        tensors, stated, _ACTIVATIONS[activation], k, subtracts, reads != writes, site, (), {},
        {"W_E": False, "W_D": False}, ignored, a, c, unit, threshold,
    )  # fmt: skip
    if d != found.spec().d_in:
        raise ValueError(f"{file}: d_model = {d}, {weights.name} has {found.spec().d_in}")
    return found


def _truth(file: Path, config: dict[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{file}: {name} = {shown(value)}, expected true or false")
    return value


def _threshold(file: Path, config: dict[str, Any]) -> float | None:
    """Version 1's; its loader takes TopK with one for JumpReLU. None: TopK without one."""
    value = config.get("jump_relu_threshold", 0.0)
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{file}: jump_relu_threshold = {shown(value)}, expected a number that is not negative")
    return float(value) if value or str(config["act_fn"]).lower() == "jumprelu" else None


def _norms(
    file: Path, config: dict[str, Any], tensors: TensorFile, hooks: tuple[str, str], one: float, old: bool
) -> list[float]:
    """The mean norms of what is read and of what is written. one: what leaves them as they are."""
    kind = config.get("norm_activation", "token-wise" if old else "dataset-wise")
    if kind in ("inference", "none"):
        return [one, one]
    if kind != "dataset-wise":
        raise ValueError(
            f"{file}: norm_activation is {shown(kind)}, which depends on the batch or is not linear; only "
            f"'dataset-wise' and 'inference' can be read"
        )
    found: list[Any]
    if old:
        given = config.get(_NORM)
        found = [given.get(side) if isinstance(given, dict) else None for side in ("in", "out")]
    else:
        names = [f"{_NORM}.{hook}" for hook in hooks]
        there = [tensors.entries[name].shape in ((), (1,)) if name in tensors.entries else False for name in names]
        found = [float(tensors.read(name)) if known else None for name, known in zip(names, there, strict=True)]
    for value in found:
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{file}: {_NORM} is {shown(value)}, expected a number above 0 of each hook point")
    return [float(value) for value in found]


def _with_zeros(tensors: TensorFile, name: str, d: int) -> TensorFile:
    """use_decoder_bias = false"""
    get = tensors.get
    entries = {**tensors.entries, name: Entry("F32", (d,))}
    return replace(tensors, entries=entries, get=lambda asked: torch.zeros(d) if asked == name else get(asked))
