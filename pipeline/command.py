"""What all commands have in common: options, and how a failure is told."""

import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline import stopping
from pipeline.config import UserError

Runs = Annotated[Path, typer.Option("--runs", help="The folder that run folders lie in.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def recipe_arguments(recipe: str, sets: list[str] | None, runs: Path, name: str | None) -> list[str]:
    """The recipe and the options by which another command has the same run."""
    found = [recipe, *(part for one in sets or [] for part in ("--set", one))]
    return found + ["--runs", str(runs)] * (runs != Path("runs")) + (["--name", name] if name else [])


def first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def resumable(debug: bool, work: Callable[[], None]) -> None:
    """guarded, for work that is saved as it goes: signals ask it to stop."""
    with stopping.listening():
        try:
            guarded(debug, work)
        except KeyboardInterrupt:  # the second one
            _say_stopped("stopped at once: what was saved stays")
            raise typer.Exit(128 + signal.SIGINT) from None


def _say_stopped(how: str) -> None:
    if first_process():
        print(f"unmix: {how}; run the same command again, it goes on from there", file=sys.stderr)


def _reader_gone() -> bool:
    """Whether who read what this process prints, such as `head`, has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def guarded(debug: bool, work: Callable[[], None]) -> None:
    """Exit code 2 and one line for bad input, 1 and one line for what failed while running, 75 and one line for what was
    asked to stop and did."""
    try:
        work()
        sys.stdout.flush()
    except stopping.Stopped as stopped:
        _say_stopped(str(stopped))
        raise typer.Exit(stopping.EXIT_CODE) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            raise typer.Exit(128 + signal.SIGPIPE) from None
        if debug:
            traceback.print_exc()
        known = isinstance(error, UserError | ValueError | RuntimeError | OSError)
        message = str(error).splitlines()[0] if str(error) else ""
        kind = "" if known and message else f"{type(error).__name__}: "
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = f" at {error.filename}" if error.filename else ""
            kind, message = "", f"no space left{where}: make room and run the same command again, it goes on from there"
        if first_process() or not known:  # what all find, one says
            print(f"unmix: {kind}{message}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None
