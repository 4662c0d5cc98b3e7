"""How several processes divide the units of a stage: what is worked on together, and whose turn comes first."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pipeline.config import UserError
from pipeline.units import Unit


@dataclass(frozen=True)
class Worker:
    """Process `index` of `n` that share a stage. Of a store it makes the shards whose number is index modulo n; of
    dictionaries it begins with its own part, goes on with what nobody works on, and ends when there is none."""

    index: int = 0
    n: int = 1

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """ "i/n". Raises UserError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise UserError(f"--worker {text}: expected I/N with 0 ≤ I < N, such as 0/4")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Sharing:
    """together: how many units of one key share a read at most; None: all of them."""

    worker: Worker = Worker()
    together: int | None = None

    def groups(self, work: Sequence[tuple[Hashable, Unit]]) -> list[list[Unit]]:
        """Units that are worked on together, those of one key, which read the same rows; this worker's own first. The same
        groups for every worker."""
        by_key: dict[Hashable, list[Unit]] = {}
        for key, unit in work:
            by_key.setdefault(key, []).append(unit)
        size = self.together
        found = [
            own[i : i + (size or len(own))] for own in by_key.values() for i in range(0, len(own), size or len(own))
        ]
        first = len(found) * self.worker.index // self.worker.n
        return found[first:] + found[:first]

    @property
    def waits(self) -> bool:
        """Whether what others work on is waited for. Of several, one that has nothing left gives its machine back."""
        return self.worker.n == 1
