"""Whether the nodes of a cluster see a folder, as far as the machine that submits can tell."""

import socket
import subprocess
from pathlib import Path

# File systems of one machine. One of them may be exported to the others, so it is a warning and no error.
_OF_ONE_MACHINE = {"btrfs", "ext2", "ext3", "ext4", "overlay", "tmpfs", "ramfs", "xfs", "zfs"}


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the file system that a folder is on, or will be; None: it is not known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:  # not Linux
        return None
    path = folder.resolve()
    found = [(len(line[1]), line[2]) for line in lines if len(line) > 2 and path.is_relative_to(_plain(line[1]))]
    return max(found)[1] if found else None  # the deepest mount; of two at one place the later one hides the other


def _plain(name: str) -> str:
    """A space is \\040 there."""
    return name.replace("\\040", " ")


def other_nodes() -> list[str]:
    """Slurm's nodes but this machine."""
    done = subprocess.run(["sinfo", "--noheader", "--format=%n"], capture_output=True, text=True)
    own = socket.gethostname().partition(".")[0]
    return sorted({name for name in done.stdout.split() if name.partition(".")[0] != own})


def warning(folder: Path) -> str | None:
    """None: nothing speaks against it that the nodes see the folder."""
    kind, others = file_system(folder), other_nodes()
    if kind not in _OF_ONE_MACHINE or not others:
        return None
    return (
        f"warning: {folder} is on a file system of this machine ({kind}): where {others[0]} does not see it, jobs end without "
        f"a log; give --runs a folder that all nodes share"
    )
