"""Who works on a unit: claims, by which no two processes work on one at a time, on whichever machines they run."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from pipeline.units import Unit, pending
from stores.commits import commit_key
from stores.lease import Leases
from stores.manifest import digest
from stores.place import Folder, Place

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Claims:
    """The units that this process works on. A context manager: at its end all are given back."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._leases = Leases(Folder(run))
        self._partaking: set[str] = set()  # leases that say that this process is at a unit that several work on

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            for key in self._partaking:
                self._leases.drop(key)
        finally:
            self._leases.close()

    def claim(self, units: Iterable[Unit], replace: bool = False) -> list[Unit]:
        """Begin those of the units that are not done and that no other process works on; they are this one's now."""
        return [unit for unit in pending(units, replace) if self._claimed(unit, replace)]

    def _claimed(self, unit: Unit, replace: bool) -> bool:
        key = self._key(unit)
        if not self._leases.acquire(key):
            return False
        if pending([unit], replace):
            unit.begin(replace=replace)
            return True
        self._leases.release(key)  # the process that had it has just finished it
        return False

    def begin_together(self, unit: Unit, done: int = 0, *, replace: bool = False) -> None:
        """Begin a unit that several processes work on at a time; its parts have leases of their own. Before it replaces
        another's work, it waits until no process is at that."""
        key, patience = self._key(unit), Patience()
        while not self._leases.acquire(key):
            patience.wait(unit.name)
        replaces, gone = not unit.resumes(), []
        for other in self._leases.keys_beginning(f"{key} "):
            while not self._leases.acquire(other) and replaces:
                patience.wait(f"the end of what is to be replaced in {unit.folder}")
            if self._leases.holds(other):
                gone.append(other)  # kept until the unit is this one's: its process may wake up
        unit.begin(done, replace=replace)
        for other in gone:
            self._leases.drop(other)
        own = f"{key} {self._leases.process}"
        self._leases.acquire(own)
        self._partaking.add(own)
        self.give_back(unit)

    def partakes(self, unit: Unit) -> bool:
        """Whether others still know that this process works on a unit that it began together with them: one that stood
        still for long has to begin it again."""
        return self._leases.holds(f"{self._key(unit)} {self._leases.process}")

    def holds(self, unit: Unit) -> bool:
        """Whether the unit is still this process's: one that stood still for long may have lost it to another."""
        return self._leases.holds(self._key(unit))

    def still_holds(self, unit: Unit) -> bool:
        """holds, which says so where it is lost."""
        if found := self.holds(unit):
            return found
        tqdm.write(f"{unit.folder.relative_to(self.run)} is left to the process that took it over")
        return False

    def give_back(self, unit: Unit) -> None:
        """Let others have the unit, done or not."""
        self._leases.release(self._key(unit))

    def _key(self, unit: Unit) -> str:
        return f"{unit.stage} {unit.name[:100]} {digest(unit.folder.relative_to(self.run).as_posix())[:16]}"

    def rounds(self, groups: Sequence[Sequence[Unit]], replace: bool = False) -> Iterator[list[Unit]]:
        """Units to work on, of one group at a time, until all are done. What others work on is waited for, and claimed
        when they give it back or are gone; while there is nothing else to do, empty lists come. Each unit comes once,
        and is given back when the next list is asked for, done or not."""
        over: set[Path] = set()
        patience = Patience()
        while left := [
            own for group in groups if (own := [u for u in pending(group, replace) if u.folder not in over])
        ]:
            found = False
            for group in left:
                if mine := self.claim(group, replace):
                    found = True
                    yield mine
                    over |= {unit.folder for unit in mine if self.holds(unit)}
                    for unit in mine:
                        self.give_back(unit)
            if not found:
                n = sum(map(len, left))
                patience.wait(f"{left[0][0].name}{f' and {n - 1} more' if n > 1 else ''}")
                yield []


class Patience:
    """Waiting for what another process works on, in pauses that grow."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    def wait(self, what: str) -> None:
        """Sleep for a while. The first time it says what is waited for."""
        if self._pause_s == _FIRST_PAUSE_S:
            print(f"waiting for {what}: another process is at it")
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def claimed_shards(place: Place, shards: Iterable[int], leases: Leases) -> Iterator[int]:
    """Those shards of a store that are not committed and that no other process works on, claimed as they are asked for.
    They are this process's until it commits them or closes its leases."""
    for shard in shards:
        committed = commit_key(shard)
        # Once more with the lease: its process may have just finished.
        if not place.exists(committed) and leases.acquire(f"shard-{shard:05d}") and not place.exists(committed):
            yield shard
