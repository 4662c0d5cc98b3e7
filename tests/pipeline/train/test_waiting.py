"""Processes wait for one of them as long as it takes, and sums over them do not."""

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from pipeline.train.ranks import ALONE, Ranks
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
