"""Work on units that goes on when one of them fails: what fails is told at the end, and holds no other."""

import errno
import traceback
from collections.abc import Callable, Sequence

from tqdm import tqdm

from pipeline import failures, stopping
from pipeline.claims import Claims
from pipeline.config import UserError
from pipeline.units import Unit


class Attempts:
    """What failed of the units that this process claimed. waits: whether it waits until those of others are done, too."""

    def __init__(self, claims: Claims, waits: bool) -> None:
        self.claims, self.waits = claims, waits
        self.failed: list[str] = []  # a line each
        self._first: Exception | None = None

    def at(self, units: Sequence[Unit], work: Callable[[Sequence[Unit]], None]) -> None:
        """Have units worked on together. Where that fails, each that is left is tried alone, as nobody knows which one it
        was. Raises what would fail for every unit."""
        try:
            return work(units)
        except Exception as error:
            if _is_of_all(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what the work had in memory
            found = error
        left = [unit for unit in units if self.claims.holds(unit) and not unit.is_done()]
        self.failed += [known.error for unit in left if (known := failures.failure(unit.folder))]  # diverged before
        left = [unit for unit in left if not failures.failure(unit.folder)]
        if len(units) > 1 and left:
            for unit in left:
                self.at([unit], work)
            return
        told = f"{type(found).__name__}: {found}"
        for unit in left:
            failures.keep(unit.folder, told)
        self.failed.append(
            ": ".join([f"{unit.name} at {unit.folder.parent.name}" for unit in left] + told.splitlines()[:1])
        )
        self._first = self._first or found
        tqdm.write(self.failed[-1])

    def closes(self, units: Sequence[Unit]) -> bool:
        """Whether this process makes what follows from units: there is something to make it of, and it has waited for the
        others, or there is none left that could be done."""
        any_done = not self.failed or any(unit.is_done() for unit in units)
        return any_done and (self.waits or not self.claims.left(units))

    def end(self, units: Sequence[Unit], advice: Sequence[str] = ()) -> None:
        """Raises RuntimeError: something failed, here, or, where others were waited for, in another process. advice: lines
        of what failed and was told where it did."""
        found = [(unit, self.claims.failed(unit)) for unit in units if self.waits]
        others = [f"{unit.place}: {failure.error}" for unit, failure in found if failure and not failure.is_own]
        if lines := [*advice, *self.failed, *others]:
            raise RuntimeError(f"{'; '.join(lines)}; the others are done") from self._first


def _is_of_all(error: Exception) -> bool:
    """Whether it is no matter of one unit: this process is to stop, a setting is wrong, the disk is full, or nobody reads
    what it prints."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, stopping.Stopped | UserError | BrokenPipeError)
