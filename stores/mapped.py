"""The weights of a large dictionary: they stay in their file, and each is checked when it is first used.

A mapping is of the file that was there when it was opened. Another file that takes its name (FeatureDictionary.save, `unmix
convert`, `mv`) changes nothing; a program that shortens this very file, as `cp` onto it does, ends whoever reads a page that
is gone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from stores.dictionary_files import PROVENANCE, Weights, check_finite
from stores.manifest import bytes_digest
from stores.shapes import Float32

LEAST_BYTES = 1 << 27  # of a file of weights that is mapped unless the caller says otherwise


def tensor_digests(weights: Weights) -> dict[str, str]:
    """sha256 (hex) of the bytes of each, in the machine's order."""
    return {name: bytes_digest(x.numpy().data) for name, x in weights.items()}


class Unchecked:
    """Weights at whose numbers nobody has looked. digests: what tensor_digests has to give, by name; None: not known."""

    def __init__(self, file: Path, digests: dict[str, str | None]) -> None:
        self.file, self._digests = file, digests

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._digests)

    def check(self, name: str, x: Float32[Tensor, "..."]) -> None:
        """Reads all of x. Raises ValueError: its numbers are not those that were saved, or not finite."""
        expected = self._digests.get(name)
        if expected is not None and tensor_digests({name: x})[name] != expected:
            raise ValueError(f"{self.file} was altered: the digest of {name} is not the one in {PROVENANCE}")
        check_finite(self.file, name, x)
        self._digests.pop(name, None)  # another thread may have checked it meanwhile


class Mapped(nn.Module):
    """A module whose weights may lie in a file."""

    def __init__(self) -> None:
        super().__init__()
        self._unchecked = Unchecked(Path(), {})

    def hold(self, weights: Weights, unchecked: Unchecked) -> Self:
        """Take these very tensors for its own."""
        self.load_state_dict(weights, assign=True)
        self._unchecked = unchecked
        return self

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """A weight is checked before it is used. Raises ValueError as check does."""
        x = super().__getattr__(name)
        if name in self._unchecked and isinstance(x, Tensor):
            self._unchecked.check(name, x)
        return x

    def check(self) -> None:
        """Read all weights that are still in their file. Raises ValueError: one was altered, or is not finite."""
        for name in self._unchecked.names:
            getattr(self, name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.check()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> Any:
        """Of load_state_dict, also that of a module around this one."""
        self.check()
        return super()._load_from_state_dict(*args, **options)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        self.check()
        return super().state_dict(*args, **options)
