import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.unit_files import damage, repair
from pipeline.units import Unit, pending


def unit(folder: Path, k: int = 32, store: str = "aa" * 32) -> Unit:
    return Unit("train", "topk", folder, 1, {"topk": {"k": k, "lr": None}}, {"store_digest": store})


def test_new_started_done(tmp_path: Path) -> None:
    one = unit(tmp_path / "u")
    assert one.state() == "new"
    one.begin()
    assert one.state() == "started"
    assert pending([one], replace=False) == [one]
    one.finish("cpu", 1.0, {"fvu": 0.1})
    assert one.state() == "done"
    assert json.loads((tmp_path / "u" / "manifest.json").read_text())["headline"] == {"fvu": 0.1}
    assert pending([one], replace=False) == []


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    unit(tmp_path / "u").begin()
    with pytest.raises(
        UserError, match=r"train.topk.k: 32 → 64\. Use --replace .*`unmix train RECIPE --replace`.* or --name"
    ):
        unit(tmp_path / "u", k=64).state()
    with pytest.raises(UserError, match=r"input store_digest: aaaaaaaaaaaa… → bbbbbbbbbbbb…"):
        unit(tmp_path / "u", store="bb" * 32).state()


def test_a_refusal_is_one_line_whatever_lies_there(tmp_path: Path) -> None:
    other = replace(unit(tmp_path / "u"), settings={"topk": {"k": "a\nb"}})
    other.begin()
    with pytest.raises(UserError, match=r"train.topk.k: a b → 32\. ") as error:
        unit(tmp_path / "u").state()
    assert "\n" not in str(error.value)


def test_a_refusal_changes_nothing_and_replace_removes_only_what_conflicts(tmp_path: Path) -> None:
    kept, old = unit(tmp_path / "kept"), unit(tmp_path / "old")
    for one in (kept, old):
        one.begin()
        one.finish("cpu", 1.0)
    wanted = [kept, unit(tmp_path / "old", k=64)]
    with pytest.raises(UserError):
        pending(wanted, replace=False)
    assert old.state() == "done"
    assert pending(wanted, replace=True) == wanted[1:]
    assert old.state() == "done"  # nothing is removed before it begins
    wanted[1].begin(replace=True)
    assert wanted[1].state() == "started"
    assert kept.state() == "done"
    wanted[1].finish("cpu", 1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "old"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_without_a_plan_is_refused_and_kept(tmp_path: Path, replace: bool) -> None:
    one = unit(tmp_path / "u")
    kept = one.folder / "checkpoints" / "step-000000007.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"of nobody knows what")
    with pytest.raises(UserError, match="u holds checkpoints and no plan.json"):
        pending([one], replace)
    with pytest.raises(UserError, match="holds checkpoints and no plan.json"):
        one.begin(replace=replace)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [kept]


OTHER = '{"stage": "extract", "name": "activations", "key": "1", "settings": {}, "inputs": {}}'


@pytest.mark.parametrize("plan", ["", "[]", "{}", OTHER, '{"key": 1, "settings": 2, "inputs": {}}'])
def test_a_damaged_plan_is_named_and_nothing_is_removed(tmp_path: Path, plan: str) -> None:
    one = unit(tmp_path / "u")
    one.folder.mkdir()
    (one.folder / "plan.json").write_text(plan)
    with pytest.raises(UserError, match=r"plan.json is damaged, .*: run `mv .*u .*u.aside`, or use --name"):
        pending([one], replace=True)
    assert (one.folder / "plan.json").read_text() == plan


def test_what_is_resumed_is_kept_and_a_process_that_died_before_its_plan_is_no_stranger(tmp_path: Path) -> None:
    one = unit(tmp_path / "u")
    one.folder.mkdir()
    (one.folder / f".plan.json.{'a' * 32}.partial").write_bytes(b"{")
    one.begin()
    (one.folder / "checkpoints").mkdir()
    one.begin(done=7)
    assert (one.folder / "checkpoints").exists()


def test_what_is_replaced_lies_aside_until_its_successor_is_whole(tmp_path: Path) -> None:
    old = unit(tmp_path / "u")
    old.begin()
    (old.folder / "weights").write_bytes(b"old")
    mine = tmp_path / ".u.notes.replaced"
    mine.mkdir()
    new = unit(tmp_path / "u", k=64)
    new.begin(replace=True)
    assert [p.read_bytes() for p in tmp_path.glob(".u.*.replaced/weights")] == [b"old"]
    unit(tmp_path / "u", k=64).begin()  # the first process died, another goes on
    new.finish("cpu", 1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".u.notes.replaced", "u"]


def test_what_a_replacement_left_is_swept_later_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit(tmp_path / "u").begin()
    new = unit(tmp_path / "u", k=64)
    new.begin(replace=True)
    with monkeypatch.context() as patch:
        patch.setattr(Unit, "sweep", lambda self: None)  # killed after its manifest
        new.finish("cpu", 1.0)
    assert len(list(tmp_path.iterdir())) == 2
    assert pending([new], replace=False) == []
    assert [p.name for p in tmp_path.iterdir()] == ["u"]


def test_a_link_in_a_units_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "u").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="another file in its place"):
        unit(tmp_path / "run" / "u").begin()


def finished(folder: Path) -> Unit:
    one = unit(folder)
    one.begin()
    (folder / "output").mkdir()
    for name in ("weights", "output/weights"):
        (folder / name).write_bytes(name.encode() * 9)
    one.finish("cpu", 1.0)
    assert one.state() == "done"
    return one


@pytest.mark.parametrize("name", ["weights", "output/weights", "manifest.json"])
@pytest.mark.parametrize("hurt", [lambda p: p.unlink(), lambda p: p.write_bytes(b""), lambda p: os.truncate(p, 7)])
def test_a_unit_of_which_something_is_missing_or_cut_is_not_done(tmp_path: Path, name: str, hurt: Callable) -> None:
    one = finished(tmp_path / "u")
    hurt(one.folder / name)
    assert one.state() == "started"


def test_an_altered_file_is_named_and_taken_back(tmp_path: Path) -> None:
    one = finished(tmp_path / "u")
    assert list(damage(one.folder)) == []
    (one.folder / "weights").write_bytes(b"Weights" * 9)
    assert [found.what.split(": ")[0] for found in damage(one.folder)] == [f"{one.folder / 'weights'} was altered"]
    repair(one.folder)
    assert one.state() == "started"


def test_a_lost_or_damaged_plan_of_a_finished_unit_is_read_from_its_manifest(tmp_path: Path) -> None:
    one = finished(tmp_path / "u")
    (one.folder / "plan.json").write_text("{")
    assert one.state() == "done"
    (one.folder / "plan.json").unlink()
    assert one.state() == "done"
    with pytest.raises(UserError, match="32 → 64"):
        unit(one.folder, k=64).state()


@pytest.mark.parametrize("hurt", ["", '{"key": 3}', "altered"])
def test_a_finished_units_damaged_plan_is_found_and_written_again(tmp_path: Path, hurt: str) -> None:
    one = finished(tmp_path / "u")
    plan = (one.folder / "plan.json").read_text()
    (one.folder / "plan.json").write_text(plan.replace('"k": 32', '"k": 33') if hurt == "altered" else hurt)
    assert one.state() == "done"
    assert [found for found in damage(one.folder) if "plan.json is not the one" in found.what]
    assert not repair(one.folder)
    assert (one.folder / "plan.json").read_text() == plan
    (one.folder / "plan.json").write_text(hurt)
    (one.folder / "weights").write_bytes(b"")
    assert repair(one.folder)
    one.begin()
    assert one.state() == "started"


def test_a_finished_unit_with_the_plan_of_another_one_is_done_and_gets_its_own_back(tmp_path: Path) -> None:
    one, other = finished(tmp_path / "u"), replace(unit(tmp_path / "v"), inputs={"store_digest": "bb"})
    other.begin()
    plan = (one.folder / "plan.json").read_bytes()
    (one.folder / "plan.json").write_bytes((other.folder / "plan.json").read_bytes())
    assert one.state() == "done"
    assert not repair(one.folder)
    assert (one.folder / "plan.json").read_bytes() == plan


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = finished(tmp_path / "u")
    monkeypatch.setattr("pipeline.unit_files.file_digest", lambda path: os.stat(path / "no folder"))
    found = [found for found in damage(one.folder) if "cannot be read: Not a directory" in found.what]
    assert len(found) > 1
    assert all(one.passing for one in found)
    assert not repair(one.folder)  # it may be whole: days of training are not made again for a server that was away
    assert (one.folder / "manifest.json").exists()


def test_a_manifest_that_does_not_know_its_own_plan_is_unmade_and_the_plan_stays(tmp_path: Path) -> None:
    one = finished(tmp_path / "u")
    plan, manifest = (one.folder / "plan.json").read_bytes(), (one.folder / "manifest.json").read_text()
    (one.folder / "manifest.json").write_text(manifest.replace('"k": 32', '"k": 33'))
    assert repair(one.folder)
    assert (one.folder / "plan.json").read_bytes() == plan
    assert one.state() == "started"


@pytest.mark.parametrize("started", ["", "{}", '{"time": "x", "done": 0}'])
def test_a_damaged_start_tells_no_rate(tmp_path: Path, started: str) -> None:
    one = unit(tmp_path / "u")
    one.begin()
    (one.folder / "started.json").write_text(started)
    assert one.rate(3, one.folder / "plan.json") is None


def test_who_was_replaced_does_not_finish(tmp_path: Path) -> None:
    one, other = unit(tmp_path / "u"), unit(tmp_path / "u", k=64)
    one.begin()
    other.begin(replace=True)
    with pytest.raises(UserError, match="was replaced by another process"):
        one.finish("cpu", 1.0)
    assert other.state() == "started"


@pytest.mark.parametrize("files", ["[]", '{"a": []}', '{"a": 3}', '{"a": ["1"]}', '{"%s": [1, "0"]}' % ("x" * 300)])
def test_a_manifest_whose_files_are_no_such_list_vouches_for_nothing(tmp_path: Path, files: str) -> None:
    one = unit(tmp_path / "u")
    one.begin()
    one.finish("cpu", 1.0)
    (one.folder / "manifest.json").write_text(f'{{"files": {files}}}')
    assert one.state() == "started"
    assert list(damage(one.folder))


def test_a_unit_that_another_process_is_beginning_is_new_or_started_and_no_strangers(tmp_path: Path) -> None:
    units = [unit(tmp_path / str(n)) for n in range(300)]
    seen: set[str] = set()
    beginner = threading.Thread(target=lambda: [one.begin() for one in units])
    beginner.start()
    for one in units:
        while (state := one.state()) != "started":
            seen.add(state)
    beginner.join()
    assert seen <= {"new"}
