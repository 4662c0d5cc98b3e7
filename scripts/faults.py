"""What can go wrong: inside a process, at a named step of it, and with the files that lie there."""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

Point = tuple[str, str, int]  # (event, pattern of the path, which of them)

# Inside a process: hooks that it calls as it starts.


def at(point: Point, happen: Callable[[str], None]) -> Callable[[], None]:
    """A hook that makes something happen at a point: event "name", as a file gets its name; "write", as one is opened
    for writing; "read", as one is opened for reading."""
    kind, pattern, left = point

    def install() -> None:
        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            path = _path(kind, event, arguments)
            if path is not None and fnmatch(path, pattern):
                left -= 1
                if left == 0:
                    happen(path)

        sys.addaudithook(watch)

    return install


def _path(kind: str, event: str, arguments: tuple[Any, ...]) -> str | None:
    if kind == "name" and event in ("os.rename", "os.link"):
        return os.path.abspath(str(arguments[1]))
    if kind in ("read", "write") and event == "open" and isinstance(arguments[0], str | Path):
        writes = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return os.path.abspath(str(arguments[0])) if writes == (kind == "write") else None
    return None


def die(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stand_still(path: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def failing(code: int) -> Callable[[str], None]:
    def fail(path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    return fail


def always_failing(code: int, pattern: str) -> Callable[[], None]:
    def install() -> None:
        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            path = _path("write", event, arguments)
            if path is not None and fnmatch(path, pattern):
                raise OSError(code, os.strerror(code), path)

        sys.addaudithook(watch)

    return install


def slow_fsync() -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(0.1)
        real(descriptor)

    os.fsync = fsync


def jumping_clock() -> None:
    real, calls = time.time, 0

    def jump() -> float:
        nonlocal calls
        calls += 1
        return real() + (-1) ** calls * 86_400 * (calls % 7)

    time.time = jump


def hasty() -> None:
    """Who is silent for a second is taken to be gone."""
    from stores.lease import Leases

    Leases.__init__.__kwdefaults__.update(beat_s=0.1, lease_s=1.0)


def little_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), resource.RLIM_INFINITY))


def listing(file: Path) -> Callable[[], None]:
    def install() -> None:
        log = file.open("a")

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if (path := _path("name", event, arguments)) is not None:
                log.write(path + "\n")
                log.flush()

        sys.addaudithook(watch)

    return install


def alarm(seconds: float) -> None:
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)


# To files that lie there.


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(max(1, path.stat().st_size)))


def empty(path: Path, rng: random.Random) -> None:
    os.truncate(path, 0)


def alter(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def exchange(path: Path, rng: random.Random) -> None:
    others = [p for p in path.parent.parent.parent.rglob(path.name) if p != path and p.is_file()]
    other = rng.choice(others) if others else path
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


DAMAGES = {f.__name__: f for f in (truncate, empty, alter, delete, exchange)}
