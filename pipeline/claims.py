"""Who works on a unit: claims, by which no two processes work on one at a time, on whichever machines they run."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline import failures, stopping
from pipeline.config import UserError
from pipeline.units import Unit, pending
from stores.commits import commit_key
from stores.lease import Holder, Leases
from stores.manifest import digest
from stores.place import Folder, Place

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Claims:
    """The units that this process works on. A context manager: at its end all are given back."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._leases = Leases(Folder(run))
        self._partaking: dict[str, Unit] = {}  # by leases that say that this process is at a unit that several work on
        self._mine: dict[str, Unit] = {}  # by their leases
        self._failed_before: dict[Path, failures.Failure | None] = {}  # what rounds found as they began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if isinstance(error, Exception) and not isinstance(error, stopping.Stopped):
                self._tell_failed(error)
            for key in self._partaking:
                self._leases.drop(key)
        finally:
            self._leases.close()

    def _tell_failed(self, error: Exception) -> None:
        """Of all units that this process is at, as nobody knows which one it was."""
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # of a disk that is gone the error tells
            for key, unit in (self._mine | self._partaking).items():
                if self._leases.holds(key) and not unit.is_done():
                    failures.keep(unit.folder, told)

    def claim(self, units: Iterable[Unit], replace: bool = False) -> list[Unit]:
        """Begin those of the units that are not done and that no other process works on; they are this one's now."""
        return [unit for unit in pending(units, replace) if self._claimed(unit, replace)]

    def left(self, units: Iterable[Unit], replace: bool = False) -> list[Unit]:
        """Those that are not done and have not failed since `rounds` began."""
        return [unit for unit in pending(units, replace) if not self.failed(unit)]

    def failed(self, unit: Unit) -> failures.Failure | None:
        """How a unit failed since `rounds` began, in whichever process: one that was not there then. No two clocks are
        compared."""
        found = failures.failure(unit.folder)
        return found if found != self._failed_before.get(unit.folder) else None

    def _claimed(self, unit: Unit, replace: bool) -> bool:
        key = self._key(unit)
        if not self._leases.acquire(key):
            return False
        if pending([unit], replace):
            unit.begin(replace=replace)
            self._mine[key] = unit
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
        self._partaking[own] = unit
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
        key = self._key(unit)
        self._leases.release(key)
        self._mine.pop(key, None)

    @contextmanager
    def alone(self, what: str) -> Iterator[Callable[[], bool]]:
        """Be the one process that makes something of what several have made; others wait. What is read inside is at least
        as new as what those before have read. Gives whether it still is the one."""
        key, patience = f"{what[:100]} {digest(what)[:16]}", Patience()
        while not self._leases.acquire(key):
            patience.wait(what)
        try:
            yield lambda: self._leases.holds(key)
        finally:
            self._leases.release(key)

    def _key(self, unit: Unit) -> str:
        return f"{unit.stage} {unit.name[:100]} {digest(unit.folder.relative_to(self.run).as_posix())[:16]}"

    def worker(self, unit: Unit) -> Holder | None:
        """Who has a unit, as far as can be told at once: for those who only look."""
        return self._leases.holder(self._key(unit))

    def partakers(self, unit: Unit) -> list[Holder]:
        """worker, of a unit that several work on at a time."""
        keys = self._leases.keys_beginning(f"{self._key(unit)} ")
        return [holder for holder in map(self._leases.holder, keys) if holder]

    def rounds(
        self, groups: Sequence[Sequence[Unit]], replace: bool = False, waits: bool = True
    ) -> Iterator[list[Unit]]:
        """Units to work on, of one group at a time, until all are done. Processes that start at once do not part a group.
        What others work on is waited for, and claimed when they give it back or are gone; while there is nothing else to
        do, empty lists come. Each unit comes once, and is given back when the next list is asked for, done or not.
        waits=False: the end comes when others work on all that is left. What fails in another process since the first list
        was asked for does not come."""
        over: set[Path] = set()
        self._failed_before = {unit.folder: failures.failure(unit.folder) for group in groups for unit in group}
        patience = Patience()
        keys = [f"group {digest([self._key(unit) for unit in group])[:16]}" for group in groups]
        while left := [
            (key, own)
            for key, group in zip(keys, groups, strict=True)
            if (own := [u for u in self.left(group, replace) if u.folder not in over])
        ]:
            found = False
            for key, own in left:
                if stopping.asked():
                    units = [unit for group in groups for unit in group]
                    stopping.stop(f"{sum(unit.is_done() for unit in units)} of {len(units)} are done")
                if not self._leases.acquire(key):
                    continue
                if mine := self.claim(self.left(own, replace), replace):
                    found = True
                    yield mine
                    over |= {unit.folder for unit in mine if self.holds(unit)}
                    for unit in mine:
                        self.give_back(unit)
                self._leases.release(key)
            if not found and not waits:
                return
            if not found:
                n = sum(len(own) for _, own in left)
                patience.wait(f"{left[0][1][0].name}{f' and {n - 1} more' if n > 1 else ''}")
                yield []


class Patience:
    """Waiting for what another process works on, in pauses that grow."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    def wait(self, what: str) -> None:
        """Sleep for a while. The first time it says what is waited for. Raises Stopped."""
        stopping.look(f"it was waiting for {what}")
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
