"""How many CPUs a process may use: the machine's, its affinity's, its control groups', Slurm's, shared with the ranks beside
it."""

import os
import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path

from stores.memory import control_groups


def cpus_here(root: Path = Path("/"), environment: Mapping[str, str] = os.environ, affinity: int | None = None) -> int:
    """The least of what this process is let run on, what the quotas of its control groups come to, and what Slurm has given
    its task; divided among the processes that torchrun started beside it. At least 1.

    root: where /proc and /sys lie. affinity: CPUs that it is let run on.
    """
    found = [affinity or _affinity(), *_quotas(root)]
    if per_task := _number(environment, "SLURM_CPUS_PER_TASK"):
        found.append(per_task)
    elif on_node := _number(environment, "SLURM_CPUS_ON_NODE"):
        tasks = _number(environment, "SLURM_NTASKS_PER_NODE") or _number(environment, "SLURM_NTASKS") or 1
        found.append(max(1, on_node // tasks))
    return max(1, min(found) // (_number(environment, "LOCAL_WORLD_SIZE") or 1))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _number(environment: Mapping[str, str], name: str) -> int | None:
    found = re.match(r"[1-9]\d{0,5}", environment.get(name, ""))  # Slurm also writes "4(x2)"
    return int(found[0]) if found else None


def _quotas(root: Path) -> list[int]:
    """CPUs' time over time that each control group may take, rounded up; of version 2 and 1."""
    found = []
    for folder in control_groups(root, "cpu"):
        try:  # "200000 100000" or "max 100000"
            quota, period = (folder / "cpu.max").read_text().split()
            found.append(ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            pass
        try:
            quota, period = (int((folder / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period"))
            if quota > 0:  # -1: none
                found.append(ceil(quota / period))
        except (OSError, ValueError, ZeroDivisionError):
            pass
    return found
