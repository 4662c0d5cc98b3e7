"""Processes wait for one of them as long as it takes, and sums over them do not."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline.stages import Run, load_recipe, run_train
from pipeline.train import checkpoint, stage
from pipeline.train.learner import FamilyLearner
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.rotations.msp import RotationLearner
from tests.conftest import make_store, planted_rows
from tests.pipeline.train.test_ranks import HOOK, METHODS, recipe
from tests.processes import in_processes

_TIME_OUT_S, _PAUSE_S = 0.2, 0.6


def slow(ranks: Ranks) -> int:
    time.sleep(_PAUSE_S)
    return ranks.rank


def waits_for_a_fit(ranks: Ranks) -> tuple[int, list[int], bool]:
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=_TIME_OUT_S))  # of sums
    decided = ranks.decided(lambda: slow(ranks))
    each = ranks.of_each(lambda: slow(ranks) if ranks.rank else 0)
    if ranks.rank == 1:
        time.sleep(_PAUSE_S)
    ranks.wait()
    if ranks.rank == 1:
        time.sleep(_PAUSE_S)
    try:
        ranks.total(torch.ones(1))
    except RuntimeError:
        return decided, each, True
    return decided, each, False


def test_the_others_wait_for_what_takes_one_longer_than_a_sum_may_take() -> None:
    found = in_processes(2, "data", waits_for_a_fit)
    assert [(decided, each) for decided, each, _ in found] == [(0, [0, 1])] * 2
    assert found[0][2]  # the same pause before a sum is too long


def fails_in_one(ranks: Ranks) -> tuple[str, str]:
    def work() -> None:
        if ranks.rank == 1:
            raise OSError("the disk is full")

    told = []
    for call in (lambda: ranks.of_each(work), lambda: ranks.decided(lambda: 1 / ranks.rank)):
        try:
            call()
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    return told[0], told[1]


def test_what_one_raises_all_raise() -> None:
    found = in_processes(2, "data", fails_in_one)
    assert found == [("OSError: the disk is full", "ZeroDivisionError: division by zero")] * 2
    assert ALONE.of_each(lambda: 3) == [3]


def any_of(ranks: Ranks) -> list[bool]:
    return [ranks.in_any(ranks.rank == 1), ranks.in_any(False)]


def test_what_one_has_seen_all_know() -> None:
    assert in_processes(2, "data", any_of) == [[True, False]] * 2


def in_turn(ranks: Ranks, path: str, name: str) -> list[str]:
    """What this process did that only one does, by its name, and the collectives: "waits" or "sums"."""
    os.chdir(Path(path).parent)
    found: list[str] = []

    def told(owner: Any, name: str, tell: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            found.append(tell(*args, *options.values()))
            return real(*args, **options)

        setattr(owner, name, call)

    for collective in (
        "all_reduce",
        "all_gather",
        "broadcast",
        "barrier",
        "all_gather_object",
        "broadcast_object_list",
    ):
        told(
            dist, collective, lambda *given: "waits" if any(isinstance(x, dist.ProcessGroup) for x in given) else "sums"
        )
    for owner, alone in (
        (stage, "_fit"), (stage, "_draw"), (checkpoint, "write"), (checkpoint, "join"),
        (FamilyLearner, "to_dictionary"), (RotationLearner, "to_dictionary"),
    ):  # fmt: skip
        told(owner, alone, lambda *_, alone=alone: alone)
    run_train(Run(load_recipe(path, [], name), Path("runs") / name, "cpu"))
    return found


@pytest.mark.slow
def test_what_one_does_alone_the_others_wait_for_where_no_time_ends(tmp_path: Path) -> None:
    """Every method that is fitted, checkpoints, dictionaries, curves. It would have caught a sum as the next collective,
    which over NCCL ends after ten minutes."""
    make_store(
        tmp_path / "activations.zarr", n_sequences=200, d={HOOK: 16},
        rows=lambda hook_point, n, d: planted_rows(n, d), chunk_sequences=20,
    )  # fmt: skip
    fitted = {"pca": "n_rows = 300", "ica": "n_rows = 300", "random": "", "neuron_basis": ""}
    own = {name: METHODS[name] for name in ("topk", "rotation")}
    path = recipe(tmp_path, own)
    path.write_text(path.read_text() + "".join(f"[train.{name}]\n{settings}\n" for name, settings in fitted.items()))
    first, second = in_processes(2, "data", in_turn, str(path), "two")
    alone = [i for i, what in enumerate(first) if what not in ("waits", "sums")]
    assert [first[i] for i in alone].count("_fit") == len(fitted)
    assert {first[i] for i in alone} == {"_fit", "_draw", "write", "to_dictionary"}
    for i in alone:
        assert next(what for what in first[i:] if what in ("waits", "sums")) == "waits", first[i]
    assert [what for what in first if what in ("waits", "sums")] == second
