"""unmix in a process of its own, which may kill itself: python -m tests.dying PATTERN N ARGUMENTS…, or start().

SIGKILL comes as the N-th file whose path matches PATTERN (fnmatch) is about to get its name, by a rename or a link: all of
its bytes are written; or as the N-th such key of a remote store is about to be put or moved to. With N:SIGNAL another
signal comes, with N:SIGNAL:torchrun it goes to torchrun, which passes it on or dies. What is left behind never depends on
how busy the machine is.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline import stopping
from stores.place import Remote


def main() -> None:
    n, *rest = sys.argv[2].split(":")
    die_at(sys.argv[1], int(n), signal.Signals[rest[0] if rest else "SIGKILL"], torchrun=rest[1:] == ["torchrun"])
    _unmix(sys.argv[3:])


class Process(multiprocessing.get_context("forkserver").Process):
    """The command in a process that is forked from one with the libraries loaded: loading them takes 6 s."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        cwd: Path,
        environment: Mapping[str, str],
        signals: Sequence[tuple[str, int, signal.Signals]],
        stderr: Path | None,
    ) -> None:
        super().__init__(target=_run, args=(arguments, cwd, dict(environment), signals, stderr))

    def wait(self) -> int:
        """The exit code, negative for a signal."""
        self.join()
        assert self.exitcode is not None
        return self.exitcode


def _run(
    arguments: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
    signals: Sequence[tuple[str, int, signal.Signals]],
    stderr: Path | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if stderr is not None:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for one in signals:
            die_at(*one)
        _unmix(arguments)


def _unmix(arguments: Sequence[str]) -> None:
    sys.argv = ["unmix", *arguments]
    from pipeline.cli import main as unmix

    unmix()


def die_at(pattern: str, left: int, number: signal.Signals = signal.SIGKILL, torchrun: bool = False) -> None:
    """Have this process get a signal as the left-th such file is about to get its name, or torchrun, and wait until this
    one is asked to stop for it."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("os.rename", "os.link", "put") and fnmatch(str(arguments[1]), pattern):
            left -= 1
            if left == 0:
                os.kill(os.getppid() if torchrun else os.getpid(), number)
                while torchrun and not stopping.asked():
                    time.sleep(0.01)

    def put(place: Remote, key: str, *args: Any, **options: Any) -> bool:
        sys.audit("put", None, place / key)
        return put_there(place, key, *args, **options)

    def move(place: Remote, key: str, to: str) -> bool:
        sys.audit("put", None, place / to)
        return move_there(place, key, to)

    put_there, Remote.put = Remote.put, put
    move_there, Remote.move = Remote.move, move
    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
