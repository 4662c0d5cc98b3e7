"""A stranger's file of tensors, by the end of its name."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stores.dictionary_files import check_header, check_regular, line_of
from stores.formats.npz import open_npz
from stores.formats.tensors import Entry, TensorFile
from stores.formats.torch_files import open_torch

_MOST_TENSORS = 1000


def open_tensors(file: Path) -> TensorFile:
    """Of a .safetensors, .npz, or .pt file. Raises ValueError: it is none, is damaged, or holds more than tensors."""
    check_regular(file)
    if file.suffix == ".npz":
        found = open_npz(file)
    elif file.suffix in (".pt", ".pth", ".bin"):
        found = open_torch(file)
    else:
        found = _open_safetensors(file)
    if len(found.entries) > _MOST_TENSORS:
        raise ValueError(f"{file} holds {len(found.entries)} tensors, expected at most {_MOST_TENSORS}")
    return found


def _open_safetensors(file: Path) -> TensorFile:
    check_header(file)

    def get(name: str) -> Tensor:
        with safe_open(file, "pt") as tensors:
            return tensors.get_tensor(name)

    try:
        with safe_open(file, "pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            entries = {name: Entry(x.get_dtype(), tuple(x.get_shape())) for name, x in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {line_of(error)}") from error
    return TensorFile(file, entries, get)
