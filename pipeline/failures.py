"""What is known of work that failed: failed.json in a unit's folder, until the unit is begun again.

A process that is killed leaves none: then nobody works on its units, and they are not done.
"""

import contextlib
import os
import platform
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.unit_files import json_object
from stores.lease import slurm_job
from stores.manifest import commit_json

_FILE = "failed.json"


@dataclass(frozen=True)
class Failure:
    """error: its last line. time: seconds since 1970. job: of Slurm. log: the file that the process's stderr went to."""

    error: str
    time: float
    host: str
    pid: int
    job: str | None
    log: str | None

    @property
    def is_own(self) -> bool:
        """Whether this process has left it."""
        return (self.host, self.pid) == (platform.node(), os.getpid())


def keep(folder: Path, error: str) -> None:
    """Say in a unit's folder that its work failed. Where that fails, too, nothing is said."""
    line = next(iter(error.strip().splitlines()[-1:]), "")
    found = Failure(line, time.time(), platform.node(), os.getpid(), slurm_job(), _log())
    with contextlib.suppress(OSError):
        if (folder / "plan.json").exists():  # else it was replaced, or another's
            commit_json(folder / _FILE, asdict(found))


def forget(folder: Path) -> None:
    (folder / _FILE).unlink(missing_ok=True)


def failure(folder: Path) -> Failure | None:
    """Of the work that was begun last."""
    found = json_object(folder / _FILE)
    try:
        return Failure(**found) if found else None
    except TypeError:
        return None


def _log() -> str | None:
    """Where stderr is a file, its path."""
    try:
        return os.readlink("/proc/self/fd/2") if stat.S_ISREG(os.fstat(2).st_mode) else None
    except OSError:  # not Linux, or closed
        return None
