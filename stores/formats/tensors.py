"""Named tensors in a stranger's file: names, types and shapes are known before a number is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from stores.dictionary_files import check_finite
from stores.shapes import Float32

FLOATS = ("F64", "F32", "F16", "BF16")


class Entry(NamedTuple):
    """dtype: by safetensors' names."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """entries: of each tensor, by name. get: reads one, of a dtype of FLOATS or of whole numbers."""

    path: Path
    entries: dict[str, Entry]
    get: Callable[[str], Tensor]

    def read(self, name: str) -> Float32[Tensor, "..."]:
        """As float32. Raises ValueError: its numbers are of another type, or not finite."""
        dtype = self.entries[name].dtype
        if dtype not in FLOATS:
            raise ValueError(f"{self.path}: {name} is of {dtype}, expected one of {', '.join(FLOATS)}")
        x = self.get(name).float()
        check_finite(self.path, name, x)
        return x

    def whole_number(self, name: str) -> int:
        """Of a tensor of one whole number. Raises ValueError: it is another."""
        dtype, shape = self.entries[name]
        if not dtype.startswith(("I", "U")) or shape not in ((), (1,)):
            raise ValueError(f"{self.path}: {name} is of {dtype} and {shape}, expected one whole number")
        return int(self.get(name).item())
