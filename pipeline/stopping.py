"""Being asked to stop: a signal sets a flag, and loops look at it where what they have done is kept.

A scheduler sends SIGTERM, SIGUSR1 or SIGUSR2 before it takes a machine away or the time is over, perhaps twice; a terminal that
is closed sends SIGHUP; a user presses ctrl-c. Of several only the first counts, but a second ctrl-c ends the process at once.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

EXIT_CODE = os.EX_TEMPFAIL  # 75: the same command goes on
_WITHOUT_A_USER = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
# A ctrl-c that comes sooner is the first one: torchrun passes it on to processes that have it from the terminal.
_SECOND_CTRL_C_S = 1.0


class Stopped(Exception):
    """The process was asked to stop, and did. The message says by what, and what is kept."""


@dataclass
class _Asked:
    by: str = ""  # the first signal
    at: float = 0.0  # time.monotonic()
    torchrun: int | None = None  # its process number, where it started this one


_state = _Asked()


def asked() -> bool:
    """Whether this process is to stop. A process of torchrun's is also when torchrun is gone: it dies of a signal that
    --signals-to-handle does not name, and tells nobody."""
    if not _state.by and _state.torchrun not in (None, os.getppid()):
        _state.by = "the end of torchrun"
    return bool(_state.by)


def look(kept: str) -> None:
    """Stop, if this process is to."""
    if asked():
        stop(kept)


def stop(kept: str) -> NoReturn:
    """Raises Stopped. kept: what was done and will not be done again, for the message."""
    raise Stopped(f"stopped by {_state.by or 'a signal to another process'}: {kept}")


@contextmanager
def listening() -> Iterator[None]:
    """Signals ask this process to stop. Once they have, they stay without effect to the end of the process, which is near."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
    left_alone = (signal.SIG_IGN, None)  # by nohup or &; what is not Python's
    signals = [n for n in (*_WITHOUT_A_USER, signal.SIGINT) if signal.getsignal(n) not in left_alone]
    before = {number: signal.signal(number, _ask) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not _state.by:
                signal.signal(number, handler)
            elif number in _WITHOUT_A_USER:
                signal.signal(number, signal.SIG_IGN)  # Python's own handlers end before the process does


def _ask(number: int, _: FrameType | None) -> None:
    name = signal.Signals(number).name
    if not _state.by:
        _state.by, _state.at = name, time.monotonic()
        if name == "SIGINT" and os.environ.get("RANK", "0") == "0":  # not print: what was interrupted may be printing
            os.write(2, b"\nunmix: saving what is done; ctrl-c again to stop at once\n")
    elif name == _state.by == "SIGINT" and time.monotonic() - _state.at > _SECOND_CTRL_C_S:
        raise KeyboardInterrupt
