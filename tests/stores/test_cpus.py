"""A false root with /proc and /sys: how many CPUs control groups, Slurm and ranks leave of a machine's 64."""

from pathlib import Path

import pytest

from stores.cpus import cpus_here
from tests.stores.test_memory import put


def cpus(root: Path, affinity: int = 64, **variables: str) -> int:
    return cpus_here(root, variables, affinity)


def test_without_groups_it_is_what_the_process_is_let_run_on(tmp_path: Path) -> None:
    assert cpus(tmp_path) == 64
    assert cpus(tmp_path, affinity=3) == 3


def test_the_tightest_quota_of_nested_groups_counts_and_is_rounded_up(tmp_path: Path) -> None:
    put(tmp_path, {"proc/self/cgroup": "0::/slurm/job/step", "sys/fs/cgroup/slurm/cpu.max": "1600000 100000"})
    put(tmp_path, {"sys/fs/cgroup/slurm/job/cpu.max": "250000 100000", "sys/fs/cgroup/slurm/job/step/cpu.max": "max 1"})
    assert cpus(tmp_path) == 3


def test_version_1_has_its_quota_in_two_files(tmp_path: Path) -> None:
    put(tmp_path, {"proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/other"})
    put(tmp_path, {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": 800000, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": 100000})
    put(tmp_path, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1, "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000})
    assert cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("variables", "n"),
    [({"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "12"}, 6), ({"SLURM_CPUS_ON_NODE": "12"}, 12),
     ({"SLURM_CPUS_ON_NODE": "12", "SLURM_NTASKS_PER_NODE": "4(x2)"}, 3),
     ({"SLURM_CPUS_PER_TASK": "8", "LOCAL_WORLD_SIZE": "4"}, 2), ({"SLURM_CPUS_PER_TASK": "2", "LOCAL_WORLD_SIZE": "4"}, 1),
     ({"SLURM_CPUS_PER_TASK": "none"}, 64), ({"SLURM_CPUS_PER_TASK": "128"}, 64)],
)  # fmt: skip
def test_slurm_gives_cpus_to_a_task_and_its_ranks_share_them(tmp_path: Path, variables: dict[str, str], n: int) -> None:
    assert cpus(tmp_path, **variables) == n
