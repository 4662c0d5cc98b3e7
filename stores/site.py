"""Site: what a dictionary reads and what it writes."""

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Self

from stores.manifest import digest
from stores.names import check_name

_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")
_LONGEST = 90  # of what is read and of what is written: both together are a folder's name


@dataclass(frozen=True)
class Site:
    """Hook points, by TransformerLens's names, concatenated in their order. Empty: they are not known.

    An autoencoder writes what it reads. A transcoder reads what an MLP reads and writes what the MLP writes; a crosscoder
    reads and writes several layers. Raises ValueError: a name that is none, or one that comes twice.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("reads", self.reads), ("writes", self.writes)):
            for name in names:
                check_name(name, f"a hook point that a dictionary {what}")
            if len(set(names)) < len(names):
                raise ValueError(f"a dictionary {what} {', '.join(names)}: one of them comes twice")

    @classmethod
    def at(cls, hook_point: str) -> Self:
        """An autoencoder's. hook_point: empty where it is not known."""
        names = (hook_point,) if hook_point else ()
        return cls(names, names)

    @property
    def name(self) -> str:
        """A name for people and for folders: "blocks.1.hook_resid_post"; "blocks.0-3.hook_resid_post" of consecutive layers;
        others joined by +, what is read before what is written."""
        if self.reads == self.writes:
            return _joined(self.reads)
        return f"{_joined(self.reads)}--{_joined(self.writes)}"


def _joined(hook_points: tuple[str, ...]) -> str:
    """Runs of consecutive layers with the same site become one; a name that is still too long ends in its digest."""
    parts: list[str] = []
    for kind, run in groupby(enumerate(hook_points), key=lambda item: _kind(*item)):
        names = [name for _, name in run]
        layers = [match[1] for name in names if (match := _LAYER.fullmatch(name))]
        parts += (
            [f"blocks.{layers[0]}-{layers[-1]}.{kind[1]}"] if len(names) > 1 and len(layers) == len(names) else names
        )
    name = "+".join(parts)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 17]}+{digest(list(hook_points))[:16]}"


def _kind(place: int, hook_point: str) -> tuple[int | None, str]:
    """What consecutive layers of one site have in common."""
    match = _LAYER.fullmatch(hook_point)
    return (int(match[1]) - place, match[2]) if match else (None, hook_point)
