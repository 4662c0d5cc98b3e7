from pathlib import Path

import pytest
import torch

from pipeline.train import checkpoint


def saved(root: Path, steps: dict[str, list[int]]) -> dict[str, Path]:
    for name, own in steps.items():
        for step in own:
            checkpoint.write(root / name, step, {"x": torch.tensor([float(step)])})
    return {name: root / name for name in steps}


def test_write_read_and_keep(tmp_path: Path) -> None:
    folders = saved(tmp_path, {"a": [3, 12]})
    assert checkpoint.steps(folders["a"]) == [3, 12]
    assert checkpoint.read(folders["a"], 12)["x"].item() == 12
    saved(tmp_path, {"a": [20, 40]})
    checkpoint.prune(folders["a"], 20)  # 40 is of a process that died before the others had it
    assert checkpoint.steps(folders["a"]) == [12, 20]
    assert checkpoint.steps(tmp_path / "none") == []


def test_all_go_on_from_the_newest_step_that_all_have(tmp_path: Path) -> None:
    # Killed while saving step 20: only a had written it, and none had removed step 10.
    folders = saved(tmp_path, {"a": [10, 20], "b": [10], "c": [10]})
    assert checkpoint.groups(folders) == [(10, ["a", "b", "c"])]
    # Killed while removing step 10.
    folders = saved(tmp_path / "2", {"a": [20], "b": [10, 20]})
    assert checkpoint.groups(folders) == [(20, ["a", "b"])]


def test_new_ones_start_at_the_beginning(tmp_path: Path) -> None:
    assert checkpoint.groups(saved(tmp_path, {"a": [10], "new": []})) == [(10, ["a"]), (0, ["new"])]
    assert checkpoint.groups(saved(tmp_path / "2", {"new": []})) == [(0, ["new"])]
    assert checkpoint.groups({}) == []


def test_without_a_common_step_each_goes_on_from_its_own(tmp_path: Path) -> None:
    assert checkpoint.groups(saved(tmp_path, {"a": [10], "b": [20], "c": [10]})) == [(10, ["a", "c"]), (20, ["b"])]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_is_told_and_the_one_before_serves(tmp_path: Path, capsys, damage) -> None:
    folders = saved(tmp_path, {"a": [10, 20], "b": [10, 20]})
    file = next(folders["b"].glob("step-000000020-*"))
    damage(file)
    assert checkpoint.groups(folders) == [(10, ["a", "b"])]
    assert f"{file} is damaged" in capsys.readouterr().out
    checkpoint.write(folders["b"], 20, {"x": torch.tensor([20.0])})
    assert checkpoint.groups(folders) == [(20, ["a", "b"])]
    # None is left: it starts again, beside the others.
    for file in folders["b"].glob("step-*"):
        damage(file)
    assert checkpoint.groups(folders) == [(20, ["a"]), (0, ["b"])]
