"""Giving a file a name that no other file has, in one step, also where a file system has no hard links."""

import contextlib
import ctypes
import errno
import fcntl
import os
import sys
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_NO_SUCH_RENAME = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_RENAME_NOREPLACE, _HERE = 1, -100


def name_exclusively(temporary: Path, path: Path) -> bool:
    """Give a whole file its final name, unless there is a file of that name: then False. One process of several wins, and
    nobody ever sees a part of the file under its name.

    By a hard link; else by Linux's rename that does not replace; else by a rename under a lock on the folder, which a
    network file system may not share between machines. The temporary name stays or goes.
    """
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):  # gone since
            return os.path.samefile(
                temporary, path
            )  # a file server that was asked twice says so of its own first answer
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    found = _rename_without_replacing(temporary, path)
    return _rename_under_lock(temporary, path) if found is None else found


def _rename_without_replacing(temporary: Path, path: Path) -> bool | None:
    """None: this system, or this file system, has no such rename."""
    if not sys.platform.startswith("linux"):
        return None
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return None
    if rename(_HERE, os.fsencode(temporary), _HERE, os.fsencode(path), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    if number in _NO_SUCH_RENAME:
        return None
    raise OSError(number, os.strerror(number), str(path))


def _rename_under_lock(temporary: Path, path: Path) -> bool:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # given back when its process dies
        if path.exists():
            return False
        os.replace(temporary, path)
        return True
    finally:
        os.close(folder)
