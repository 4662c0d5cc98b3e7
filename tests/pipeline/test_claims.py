from multiprocessing import get_context
from pathlib import Path

import pytest

from pipeline.claims import Claims
from pipeline.units import Unit
from tests.pipeline.test_units import unit


def test_a_claimed_unit_is_nobody_elses_until_it_is_given_back(tmp_path: Path) -> None:
    units = [unit(tmp_path / name) for name in "ab"]
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.claim(units[:1]) == units[:1]
        assert two.claim(units) == units[1:]
        one.give_back(units[0])
        assert two.claim(units[:1]) == units[:1]
        units[0].finish("cpu", 1.0)
        two.give_back(units[0])
        assert one.claim(units) == []


def test_rounds_wait_for_others_and_take_over_what_they_leave(tmp_path: Path) -> None:
    units = [unit(tmp_path / name) for name in "abc"]
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.claim(units[:2]) == units[:2]
        rounds = two.rounds([units[:2], units[2:]])
        assert next(rounds) == units[2:]  # other work first
        units[2].finish("cpu", 1.0)
        assert next(rounds) == []
        units[0].finish("cpu", 1.0)
        one.give_back(units[0])
        one.give_back(units[1])  # diverged, or the process is gone
        assert next(rounds) == units[1:2]
        assert list(rounds) == []  # it came once; who could not finish it says so


def test_a_group_that_one_process_is_just_claiming_is_not_parted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two look at the same groups at the same time; the second one comes as the first has claimed one unit of two."""
    groups = [[unit(tmp_path / name) for name in names] for names in ("ab", "cd")]
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        first, second = one.rounds(groups), two.rounds(groups)
        claimed, taken = one._claimed, []

        def slowly(asked: Unit, replace: bool) -> bool:
            found = claimed(asked, replace)
            taken.extend(next(second) if not taken else [])
            return found

        monkeypatch.setattr(one, "_claimed", slowly)
        assert next(first) == groups[0]
        assert taken == groups[1]


def test_units_of_a_group_that_is_asked_for_in_parts_are_free_for_others(tmp_path: Path) -> None:
    a, b, c = (unit(tmp_path / name) for name in "abc")
    with Claims(tmp_path) as one, Claims(tmp_path) as two, Claims(tmp_path) as three:
        assert next(one.rounds([[a]])) == [a]
        assert next(two.rounds([[a, b]])) == [b]
        assert next(three.rounds([[a, b, c]])) == [c]


def begin_at_once(folder: Path, i: int, start) -> None:
    for turn in range(40):
        start.wait()
        with Claims(folder) as claims:
            for mine in claims.rounds([[unit(folder / f"{turn}" / name) for name in "ab"]]):
                for one in mine:
                    with (one.folder / "made").open("x") as file:  # by one process alone
                        file.write(f"{i}")
                    one.finish("cpu", 0.0)


@pytest.mark.slow
def test_forty_starts_of_four_processes_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    context = get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=begin_at_once, args=(tmp_path, i, start)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    units = [unit(tmp_path / f"{turn}" / name) for turn in range(40) for name in "ab"]
    assert all(one.state() == "done" and (one.folder / "made").exists() for one in units)
