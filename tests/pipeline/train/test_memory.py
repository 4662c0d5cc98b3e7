import os
import platform
import subprocess
import sys

import pytest

_STEPS = """
import resource, torch
from pipeline.train.memory import keep_freed
keep_freed()
torch.set_num_threads(1)
ones = lambda: torch.ones(2**24)  # 64 MiB, 16,384 pages
for _ in range(10):  # a block that is too short by its alignment is left, so the first ones find none
    ones()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    ones()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize(("environment", "again"), [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False)])
def test_freed_memory_is_used_again_without_new_pages(environment: dict[str, str], again: bool) -> None:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "THP_"))
    }
    ran = subprocess.run([sys.executable, "-c", _STEPS], env=inherited | environment, capture_output=True, check=True)
    assert (int(ran.stdout) < 1000) == again
