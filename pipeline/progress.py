"""Progress bars: live in a terminal; a line now and then where the output is kept, as in a cluster job's log."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_LOG_INTERVAL_S = 10.0


class _Lines:
    """stderr on which every state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip("\r\n") + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """tqdm with the project's settings: counts in k and M, nothing for what ends at once."""
    options = {"unit_scale": True, "delay": 1.0, "dynamic_ncols": True, **options}
    if not sys.stderr.isatty():
        options |= {"file": _Lines(), "mininterval": _LOG_INTERVAL_S, "dynamic_ncols": False, "ncols": 100}
    return tqdm(iterable, **options)
