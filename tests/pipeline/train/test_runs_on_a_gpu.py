"""A whole training on a GPU: repeated, killed, and with its rows elsewhere, it ends with the same bits."""

from pathlib import Path

import pytest

from pipeline.cli import app  # noqa: F401  what the killed process loads
from tests.conftest import CUDA, kill_at, unmix
from tests.pipeline.train.test_kills import dictionaries, recipe  # noqa: F401  a fixture

FEW = ["--set", "train.n_tokens=16000"]


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
def test_a_run_that_is_killed_or_streams_has_the_same_bits(recipe: Path, device: str) -> None:  # noqa: F811
    arguments = ["train", "sweep.toml", *FEW, "--device", device.partition(":")[0]]
    unmix(*arguments, "--name", "one", cwd=recipe)
    unmix(*arguments, "--name", "again", cwd=recipe)
    unmix(*arguments, "--name", "streamed", "--set", "train.residency=stream", cwd=recipe)
    kill_at("*/topk*/checkpoints/step-*", 3, *arguments, "--name", "killed", cwd=recipe)
    unmix(*arguments, "--name", "killed", cwd=recipe)
    one = dictionaries(recipe / "runs" / "one")
    assert len(one) == 13
    for name in ("again", "streamed", "killed"):
        assert dictionaries(recipe / "runs" / name) == one, name
