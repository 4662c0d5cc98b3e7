"""Commands of unmix in forked processes, which have the libraries loaded already."""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S = 120  # a command that takes longer hangs


@dataclass
class Child:
    """A command in a forked process. limit_bytes: of its address space, above what it has when it starts."""

    arguments: list[str]
    folder: Path
    hooks: list[Callable[[], None]] = field(default_factory=list)

    def start(self) -> "Child":
        self.out = tempfile.TemporaryFile()  # noqa: SIM115
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run()
        return self

    def _run(self) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            for stream in (1, 2):
                os.dup2(self.out.fileno(), stream)
            for hook in self.hooks:
                hook()
            sys.argv = ["unmix", *self.arguments]
            from pipeline.cli import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> tuple[int | None, str]:
        """(exit code, negative for a signal; None: it hung), what it said."""
        limit = time.monotonic() + LIMIT_S
        code = None
        while time.monotonic() < limit:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.01)
        else:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.out.seek(0)
        said = self.out.read().decode(errors="replace")
        self.out.close()
        return code, said


def run(folder: Path, *arguments: str, hooks: list[Callable[[], None]] | None = None) -> tuple[int | None, str]:
    return Child(list(arguments), folder, hooks or []).start().wait()
