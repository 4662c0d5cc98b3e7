"""A file of tensors by usual names alone: .safetensors, .npz or .pt. Gemma Scope's is params.npz.

Gemma Scope (Lieberum et al. 2024): W_enc (d_in, d_sae), b_enc, threshold, W_dec (d_sae, d_out), b_dec; JumpReLU, of which
nothing is subtracted from x. Of another file a user states what it does not say.
"""

from pathlib import Path

from stores.formats.affine import Affine
from stores.formats.circuit_tracer import is_part
from stores.formats.opening import open_tensors
from stores.formats.openmoss import CHECKPOINTS, OLD_CONFIG
from stores.formats.stated import Stated

SUFFIXES = (".safetensors", ".npz", ".pt")
_GEMMA_SCOPE = "params.npz"


def files(path: Path) -> list[Path] | None:
    """The file at a path, or the only one in a folder; None: there is none, or there are several."""
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix in SUFFIXES]
        return found if len(found) == 1 else None
    return [path] if path.suffix in SUFFIXES and path.exists() and not is_part(path) else None


def read(path: Path, stated: Stated) -> Affine:
    """Raises ValueError: damaged, a weight is missing, it cannot be told which axis is which, or it lies in a folder of
    checkpoints, which says nothing of the activation and of scales."""
    (file,) = files(path) or []
    if file.absolute().parent.name == CHECKPOINTS:
        raise ValueError(
            f"{file}: what weights in a folder named {CHECKPOINTS} compute is said by the {OLD_CONFIG} above it, and there "
            "is none: put it there, or weights that need none into a folder of another name"
        )
    tensors = open_tensors(file)
    if file.name == _GEMMA_SCOPE and "threshold" in tensors.entries:
        return Affine(tensors, stated, "jumprelu", None, False, rows={"W_enc": False, "W_dec": False})
    # The decoder of torch.nn.Linear has its own bias, which is no part of what the encoder reads
    subtracts = False if "decoder.bias" in tensors.entries else None
    return Affine(tensors, stated, "", None, subtracts)
