"""What a task of a Slurm job runs: a command, and its end when the machine is taken away."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Task:
    """A command. environment: variables for it, where they are not set."""

    argv: list[str]
    environment: dict[str, str]
    _pid: int = field(default=0, init=False)

    def __call__(self) -> None:
        """Raises SystemExit with the command's exit code: a failed command is a failed job."""
        # Not subprocess: its wait() holds a lock, and stop, in a signal's handler, waits for the same process.
        self._pid = os.posix_spawn(self.argv[0], self.argv, {**self.environment, **os.environ})
        if code := self._code():
            sys.exit(code if code > 0 else 128 - code)

    def stop(self) -> None:
        """Ask the command to stop, and wait until it has saved."""
        if self._pid:
            with suppress(ProcessLookupError):  # it has ended, and the job is about to queue again
                os.kill(self._pid, signal.SIGTERM)  # torchrun passes it on
            self._code()

    def _code(self) -> int:
        """The command's exit code when it has ended, negative for a signal; 0 where stop has seen it end."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:
            return 0
