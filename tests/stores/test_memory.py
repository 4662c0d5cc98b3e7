"""A false root with /proc and /sys: what control groups, limits and ranks leave of a machine's memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from stores.memory import free_memory_bytes, processes_here
from tests.conftest import environment

GB = 10**9


def put(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """100 GB (of 1024 bytes a kB) free, no control group."""
    return put(tmp_path, {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {100 * GB // 1024} kB"})


def group2(path: str, limit: object, usage: int, inactive: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup{path}"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": usage,
            f"{folder}/memory.stat": f"anon 5\ninactive_file {inactive}\nactive_file 7"}  # fmt: skip


def group1(path: str, limit: int, usage: int, inactive: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup/memory{path}"
    return {f"{folder}/memory.limit_in_bytes": limit, f"{folder}/memory.usage_in_bytes": usage,
            f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive}"}  # fmt: skip


def free(root: Path, **variables: str) -> int:
    return free_memory_bytes(root, environment=variables)


def test_without_groups_it_is_the_machine(machine: Path) -> None:
    assert free(machine) == 100 * GB // 1024 * 1024


def test_a_nested_job_has_what_its_tightest_level_leaves(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "0::/slurm/job/step", **group2("/slurm", 90 * GB, 50 * GB)})
    put(
        machine, {**group2("/slurm/job", 30 * GB, 10 * GB, inactive=3 * GB), **group2("/slurm/job/step", "max", 9 * GB)}
    )
    assert free(machine) == 23 * GB


def test_version_1_counts_its_levels_too(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "4:cpu:/x\n3:memory:/job/step\n1:name=systemd:/y"})
    put(
        machine,
        {**group1("", 2**63 - 4096, 0), **group1("/job", 8 * GB, 4 * GB, GB), **group1("/job/step", 50 * GB, 0)},
    )
    assert free(machine) == 5 * GB


def test_a_container_sees_its_own_group_at_the_top(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "0::/docker/0123", **group2("", 4 * GB, GB)})
    assert free(machine) == 3 * GB


def test_a_group_that_is_over_its_limit_leaves_nothing(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "0::/job", **group2("/job", GB, 2 * GB)})
    assert free(machine) == 0


def test_what_cannot_be_read_is_passed_over(machine: Path) -> None:
    put(machine, {"proc/self/cgroup": "nonsense\n0::/../../job", "sys/fs/cgroup/job/memory.max": "lots"})
    assert free(machine) == 100 * GB // 1024 * 1024


def test_the_address_space_is_a_limit(machine: Path) -> None:
    put(machine, {"proc/self/status": "Name: x\nVmSize:  1000000 kB"})
    assert free_memory_bytes(machine, 3 * GB, {}) == 3 * GB - 1000000 * 1024


@pytest.mark.parametrize(
    ("variables", "n"),
    [({}, 1), ({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS": "9"}, 4), ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "16"}, 8),
     ({"SLURM_NTASKS": "2"}, 2), ({"SLURM_NTASKS_PER_NODE": "4(x2)"}, 4), ({"LOCAL_WORLD_SIZE": "0"}, 1),
     ({"LOCAL_WORLD_SIZE": "many"}, 1)],
)  # fmt: skip
def test_ranks_share_the_machine(machine: Path, variables: dict[str, str], n: int) -> None:
    assert processes_here(variables) == n
    assert free(machine, **variables) == 100 * GB // 1024 * 1024 // n


@pytest.mark.parametrize(
    ("variables", "free_bytes"),
    [({"SLURM_MEM_PER_NODE": "4096"}, (4 << 30) - (1 << 30)), ({"SLURM_MEM_PER_NODE": "0"}, None),
     ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, (8 << 30) - (1 << 30)),
     ({"SLURM_MEM_PER_NODE": "8192", "SLURM_NTASKS_PER_NODE": "2"}, ((8 << 30) - (2 << 30)) // 2),
     ({"SLURM_MEM_PER_CPU": "2048"}, None), ({"SLURM_MEM_PER_NODE": "many"}, None)],
)  # fmt: skip
def test_a_job_has_what_slurm_gave_it_less_what_it_has_taken(
    machine: Path, variables: dict[str, str], free_bytes: int | None
) -> None:
    put(machine, {"proc/self/status": f"VmRSS: {1 << 20} kB"})
    assert free(machine, **variables) == (free_bytes or 100 * GB // 1024 * 1024)


def test_a_process_with_a_limit_sees_it() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 * 10**9, 8 * 10**9))\n"
        "from stores.memory import free_memory_bytes; print(free_memory_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment(), "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * 10**9  # 3.2 GB of it are mapped by a PyTorch with CUDA
