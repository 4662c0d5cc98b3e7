"""Tensors in a file of torch.save, a pickle: only one that can hold nothing but tensors is read, as weights_only."""

import pickle
import pickletools
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from stores.dictionary_files import line_of
from stores.formats.tensors import Entry, TensorFile
from stores.formats.zips import open_zip

_MOST_PICKLE_BYTES = 1 << 20
_NAMES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch [A-Za-z0-9]+Storage")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
}


def open_torch(file: Path) -> TensorFile:
    """A dict of tensors by names. Their numbers are mapped, not read.

    Raises ValueError: another thing is in the file, or a tensor claims more numbers than the file has.
    """
    _check_pickle(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {line_of(error)}") from None
    if not isinstance(found, dict) or not all(type(n) is str and isinstance(x, Tensor) for n, x in found.items()):
        raise ValueError(f"{file} holds {type(found).__name__}, expected a dict of tensors by names: {_REWRITE}")
    entries = {}
    for name, x in found.items():
        if x.dtype not in _DTYPES or x.numel() * x.itemsize > x.untyped_storage().nbytes():
            raise ValueError(f"{file}: {name!a} is of {x.dtype} and {tuple(x.shape)}, which cannot be read")
        entries[name] = Entry(_DTYPES[x.dtype], tuple(x.shape))
    return TensorFile(file, entries, lambda name: found[name].detach())


_REWRITE = (
    'where you trust who wrote it, `python -c \'import sys, torch; f = sys.argv[1]; x = torch.load(f, "cpu", '
    'weights_only=False); torch.save(getattr(x, "state_dict", lambda: x)(), f)\' FILE` writes its tensors alone'
)


def _check_pickle(file: Path) -> None:
    """Raises ValueError: the pickle in the file names anything besides tensors. It is read, and nothing of it is run."""
    with file.open("rb") as raw:
        if raw.read(4) != b"PK\3\4":
            raise ValueError(f"{file} is a pickle, or a file of torch.save before 1.6, which are not read: {_REWRITE}")
    with open_zip(file) as archive:
        members = archive.infolist()
        pickles = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE_BYTES:
            raise ValueError(
                f"{file} is no file of torch.save, or the list of its tensors is above {_MOST_PICKLE_BYTES} bytes"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(f"{file}: it is compressed, as torch.save leaves nothing")
        try:
            code = archive.read(pickles[0])
            steps = [(step.name, argument) for step, argument, _ in pickletools.genops(code)]
        except Exception as error:  # genops raises what its reading of a few bytes may raise
            raise ValueError(f"{file} is damaged: {line_of(error)}") from None
    for step, argument in steps:
        named = step in ("INST", "STACK_GLOBAL", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
        if named or (step == "GLOBAL" and not _NAMES.fullmatch(str(argument))):
            what = ".".join(str(argument).split()) if argument else step
            raise ValueError(f"{file} holds {ascii(what)[1:-1]} besides tensors, and is not read: {_REWRITE}")
