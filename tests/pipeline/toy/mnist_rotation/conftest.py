from typing import Any

import pytest

from tests.pipeline.toy.mutations import measured


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of all parts at the quick settings and smaller, read back from files; page and findings are written too."""
    smaller = {"small_steps": 40, "small_iterations": 3, "small_polish": 4, "n_nets": 2, "descent_steps": 70}
    return measured("mnist-rotation", tmp_path_factory.mktemp("toy"), **smaller)
