from typing import Any

import pytest

from tests.pipeline.toy.mutations import measured


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of all parts at the quick settings, read back from files; the page and the findings are written on the way."""
    return measured("mnist-rotation", tmp_path_factory.mktemp("toy"))
