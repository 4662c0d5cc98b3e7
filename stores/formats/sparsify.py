"""Sparsify's folder: cfg.json and sae.safetensors. TopK, of what is read or of what another module writes.

    pre = encoder(x - b_dec), a transcoder's encoder(x);  y_hat = z W_dec + b_dec  [+ x W_skip^T]

encoder.weight (d_sae, d_in), encoder.bias (d_sae), W_dec (d_sae, d_in), b_dec (d_in), W_skip (d_in, d_in). What it writes has
as many coordinates as what it reads. Source: eai-sparsify 1.3.3, sparse_coder.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save as save_tensors

from stores.dictionary_files import CONFIG, Weights, json_object, shown
from stores.formats.affine import Affine
from stores.formats.notes import beside, note_of, read_note, whole_number
from stores.formats.opening import open_tensors
from stores.formats.stated import Stated
from stores.spec import Spec

WEIGHTS = "sae.safetensors"
_ROWS = {"W_dec": False, "W_skip": True}


def files(path: Path) -> list[Path] | None:
    """Those of the dictionary at a path, None: another format's."""
    return beside(path, WEIGHTS, CONFIG)


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, or an option that cannot be expressed."""
    file, weights = files(path) or []
    config = json_object(file)
    if config.get("activation", "topk") != "topk" or config.get("signed", False) is not False:
        found = f"activation = {shown(config.get('activation', 'topk'))}, signed = {shown(config.get('signed', False))}"
        raise ValueError(f"{file}: {found}, only 'topk' without signs can be read")
    transcoder, skip = (config.get(name, False) for name in ("transcode", "skip_connection"))
    if not isinstance(transcoder, bool) or not isinstance(skip, bool):
        raise ValueError(
            f"{file}: transcode = {shown(transcoder)}, skip_connection = {shown(skip)}, expected true or false"
        )
    if skip and not transcoder:
        raise ValueError(f"{file}: skip_connection = true of an autoencoder, only transcoders with one can be read")
    tensors = open_tensors(weights)
    if skip != ("W_skip" in tensors.entries):
        raise ValueError(f"{weights}: W_skip does not go with skip_connection = {shown(skip)} of {CONFIG}")
    site, d_writes, provenance = read_note(file, config)
    k, d_in = whole_number(file, config, "k", 32), whole_number(file, config, "d_in")
    found = Affine(tensors, stated, "topk", k, not transcoder, transcoder, site, d_writes, provenance, _ROWS)
    if d_in != found.spec().d_in:
        raise ValueError(f"{file}: d_in = {d_in}, {weights.name} has {found.spec().d_in}")
    return found


def check(spec: Spec) -> None:
    """Raises ValueError: what sparsify cannot express."""
    if spec.architecture not in ("topk", "standard"):
        raise ValueError(f"sparsify has no {spec.architecture}: it selects the k largest, topk and standard alone")
    if spec.d_out not in (None, spec.d_in):
        sizes = f"d_in = {spec.d_in} and d_out = {spec.d_out}"
        raise ValueError(f"sparsify has no transcoder of {sizes}: both are one number there")


def write(spec: Spec, w: Weights) -> Iterator[tuple[str, bytes]]:
    """The files of what check lets pass. ReLU is TopK of all."""
    k = spec.k or spec.d_sae
    config = {
        "activation": "topk",
        "expansion_factor": max(1, spec.d_sae // spec.d_in),
        "normalize_decoder": True,
        "num_latents": spec.d_sae,
        "k": k,
        "multi_topk": False,
        "skip_connection": spec.skip,
        "transcode": spec.d_out is not None,
        "d_in": spec.d_in,
        **note_of(spec),
    }
    weights = {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
        **({"W_skip": w["W_skip"].T.contiguous()} if spec.skip else {}),
    }
    yield WEIGHTS, save_tensors(weights)
    yield CONFIG, json.dumps(config, indent=2).encode()
