"""Several processes that train, and score, one run at once."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.train import logs
from tests.conftest import start, unmix
from tests.pipeline.train.test_kills import HOOK, dictionaries, recipe  # noqa: F401  a fixture

FEW = ["--set", "train.n_tokens=16000"]


def at_once(folder: Path, n: int, *arguments: str, dies: Sequence[tuple[str, int] | None] = ()) -> list[int]:
    """What n processes of one command return that were started together."""
    points = [*dies, *[None] * (n - len(dies))]
    processes = [start(*arguments, cwd=folder, dies_at=point) for point in points]
    return [process.wait() for process in processes]


def steps(run: Path) -> dict[str, list[int]]:
    found = sorted((run / "train" / HOOK).glob(f"*/{logs.METRICS}"))
    return {file.parent.name: [record["step"] for record in logs.records(file)] for file in found}


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 8])
def test_trainers_of_one_run_make_what_one_makes_and_log_each_step_once(recipe: Path, n: int) -> None:  # noqa: F811
    unmix("train", "sweep.toml", *FEW, "--name", "one", cwd=recipe)
    assert at_once(recipe, n, "train", "sweep.toml", *FEW, "--name", "several") == [0] * n
    one, several = recipe / "runs" / "one", recipe / "runs" / "several"
    assert len(dictionaries(one)) == 13
    assert dictionaries(several) == dictionaries(one)
    assert steps(several) == steps(one)


@pytest.mark.slow
def test_a_trainer_takes_over_from_one_that_is_killed(recipe: Path) -> None:  # noqa: F811
    unmix("train", "sweep.toml", *FEW, "--name", "one", cwd=recipe)
    # Whoever has relu_l1's units dies; the other one goes on with them, and dies at the same point.
    killed = [("*/relu_l1*/checkpoints/step-*", 2)] * 2
    assert at_once(recipe, 2, "train", "sweep.toml", *FEW, "--name", "two", dies=killed) == [-signal.SIGKILL] * 2
    unmix("train", "sweep.toml", *FEW, "--name", "two", cwd=recipe)
    one, two = recipe / "runs" / "one", recipe / "runs" / "two"
    assert dictionaries(two) == dictionaries(one)
    assert steps(two) == steps(one)
