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


def shared(root: Path, step: int, rows: list[int]) -> dict[str, torch.Tensor]:
    """A checkpoint that one process for each of the numbers has written, which has so many rows. Returns the whole."""
    whole = {
        "model.W": torch.arange(step, step + 3.0 * sum(rows)).view(-1, 3),
        "adam.W.step": torch.tensor(float(step)),
    }
    parts = []
    for rank, own in enumerate(whole["model.W"].split(rows)):
        state = {"model.W": own} | ({} if rank else {"adam.W.step": whole["adam.W.step"]})
        parts.append(checkpoint.write_part(root, step, state, rank))
    checkpoint.join(root, step, parts, ["model.W"])
    return whole


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("rows", [[4], [2, 3], [1, 1, 5]])
def test_parts_of_several_processes_are_read_as_a_whole_or_as_what_one_holds(tmp_path: Path, rows: list[int]) -> None:
    whole = shared(tmp_path, 10, rows)
    assert checkpoint.sound(tmp_path) == [10]
    assert_same(checkpoint.read(tmp_path, 10), whole)
    own = checkpoint.read(tmp_path, 10, lambda name, x: x[1:3] if name == "model.W" else x)
    assert_same(own, whole | {"model.W": whole["model.W"][1:3]})


def test_parts_count_once_they_are_joined(tmp_path: Path) -> None:
    shared(tmp_path, 10, [2, 3])
    checkpoint.write_part(tmp_path, 20, {"model.W": torch.zeros(2, 3)}, 0)
    assert checkpoint.groups({"a": tmp_path}) == [(10, ["a"])]


def test_a_manifest_with_any_other_bit_is_damaged_and_breaks_nothing(tmp_path: Path) -> None:
    state = {"model.W_dec": torch.zeros(2, 3)}
    checkpoint.join(
        tmp_path, 20, [checkpoint.write_part(tmp_path, 20, state, rank) for rank in (0, 1)], ["model.W_dec"]
    )
    manifest = next(tmp_path.glob("*.json"))
    data = manifest.read_bytes()
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        manifest.write_bytes(flipped)
        assert checkpoint.sound(tmp_path) == []
    manifest.write_bytes(data)
    assert checkpoint.sound(tmp_path) == [20]


def test_parts_go_with_their_checkpoint(tmp_path: Path) -> None:
    checkpoint.write_part(tmp_path, 5, {"model.W": torch.zeros(2, 3)}, 0)  # of a process that died
    whole = {step: shared(tmp_path, step, [2, 3]) for step in (10, 20, 30)}
    checkpoint.prune(tmp_path, 30)
    assert checkpoint.steps(tmp_path) == [20, 30]
    assert len(list(tmp_path.iterdir())) == 2 * (1 + 2)
    assert_same(checkpoint.read(tmp_path, 20), whole[20])
    for step in (40, 50):  # of one process that goes on
        checkpoint.write(tmp_path, step, whole[30])
        checkpoint.prune(tmp_path, step)
    assert sorted(path.name[:14] for path in tmp_path.iterdir()) == ["step-000000040", "step-000000050"]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("which", ["step-000000020-*", "part-000000020-00001-*"])
def test_of_parts_that_are_damaged_or_gone_the_checkpoint_before_serves(tmp_path: Path, capsys, damage, which) -> None:
    whole = shared(tmp_path, 10, [2, 3])
    shared(tmp_path, 20, [2, 3])
    damage(next(tmp_path.glob(which)))
    assert checkpoint.groups({"a": tmp_path}) == [(10, ["a"])]
    assert ("is damaged" in capsys.readouterr().out) == ((damage, which[:4]) != (Path.unlink, "step"))
    assert_same(checkpoint.read(tmp_path, 10), whole)
    assert_same(shared(tmp_path, 20, [3, 2]), checkpoint.read(tmp_path, 20))
    assert checkpoint.sound(tmp_path) == [10, 20]
