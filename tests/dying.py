"""unmix in a process that kills itself: python -m tests.dying PATTERN N ARGUMENTS…

SIGKILL comes as the N-th file whose path matches PATTERN (fnmatch) is about to get its name, by a rename or a link: all
of its bytes are written; or as the N-th such key of a remote store is about to be put or moved to. What
is left behind never depends on how busy the machine is.
"""

import os
import signal
import sys
from fnmatch import fnmatch
from typing import Any

from stores.place import Remote


def main() -> None:
    pattern, left = sys.argv[1], int(sys.argv[2])

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("os.rename", "os.link", "put") and fnmatch(str(arguments[1]), pattern):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def put(place: Remote, key: str, *args: Any, **options: Any) -> bool:
        sys.audit("put", None, place / key)
        return put_there(place, key, *args, **options)

    def move(place: Remote, key: str, to: str) -> bool:
        sys.audit("put", None, place / to)
        return move_there(place, key, to)

    put_there, Remote.put = Remote.put, put
    move_there, Remote.move = Remote.move, move
    sys.addaudithook(watch)
    sys.argv = ["unmix", *sys.argv[3:]]
    from pipeline.cli import main as unmix

    unmix()


if __name__ == "__main__":
    main()
