"""Leases: one process at a time works on a thing, wherever the processes run, as long as they see the same files.

    leases/alive/<process>.json         how often the process has said that it lives; removed when it ends
    leases/held/<key>/00000003.json     which process has the lease; the file with the highest number counts

Taking a lease creates the file with the next number, which one process alone can do. A lease is free when it was given back,
or its process is gone: it said so, it ran on this machine and is not running any more, or it has not said that it lives
for LEASE_S seconds of the watching process's own clock. No two clocks are ever compared.

A process that was stopped for long can lose a lease without noticing at once. So a lease saves work, and correctness does
not hang on it: what is written under it is a function of its settings, and appears whole or not at all.
"""

import contextlib
import json
import os
import platform
import re
import threading
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stores.place import Place

BEAT_S = 5.0
LEASE_S = 30.0
_ROOT = "leases"


@dataclass(frozen=True)
class Holder:
    """A process that has a lease. job: of Slurm."""

    host: str
    pid: int
    job: str | None


class Leases:
    """This process's leases in one place. A context manager: at its end all are given back."""

    def __init__(self, place: Place, *, beat_s: float = BEAT_S, lease_s: float = LEASE_S) -> None:
        self.place, self.beat_s, self.lease_s = place, beat_s, lease_s
        self.process = uuid.uuid4().hex
        self._held: dict[str, int] = {}  # key → number of our file
        self._watched: dict[str, tuple[bytes | None, float]] = {}  # process → (its last word, when it was new to us)
        self._looked: dict[str, bool] = {}  # process → whether it lived, for those who only look
        self._beats = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def acquire(self, key: str) -> bool:
        """Take the lease on a key, unless a living process has it. key: one path component. Returns at once."""
        if key in self._held and self.holds(key):
            return True
        newest = self._newest(key)
        holder = self._read(key, newest) if newest else {}
        if holder and holder.get("process") == self.process:  # it was put there, and the answer was lost
            self._held[key] = newest
            return True
        if newest and not self._free(holder):
            return False
        self._live()
        word = json.dumps({"process": self.process, **_here()}).encode()
        try:
            if not self.place.put(self._file(key, newest + 1), word, exclusive=True):
                return False
        except FileNotFoundError:  # its folder was swept just now
            return False
        numbers = self._numbers(key)
        if (
            max(numbers, default=0) > newest + 1
        ):  # others took it and gave it back since we looked, and swept that number
            self.place.remove(self._file(key, newest + 1))
            return False
        self._held[key] = newest + 1
        for number in numbers:
            if number <= newest:
                self.place.remove(self._file(key, number))
        return True

    def holds(self, key: str) -> bool:
        """Whether the lease is still ours: another process may have taken it over while this one was stopped."""
        return key in self._held and self._newest(key) == self._held[key]

    def holder(self, key: str) -> Holder | None:
        """Which living process has a lease, as far as can be told at once: for those who only look. A process of another
        machine counts as living if its last word is not older than LEASE_S by the clock that dates the files. It is looked
        for once."""
        newest = self._newest(key)
        found = (self._read(key, newest) if newest else None) or {}
        process, host, pid = (found.get(name) for name in ("process", "host", "pid"))
        if not isinstance(process, str) or not isinstance(host, str) or not isinstance(pid, int):
            return None
        if process not in self._looked:
            self._looked[process] = self._lives(process, found)
        return Holder(host, pid, found.get("job")) if self._looked[process] else None

    def _lives(self, process: str, holder: dict[str, Any]) -> bool:
        if holder.get("machine") == _here()["machine"]:
            return _start_of(holder["pid"]) == holder.get("started")
        try:
            self.place.read(self._alive(process))  # so that a network file system asks for its time, too
            said = self.place.modified(self._alive(process))
        except OSError:
            return False
        return said is not None and self._clock - said <= self.lease_s

    @cached_property
    def _clock(self) -> float:
        """Now, by the clock that dates the files; by this machine's where nothing can be put."""
        probe = f"{_ROOT}/clock-{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):
            self.place.put(probe, b"")
            now = self.place.modified(probe)
            self.place.remove(probe)
            if now is not None:
                return now
        return time.time()

    def release(self, key: str) -> None:
        """Give a lease back. The file with the highest number stays, so that numbers only rise."""
        if self.holds(key):
            with contextlib.suppress(OSError):  # a full disk: then it is free when this process is gone
                self.place.put(self._file(key, self._held[key]), json.dumps({"process": None}).encode())
        self._held.pop(key, None)

    def drop(self, key: str) -> None:
        """Give back a lease that nobody will ask for again, and leave nothing of it."""
        if self.holds(key):
            self.place.remove_folder(f"{_ROOT}/held/{key}")
        self._held.pop(key, None)

    def keys_beginning(self, start: str) -> list[str]:
        """Of leases that were taken here, held or not."""
        return [key for key in self.place.names(f"{_ROOT}/held") if key.startswith(start)]

    def close(self) -> None:
        """Give all leases back and fall silent."""
        for key in list(self._held):
            self.release(key)
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            with contextlib.suppress(OSError):
                self.place.remove(self._alive(self.process))

    def _live(self) -> None:
        if self._thread is None:
            self._beat()  # before the first lease: a lease of a process that never said that it lives is free
            self._thread = threading.Thread(target=self._keep_beating, daemon=True)
            self._thread.start()

    def _keep_beating(self) -> None:
        while not self._ended.wait(self.beat_s):
            with contextlib.suppress(Exception):  # a full disk, a server that is away: the next one may come through
                self._beat()

    def _beat(self) -> None:
        self._beats += 1
        self.place.put(self._alive(self.process), json.dumps({"beats": self._beats}).encode())

    def _free(self, holder: dict[str, Any] | None) -> bool:
        """Whether the process that a lease names is gone. holder: None, when the file was removed by a newer holder."""
        if holder is None:
            return False
        process = holder.get("process")
        if not isinstance(process, str):
            return True
        if holder.get("machine") == _here()["machine"] and _start_of(holder.get("pid")) != holder.get("started"):
            return True
        now = time.monotonic()  # before the look: who stands still between the two must not think that it was long ago
        try:
            word = self.place.read(self._alive(process))
        except FileNotFoundError:
            return True
        except OSError:  # a file server that is away
            return False
        last, since = self._watched.get(process, (None, now))
        if word != last:
            self._watched[process] = (word, now)
            return False
        return now - since > self.lease_s

    def _read(self, key: str, number: int) -> dict[str, Any] | None:
        try:
            holder = json.loads(self.place.read(self._file(key, number)))
        except FileNotFoundError:
            return None
        except ValueError:  # damaged: nobody can be asked
            return {}
        return holder if isinstance(holder, dict) else {}

    def _numbers(self, key: str) -> list[int]:
        names = self.place.names(f"{_ROOT}/held/{key}")
        return [int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit()]

    def _newest(self, key: str) -> int:
        return max(self._numbers(key), default=0)

    def _file(self, key: str, number: int) -> str:
        return f"{_ROOT}/held/{key}/{number:08d}.json"

    def _alive(self, process: str) -> str:
        return f"{_ROOT}/alive/{process}.json"


def sweep(place: Place) -> None:
    """Remove what leases left in a place, but what living processes hold or have said within LEASE_S: another one may be at
    work on something else there. A process may still be asking for a lease."""
    leases = Leases(place)
    for key in place.names(f"{_ROOT}/held"):
        folder = f"{_ROOT}/held/{key}"
        names = place.names(folder)  # before the look: of a lease that is taken after it nothing is removed
        if leases.holder(key):
            continue
        for name in names:
            if re.fullmatch(r"\d{8}\.json", name):
                place.remove(f"{folder}/{name}")
        place.remove_empty(folder)
    for name in place.names(f"{_ROOT}/alive"):
        if re.fullmatch(r"[0-9a-f]{32}\.json", name) and not leases._lives(name.removesuffix(".json"), {}):
            place.remove(f"{_ROOT}/alive/{name}")


def _here() -> dict[str, Any]:
    """What names this process on this machine: a process number alone is used again, and containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: then only silence tells that a process is gone
        machine = f"{platform.node()} {uuid.uuid4().hex}"
    own = {"machine": machine, "host": platform.node(), "pid": os.getpid(), "started": _start_of(os.getpid())}
    return own | ({"job": job} if (job := slurm_job()) else {})


def slurm_job() -> str | None:
    """The id of the job that this process is part of, as Slurm's own commands take it; None: there is none."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _start_of(pid: Any) -> str | None:
    """When a process of this machine began, in ticks since boot; None: there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
