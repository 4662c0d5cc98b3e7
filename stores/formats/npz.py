"""Arrays in an .npz file, as Gemma Scope has them."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from stores.dictionary_files import line_of
from stores.formats.tensors import Entry, TensorFile
from stores.formats.zips import open_zip

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32"}
_DAMAGE = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)


def open_npz(file: Path) -> TensorFile:
    """Raises ValueError: damaged, or a member is no array of plain numbers. No pickle is read."""
    entries = {}
    with open_zip(file) as archive:
        for member in archive.infolist():
            name = member.filename
            if not name.endswith(".npy") or name.removesuffix(".npy") in entries or not name.isprintable():
                raise ValueError(f"{file}: {name!a} is no array, or is there twice")
            try:
                with archive.open(member) as stream:
                    shape, dtype = _header(stream)
                    left = member.file_size - stream.tell()
            except _DAMAGE as error:
                raise ValueError(f"{file} is damaged: {name}, {line_of(error)}") from error
            if dtype.name not in _DTYPES or left != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{file}: {name} is of {dtype} and {shape} in {left} bytes, which cannot be read")
            entries[name.removesuffix(".npy")] = Entry(_DTYPES[dtype.name], shape)

    def get(name: str) -> Tensor:
        try:
            with open_zip(file) as archive, archive.open(f"{name}.npy") as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
        except _DAMAGE as error:
            raise ValueError(f"{file} is damaged: {name}, {line_of(error)}") from error
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))

    return TensorFile(file, entries, get)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of numpy's format")
    one = version == (1, 0)
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0)(stream)
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return shape, dtype
