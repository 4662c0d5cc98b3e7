"""A unit that fails: the others are done, what follows from them is made, and the end says which one it was."""

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline.score.pictures
import pipeline.score.stage
import pipeline.train.stage
from pipeline.claims import Claims
from pipeline.failures import failure, keep
from pipeline.sharing import Sharing, Worker
from pipeline.stages import Run, load_recipe, run_score, run_train
from pipeline.train.group import Group
from tests.conftest import make_store, planted_rows
from tests.pipeline.test_units import unit

SITES = [f"blocks.{layer}.hook_resid_post" for layer in range(2)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a recipe of four dictionaries at two sites. It is the working folder."""
    make_store(tmp_path / "s.zarr", d=dict.fromkeys(SITES, 12), rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        'store = "s.zarr"\n[train]\nbatch_size = 64\nn_tokens = 128\n[train.topk]\nd_sae = 16\nk = 2\nseed = [0, 1]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline.score.pictures, "draw", lambda *_: None)
    monkeypatch.setattr(pipeline.train.stage, "_draw", lambda *_: None)
    return tmp_path


def run_of(folder: Path, worker: Worker = Worker()) -> Run:  # noqa: B008
    return Run(load_recipe("r.toml"), folder / "runs" / "r", "cpu", sharing=Sharing(worker))


def done(folder: Path, stage: str) -> int:
    return len(list((folder / "runs" / "r" / stage).glob("*/*/manifest.json")))


def fail_one(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first dictionary of the first site cannot be trained. Returns how often it was tried."""
    real, tries = Group.run, []

    def run(group: Group, start: int) -> list[str]:
        if (SITES[0], "topk-d16-k2-s0") in [(group.where, name) for name in group.items]:
            tries.append(len(group.items))
            raise KeyError("bad")
        return real(group, start)

    monkeypatch.setattr(Group, "run", run)
    return tries


@pytest.mark.parametrize("worker", [Worker(), Worker(0, 8)])
def test_a_dictionary_that_cannot_be_trained_holds_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker
) -> None:
    tries = fail_one(monkeypatch)
    with pytest.raises(RuntimeError, match=f"^topk-d16-k2-s0 at {SITES[0]}: KeyError: 'bad'; the others are done"):
        run_train(run_of(folder, worker))
    assert done(folder, "train") == 3
    assert tries == [2, 1]  # with the others, and alone
    kept = failure(folder / "runs" / "r" / "train" / SITES[0] / "topk-d16-k2-s0")
    assert kept
    assert kept.error == "KeyError: 'bad'"


@pytest.mark.parametrize("worker", [Worker(), Worker(1, 4)])
def test_a_dictionary_that_cannot_be_scored_is_missing_in_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker
) -> None:
    run_train(run_of(folder))
    real = pipeline.score.stage.measures_of

    def measures_of(dictionary: Any, *given: Any) -> Any:
        if dictionary.provenance["settings"]["topk"]["seed"] == 1 and dictionary.provenance["reads"] == [SITES[1]]:
            raise ValueError("bad")
        return real(dictionary, *given)

    monkeypatch.setattr(pipeline.score.stage, "measures_of", measures_of)
    with pytest.raises(RuntimeError, match=f"topk-d16-k2-s1 at {SITES[1]}: ValueError: bad"):
        run_score(run_of(folder, worker))
    table = json.loads((folder / "runs" / "r" / "score" / "scores.json").read_text())
    assert len(table["dictionaries"]) == done(folder, "score") == 3
    assert table["missing"] == [f"{SITES[1]}/topk-d16-k2-s1"]


def test_what_concerns_all_ends_it_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def run(*_: Any) -> list[str]:
        tries.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Group, "run", run)
    with pytest.raises(OSError, match="No space left"):
        run_train(run_of(folder))
    assert len(tries) == 1


@pytest.mark.parametrize("waits", [True, False])
def test_what_failed_meanwhile_is_not_tried_again_but_by_a_fresh_start(tmp_path: Path, waits: bool) -> None:
    units = [unit(tmp_path / name) for name in "ab"]
    with Claims(tmp_path) as one:
        assert one.claim(units) == units
        keep(units[1].folder, "an older start")
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        mine, others = one.rounds([units[:1], units[1:]], waits=waits), two.rounds([units[:1], units[1:]], waits=waits)
        assert next(mine) == units[:1]
        assert next(others) == units[1:]
        keep(units[0].folder, "diverged")
        keep(units[1].folder, "diverged")
        assert next(mine, None) is None
        assert next(others, None) is None
    with Claims(tmp_path) as fresh:
        assert list(fresh.rounds([units])) == [units]


def test_who_waits_tells_what_failed_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, real = run_of(folder), Group.run
    units = pipeline.train.stage.units(started.recipe.train, started.folder, started.open_store())
    plans = {str(one.folder): one.plan for _, one in units}

    def run(group: Group, start: int) -> list[str]:
        other = folder / "runs" / "r" / "train" / SITES[1] / "topk-d16-k2-s0"
        if group.where == SITES[0]:
            other.mkdir(parents=True)
            known = {"error": "bad", "time": 1.0, "host": "node7", "pid": 3, "job": None, "log": None}
            (other / "failed.json").write_text(json.dumps(known))
            (other / "plan.json").write_text(json.dumps(plans[str(other)]))
        return real(group, start)

    monkeypatch.setattr(Group, "run", run)
    with pytest.raises(RuntimeError, match=f"^{SITES[1]}/topk-d16-k2-s0: bad; the others are done"):
        run_train(started)
    assert done(folder, "train") == 3
