import os
import subprocess
import sys

import pytest

_OF_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    ("said", "taken"),
    [({}, "GOMP_SPINCOUNT = '3000'"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "GOMP_SPINCOUNT = '0'")],
)
def test_openmp_threads_soon_sleep_while_they_wait_unless_the_environment_says_otherwise(
    said: dict[str, str], taken: str
) -> None:
    """What the OpenMP that the command loads with PyTorch says of itself."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_WAITING}
    environment = inherited | {"OMP_DISPLAY_ENV": "VERBOSE"} | said
    command = [sys.executable, "-c", "import pipeline.cli, torch"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert taken in ran.stderr
