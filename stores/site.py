"""Site: what a dictionary reads and what it writes."""

from dataclasses import dataclass
from typing import Self

from stores.names import check_name


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
        """One hook point by its own name, several with + between them, what is read before what is written."""
        if self.reads == self.writes:
            return "+".join(self.reads)
        return f"{'+'.join(self.reads)}--{'+'.join(self.writes)}"
