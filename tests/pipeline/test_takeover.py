"""A process stands still for long, another one takes its work over, and the first one wakes up."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import pipeline.extract.stage
import pipeline.score.stage
import pipeline.train.group
import pipeline.train.stage
from pipeline.config import UserError
from pipeline.stages import Run, load_recipe, run_extract, run_score, run_train
from pipeline.train import logs
from pipeline.verify import verify
from stores import ActivationStore
from stores.description import StoreError
from stores.writer import StoreWriter
from tests.pipeline.conftest import RESID

FEW = ["extract.n_rows=2000", "train.n_tokens=6400", f"extract.hook_points=['{RESID}']"]


@pytest.fixture
def folder(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a recipe that trains little. It is the working folder."""
    text = (recipe / "tiny.toml").read_text()
    train = "[train.topk]\nd_sae = 48\nk = 4\n[train.pca]\n[score]\nn_sequences = 8\n"
    (recipe / "tiny.toml").write_text(text[: text.index("[train.topk]")] + train)
    monkeypatch.chdir(recipe)
    return recipe


def run_of(folder: Path, *sets: str, replace: bool = False) -> Run:
    return Run(load_recipe("tiny.toml", [*FEW, *sets]), folder / "runs" / "r", "cpu", replace)


def first_time(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, happen: Callable[[], None]) -> None:
    """Have something happen as a function is called for the first time."""
    real, left = getattr(owner, name), [happen]

    def watched(*args: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, watched)


def fall_silent(run: Run) -> None:
    """As half a minute of standing still does."""
    for file in (run.folder / "leases" / "alive").glob("*.json"):
        file.unlink()


def digest(run: Run) -> str:
    return ActivationStore.open(run.folder / "extract" / "activations.zarr").digest


def other_model(folder: Path) -> str:
    """A setting: a model of the same shape with other weights."""
    model = Path(load_recipe("tiny.toml").extract.model)
    (folder / "other").mkdir()
    for file in model.iterdir():
        (folder / "other" / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "other" / "model.safetensors")
    save_file({k: v * 1.5 for k, v in weights.items()}, folder / "other" / "model.safetensors", {"format": "pt"})
    return f"extract.model={folder / 'other'}"


def test_an_extraction_that_was_replaced_puts_nothing_into_its_successor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = run_of(folder), run_of(folder, other_model(folder), replace=True)
    alone = Run(new.recipe, folder / "runs" / "alone", "cpu")
    run_extract(alone)

    def replaced() -> None:
        fall_silent(old)
        run_extract(new)

    first_time(monkeypatch, pipeline.extract.stage, "capture", replaced)
    with pytest.raises((StoreError, UserError), match="replaced by another process"):
        run_extract(old)
    assert digest(new) == digest(alone)
    assert not run_extract(new)
    verify(str(new.folder), repair=False)


@pytest.mark.parametrize("where", ["end_at", "claimed_shards"])
def test_an_extraction_that_was_replaced_by_one_that_is_still_at_work_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It would go on with the other one's store, or write its own description over that one's."""
    text = "extract.text.path=short.txt"  # it ends before the rows do
    (folder / "short.txt").write_text((folder / "text.txt").read_text()[:40_000])
    old, new = run_of(folder, text, "extract.n_rows=6000"), run_of(folder, other_model(folder), replace=True)
    alone = Run(new.recipe, folder / "runs" / "alone", "cpu")
    run_extract(alone)

    class Stopped(Exception):
        pass

    def replaced() -> None:
        fall_silent(old)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline.extract.stage, "capture", lambda *_: throw(Stopped()))
            with pytest.raises(Stopped):
                run_extract(new)

    owner = StoreWriter if where == "end_at" else pipeline.extract.stage
    first_time(monkeypatch, owner, where, replaced)
    with pytest.raises((StoreError, UserError)):
        run_extract(old)
    run_extract(new)
    assert digest(new) == digest(alone)


def throw(error: Exception) -> None:
    raise error


def test_replacing_waits_for_those_who_are_at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = run_of(folder), run_of(folder, other_model(folder), replace=True)
    ended: list[str] = []
    waiting = threading.Thread(target=lambda: (run_extract(new), ended.append("new")))

    def begin() -> None:
        waiting.start()
        waiting.join(1.0)

    first_time(monkeypatch, pipeline.extract.stage, "capture", begin)
    run_extract(old)
    ended.append("old")
    waiting.join()
    assert ended == ["old", "new"]
    assert not run_extract(new)


def test_a_fit_that_was_taken_over_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = run_of(folder), run_of(folder, "train.pca.n_rows=300", replace=True)
    run_extract(old)
    pca = old.folder / "train" / RESID / "pca"

    def replaced() -> None:
        fall_silent(old)
        run_train(new)

    first_time(monkeypatch, pipeline.train.stage, "provenance", replaced)
    with pytest.raises(UserError, match="made with other settings: train.pca.n_rows: 300 → 65536"):
        run_train(old)
    for name in ("plan.json", "manifest.json", "provenance.json"):
        assert json.loads((pca / name).read_text())["settings"]["pca"]["n_rows"] == 300
    assert not run_train(Run(new.recipe, new.folder, "cpu"))


def test_a_group_that_was_taken_over_before_it_began_leaves_the_finished_units_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(folder)
    run_extract(run)
    unit = run.folder / "train" / RESID / "topk-d48-k4-s0"
    kept: list[bytes] = []

    def taken_over() -> None:
        fall_silent(run)
        run_train(run)
        kept.extend((unit / name).read_bytes() for name in (logs.METRICS, "manifest.json"))

    first_time(monkeypatch, pipeline.train.group.Group, "run", taken_over)
    run_train(run)
    assert [(unit / name).read_bytes() for name in (logs.METRICS, "manifest.json")] == kept


def test_scores_that_were_taken_over_are_not_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(folder)
    run_extract(run)
    run_train(run)
    kept: list[int] = []
    file = run.folder / "score" / RESID / "pca" / "scores.json"

    def taken_over() -> None:
        fall_silent(run)
        run_score(run)
        kept.append(file.stat().st_mtime_ns)

    first_time(monkeypatch, pipeline.score.stage, "measure", taken_over)
    run_score(run)
    assert file.stat().st_mtime_ns == kept[0]


def test_replacing_a_store_takes_nothing_from_it(folder: Path) -> None:
    """Neither the size of its chunks, nor an error because it is of an older kind."""
    small = "".join(f"def walk_{i}(path): return {i}\n" for i in range(30))
    (folder / "small.txt").write_text(small)
    run, new = run_of(folder), run_of(folder, "extract.text.path=small.txt", replace=True)
    run_extract(run)
    kept = digest(run)
    with pytest.raises(UserError, match="fill no sequence"):
        run_extract(new)
    assert digest(run) == kept
    for name in ("zarr.json", "tokens/zarr.json"):
        file = run.folder / "extract" / "activations.zarr" / name
        values = json.loads(file.read_text())
        values["attributes"]["schema_version"] = 2
        file.write_text(json.dumps(values))
    more = run_of(folder, "extract.n_rows=2500", replace=True)
    assert run_extract(more)
