"""Any damage to the files of a run, then the commands that the messages name: the end is the undisturbed run."""

import multiprocessing
import random
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.drill import Drill
from scripts.faults import DAMAGES
from scripts.recovery import Row

STAGES = ("extract", "train", "score")
Check = Callable[[str, list[tuple[str, int]], int], None]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Check]:
    """Damage a run that has got so far, and do what the messages say. In a process of its own: the drill forks, and this
    one may have threads by now, which a fork does not have."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=serve, args=(tmp_path_factory.mktemp("drill"), theirs))
    process.start()
    theirs.close()  # so that its end is noticed

    def ask(after: str, damages: list[tuple[str, int]], seed: int) -> None:
        ours.send((after, damages, seed))
        row = ours.recv()
        assert (row.lost, row.wrong, row.dead_end, row.traceback) == (False,) * 4, row

    yield ask
    ours.send(None)
    process.join()


def serve(folder: Path, theirs: Connection) -> None:
    drill = Drill(folder, seed=0)
    while question := theirs.recv():
        theirs.send(damaged(drill, *question))


def damaged(drill: Drill, after: str, damages: list[tuple[str, int]], seed: int) -> Row:
    name, rng = drill.fresh(after), random.Random(seed)
    root = drill.folder / "runs" / f"after-{after}"
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".png")
    for kind, which in damages:
        path = drill.folder / "runs" / name / names[which % len(names)]
        if path.exists():
            DAMAGES[kind](path, rng)
    drill.check(name, drill.row("damage", f"{after} {damages} {seed}"))
    shutil.rmtree(drill.folder / "runs" / name)
    return drill.rows[-1]


@pytest.mark.parametrize(
    "kind", [kind if kind != "truncate" else pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGES]
)
def test_one_damaged_file_is_mended(check: Check, kind: str) -> None:
    check("score", [(kind, 5)], 0)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    after=st.sampled_from(STAGES),
    damages=st.lists(st.tuples(st.sampled_from(sorted(DAMAGES)), st.integers(0, 999)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_any_damage_is_mended_by_what_the_messages_say(
    check: Check, after: str, damages: list[tuple[str, int]], seed: int
) -> None:
    check(after, damages, seed)
