from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.units import Unit, pending


def unit(folder: Path, k: int = 32, store: str = "aa" * 32) -> Unit:
    return Unit("train", "topk", folder, 1, {"topk": {"k": k, "lr": None}}, {"store_digest": store})


def test_new_started_done(tmp_path: Path) -> None:
    one = unit(tmp_path / "u")
    assert one.state() == "new"
    one.begin()
    assert one.state() == "started"
    assert pending([one], replace=False) == [one]
    one.headline["fvu"] = 0.1
    one.finish("cpu", 1.0)
    assert one.state() == "done"
    assert pending([one], replace=False) == []


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    unit(tmp_path / "u").begin()
    with pytest.raises(UserError, match=r"train.topk.k: 32 → 64\. Use --replace .* or --name"):
        unit(tmp_path / "u", k=64).state()
    with pytest.raises(UserError, match=r"input store_digest: aaaaaaaaaaaa… → bbbbbbbbbbbb…"):
        unit(tmp_path / "u", store="bb" * 32).state()


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
    wanted[1].begin()
    assert wanted[1].state() == "started"
    assert kept.state() == "done"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "old"]


def test_beginning_removes_what_lies_there_without_a_plan_and_keeps_what_it_resumes(tmp_path: Path) -> None:
    one = unit(tmp_path / "u")
    (one.folder / "checkpoints").mkdir(parents=True)
    (one.folder / "checkpoints" / "step-000000007.safetensors").write_bytes(b"of other settings")
    one.begin()
    assert not (one.folder / "checkpoints").exists()
    (one.folder / "checkpoints").mkdir()
    one.begin(done=7)
    assert (one.folder / "checkpoints").exists()
