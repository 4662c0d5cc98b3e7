"""dictionary_learning's folder: ae.pt, which torch.save wrote, and config.json, whose trainer names the class.

    AutoEncoder                 encoder(x - bias); decoder + bias
    AutoEncoderNew              encoder(x); decoder, which has a bias
    AutoEncoderTopK             encoder(x - b_dec), the k largest; decoder + b_dec
    BatchTopKSAE                the same, ReLU above one threshold
    MatryoshkaBatchTopKSAE      the same, by W_enc (d_in, d_sae), b_enc, W_dec (d_sae, d_in)
    GatedAutoEncoder            encoder(x - decoder_bias), gate_bias, mag_bias, r_mag; decoder + decoder_bias
    JumpReluAutoEncoder         x W_enc + b_enc above threshold; W_dec, b_dec. Nothing is subtracted from x

encoder.weight (d_sae, d_in), decoder.weight (d_in, d_sae). Weights are read as they are; the library's own loader brings an
AutoEncoder's decoder to unit length. Source: dictionary-learning 0.1.0, dictionary.py and trainers/.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stores.dictionary_files import Weights, json_object, shown, text_of
from stores.formats.affine import Affine
from stores.formats.notes import beside, note_of, read_note, whole_number
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.spec import Spec

WEIGHTS, CONFIG = "ae.pt", "config.json"
_CLASSES = {  # → (architecture, whether b_dec is subtracted from x, tensors that decide about nothing)
    "AutoEncoder": ("standard", True, ()),
    "AutoEncoderNew": ("standard", False, ()),
    "AutoEncoderTopK": ("topk", True, ("k", "threshold")),
    "BatchTopKSAE": ("jumprelu", True, ("k",)),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True, ("k", "group_sizes")),
    "GatedAutoEncoder": ("gated", True, ()),
    "JumpReluAutoEncoder": ("jumprelu", False, ()),
}
_ROWS = {"W_enc": False, "W_dec": False}


def files(path: Path) -> list[Path] | None:
    """Those of the dictionary at a path, None: another format's."""
    return beside(path, WEIGHTS, CONFIG)


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, or a class that cannot be expressed."""
    file, weights = files(path) or []
    config = json_object(file)
    trainer: Any = config.get("trainer")
    if not isinstance(trainer, dict):
        raise ValueError(f"{file}: trainer is {shown(trainer)}, expected an object")
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"{file}: trainer.dict_class is {shown(name)}, not one of {', '.join(_CLASSES)}")
    architecture, subtracts, ignored = _CLASSES[name]
    tensors = open_tensors(weights)
    k = None
    if architecture == "topk":
        k = whole_number(file, trainer, "k")
        if "k" in tensors.entries and tensors.whole_number("k") != k:
            raise ValueError(f"{weights}: k = {tensors.whole_number('k')}, {CONFIG} has {k}")
    site, d_writes, provenance = read_note(file, config)
    model = text_of(file, "trainer.lm_name", trainer.get("lm_name") or "")
    provenance = provenance or ({"model": model} if model else {})
    return Affine(tensors, stated, architecture, k, subtracts, None, site, d_writes, provenance, _ROWS, ignored)


def check(spec: Spec) -> None:
    """Raises ValueError: what dictionary_learning cannot express."""
    if spec.d_out is not None:
        raise ValueError("dictionary_learning has no transcoder: its dictionaries write what they read")
    if spec.architecture not in ("standard", "topk", "gated", "jumprelu"):
        raise ValueError(f"dictionary_learning has no {spec.architecture}: it has standard, topk, gated and jumprelu")


def write(spec: Spec, w: Weights) -> Iterator[tuple[str, bytes]]:
    """The files of what check lets pass. ReLU becomes AutoEncoderNew, since the loader of AutoEncoder rescales codes."""
    linear = lambda: {"encoder.weight": w["W_enc"].T.contiguous(), "decoder.weight": w["W_dec"].T.contiguous()}  # noqa: E731
    plain = lambda: (w["b_enc"].double() - w["b_dec"].double() @ w["W_enc"].double()).float()  # noqa: E731
    if spec.architecture == "standard":
        name, weights = "AutoEncoderNew", {**linear(), "encoder.bias": plain(), "decoder.bias": w["b_dec"]}
    elif spec.architecture == "topk":
        counted = {"k": torch.tensor(spec.k, dtype=torch.int), "threshold": torch.tensor(-1.0)}
        name, weights = "AutoEncoderTopK", {**linear(), "encoder.bias": w["b_enc"], "b_dec": w["b_dec"], **counted}
    elif spec.architecture == "gated":
        biases = {"decoder_bias": w["b_dec"], "gate_bias": w["b_enc"], "mag_bias": w["b_mag"], "r_mag": w["r_mag"]}
        name, weights = "GatedAutoEncoder", {**linear(), **biases}
    else:
        maps = {"W_enc": w["W_enc"], "b_enc": plain(), "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
        name, weights = "JumpReluAutoEncoder", {**maps, "threshold": w["threshold"]}
    trainer: dict[str, Any] = {
        "dict_class": name,
        "activation_dim": spec.d_in,
        "dict_size": spec.d_sae,
        "lm_name": spec.provenance.get("model", ""),
        **({"k": spec.k} if spec.k else {}),
    }
    file = io.BytesIO()
    torch.save({name: x.clone() for name, x in weights.items()}, file)
    yield WEIGHTS, file.getvalue()
    yield CONFIG, json.dumps({"trainer": trainer, **note_of(spec)}, indent=2).encode()
