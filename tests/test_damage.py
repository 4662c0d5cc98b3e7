"""Any damage to the files of a run, then the commands that the messages name: the end is the undisturbed run."""

import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.drill import DAMAGES, Drill

STAGES = ("extract", "train", "score")


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("drill"), seed=0)


def files(drill: Drill, after: str) -> list[str]:
    root = drill.folder / "runs" / f"after-{after}"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".png")


def check(drill: Drill, after: str, damages: list[tuple[str, int]], seed: int) -> None:
    name, rng = drill.fresh(after), random.Random(seed)
    names = files(drill, after)
    for kind, which in damages:
        path = drill.folder / "runs" / name / names[which % len(names)]
        if path.exists():
            DAMAGES[kind](path, rng)
    drill.check(name, drill.row("damage", f"{after} {damages} {seed}"))
    row = drill.rows[-1]
    assert (row.lost, row.wrong, row.dead_end, row.traceback) == (False,) * 4, row


@pytest.mark.parametrize("kind", DAMAGES)
def test_one_damaged_file_is_mended(drill: Drill, kind: str) -> None:
    check(drill, "score", [(kind, 5)], 0)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    after=st.sampled_from(STAGES),
    damages=st.lists(st.tuples(st.sampled_from(sorted(DAMAGES)), st.integers(0, 999)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_any_damage_is_mended_by_what_the_messages_say(
    drill: Drill, after: str, damages: list[tuple[str, int]], seed: int
) -> None:
    check(drill, after, damages, seed)
    shutil.rmtree(drill.folder / "runs" / "run")
