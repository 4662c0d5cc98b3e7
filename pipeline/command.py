"""What all commands have in common: options, and how a failure is told."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import UserError

Runs = Annotated[Path, typer.Option("--runs", help="The folder that run folders lie in.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def guarded(debug: bool, work: Callable[[], None]) -> None:
    """Exit code 2 and one line for bad input, 1 and one line for what failed while running."""
    try:
        work()
    except Exception as error:
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
