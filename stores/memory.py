"""How much memory a process may take: the machine's, its control groups', its own limit, shared with the ranks beside it."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


def free_memory_bytes(
    root: Path = Path("/"), limit: int | None = None, environment: Mapping[str, str] = os.environ
) -> int:
    """Memory that this process can take without swapping or being killed.

    The least of what the machine has free, what each control group from the process's own up to the root leaves, what Slurm
    has given the job, and what the process's address space may still grow by; divided among the processes of one job on this
    machine, which all ask.
    root: where /proc and /sys lie. limit: of the address space, by default RLIMIT_AS.
    """
    found = [_machine(root), *_groups(root)]
    limit = _address_space_limit() if limit is None else limit
    if limit is not None:
        found.append(limit - _own(root, "VmSize"))
    n = processes_here(environment)
    if given := _given(environment):  # where no control group holds the job to it, Slurm kills it for more
        found.append(given - n * _own(root, "VmRSS"))  # as if all had taken as much as this one
    return max(0, min(found)) // n


def _given(environment: Mapping[str, str]) -> int | None:
    """Bytes that Slurm has given the job on this machine; None: it does not say, or all."""
    try:
        if per_cpu := int(environment.get("SLURM_MEM_PER_CPU", "0")):
            return per_cpu * int(environment["SLURM_CPUS_ON_NODE"]) << 20
        return (int(environment.get("SLURM_MEM_PER_NODE", "0")) << 20) or None
    except (ValueError, KeyError):
        return None


def processes_here(environment: Mapping[str, str]) -> int:
    """Processes of the job on this machine, as torchrun or Slurm tell; 1 where they say nothing."""
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "SLURM_NTASKS"):
        found = re.match(r"[1-9]\d{0,5}", environment.get(name, ""))  # Slurm also writes "4(x2)"
        if found:
            return int(found[0])
    return 1


def _machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):  # not Linux: half of what the machine has
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _own(root: Path, name: str) -> int:
    """A line of /proc/self/status in bytes, 0 where there is none."""
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration, ValueError):
        return 0


def _address_space_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folder of each control group that the process is in, from its own up to the root; of version 2 and 1. Some may not
    be there: in a container the path may be the host's, and only its own group is mounted, at the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/job/step", or "7:memory,cpu:/job/step"
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "?", "")
        if controllers == "":
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])


_VERSIONS = (  # limit, usage, a line of memory.stat: pages of files that were not used lately are no usage
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _groups(root: Path) -> list[int]:
    """What each control group leaves that has a limit."""
    found = []
    for folder in control_groups(root, "memory"):
        for limit, usage, reclaimable in _VERSIONS:
            try:
                left = int((folder / limit).read_text()) - int((folder / usage).read_text())
            except (OSError, ValueError):  # no such level here, of the other version, or "max"
                continue
            found.append(left + _statistic(folder / "memory.stat", reclaimable))
    return found


def _statistic(file: Path, name: str) -> int:
    try:
        lines = (line.split() for line in file.read_text().splitlines())
        return next((int(line[1]) for line in lines if line[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0
