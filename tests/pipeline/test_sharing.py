"""A sweep at one site that several processes divide."""

from pathlib import Path

import pytest

from pipeline.claims import Claims
from pipeline.sharing import Sharing, Worker
from pipeline.stages import Run, load_recipe
from tests.conftest import make_store, planted_rows, start, unmix
from tests.pipeline.test_only_stages import SITES
from tests.pipeline.test_status import watch
from tests.pipeline.test_units import unit

RECIPE = """store = "s.zarr"
[train]
batch_size = 64
n_tokens = 1280
[train.topk]
d_sae = [16, 24]
k = [1, 2, 3, 4]
seed = [0, 1, 2]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A folder with sweep.toml: 24 dictionaries at one site."""
    make_store(tmp_path / "s.zarr", d={SITES[0]: 12}, rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "sweep.toml").write_text(RECIPE.replace("s.zarr", f"{tmp_path}/s.zarr"))
    return tmp_path


def test_a_site_is_parted_into_groups_and_each_worker_begins_with_its_own(tmp_path: Path) -> None:
    work = [(site, unit(tmp_path / site / str(i))) for site, n in (("a", 5), ("b", 2)) for i in range(n)]

    def names(sharing: Sharing) -> list[list[str]]:
        return [[f"{u.folder.parent.name}{u.folder.name}" for u in group] for group in sharing.groups(work)]

    whole = [["a0", "a1", "a2", "a3", "a4"], ["b0", "b1"]]
    parted = [["a0", "a1"], ["a2", "a3"], ["a4"], ["b0", "b1"]]
    assert names(Sharing()) == whole
    assert names(Sharing(together=2)) == parted
    for i in range(4):
        assert names(Sharing(Worker(i, 4), 2)) == parted[i:] + parted[:i]
    assert [names(Sharing(Worker(i, 2), 2))[0] for i in range(2)] == [parted[0], parted[2]]


def test_a_worker_of_several_ends_where_others_are_at_all_that_is_left(tmp_path: Path) -> None:
    units = [unit(tmp_path / name) for name in "ab"]
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.claim(units[:1]) == units[:1]
        rounds = two.rounds([units[:1], units[1:]], waits=False)
        assert next(rounds) == units[1:]
        units[1].finish("cpu", 1.0)
        assert list(rounds) == []
        one.give_back(units[0])
        assert next(two.rounds([units[:1], units[1:]], waits=False)) == units[:1]


@pytest.mark.slow
def test_eight_processes_train_each_of_24_dictionaries_once_and_status_is_right_at_every_moment(sweep: Path) -> None:
    commands = [("train", "sweep.toml", "--together", "3", "--worker", f"{i}/8") for i in range(8)]
    processes = [start(*command, cwd=sweep) for command in commands]
    run = sweep / "runs" / "sweep"
    watch(Run(load_recipe(str(sweep / "sweep.toml"), []), run, "cpu"), processes, n=24, group=3)
    assert len(list(run.glob("train/*/*/manifest.json"))) == 24
    assert claimed(run, "train ") == [1] * 24
    assert "train: nothing to do" in unmix("train", "sweep.toml", cwd=sweep).stdout


def claimed(run: Path, of: str) -> list[int]:
    """How often each thing was claimed whose lease begins so: a lease's highest file says it."""
    return [max(int(p.stem) for p in folder.iterdir()) for folder in run.glob(f"leases/held/{of}*")]
