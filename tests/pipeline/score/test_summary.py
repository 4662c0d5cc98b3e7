"""The table and the pictures of a run: whole or not there, whoever else makes them, and damage is told with the way out."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import kill_at, make_store, planted_rows, start, unmix

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two dictionaries, scored."""
    tmp_path = tmp_path_factory.mktemp("made")
    make_store(tmp_path / "s.zarr", d={HOOK: 12}, rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[extract]\nhook_points = ["{HOOK}"]\nn_rows = 1\n'
        "[train]\nbatch_size = 64\nn_tokens = 640\n[train.topk]\nd_sae = 24\nk = 2\nseed = [0, 1]\n"
    )
    unmix("train", "r.toml", cwd=tmp_path)
    unmix("score", "r.toml", cwd=tmp_path)
    return tmp_path


@pytest.fixture
def scored(made: Path, tmp_path: Path) -> Path:
    """A run folder, a copy."""
    for name in ("r.toml", "runs"):
        copy = shutil.copytree if (made / name).is_dir() else shutil.copy2
        copy(made / name, tmp_path / name)
    return tmp_path / "runs" / "r"


def results(run: Path) -> dict[str, bytes]:
    """What the stage leaves, but for times."""
    files = (p for p in (run / "score").rglob("*") if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(run)): p.read_bytes() for p in files}


def lose_summary(run: Path) -> None:
    (run / "score" / "scores.json").unlink()
    for picture in (run / "score").rglob("*.png"):
        picture.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frontier", "mmcs"])
def test_a_picture_is_there_whole_or_not_at_all(scored: Path, name: str) -> None:
    whole = results(scored)
    lose_summary(scored)
    kill_at(f"*/{name}.png", 1, "score", "r.toml", cwd=scored.parents[1])
    assert not (scored / "score" / HOOK / f"{name}.png").exists()
    unmix("score", "r.toml", cwd=scored.parents[1])
    assert {k: v for k, v in results(scored).items() if ".partial" not in k} == whole


def test_curves_are_there_whole_or_not_at_all(scored: Path) -> None:
    curves = scored / "train" / HOOK / "curves.png"
    curves.unlink()
    arguments = "train", "r.toml", "--set", "train.topk.seed=[0, 1, 2]"
    kill_at("*/curves.png", 1, *arguments, cwd=scored.parents[1])
    assert not curves.exists()


def test_two_processes_at_once_end_with_the_same_files(scored: Path) -> None:
    whole = results(scored)
    for unit in (scored / "score" / HOOK).glob("*/manifest.json"):
        unit.unlink()
    lose_summary(scored)
    both = [start("score", "r.toml", cwd=scored.parents[1]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert results(scored) == whole


def test_a_damaged_summary_is_made_again(scored: Path) -> None:
    whole = results(scored)
    (scored / "score" / "scores.json").write_text("[")
    unmix("score", "r.toml", cwd=scored.parents[1])
    assert results(scored) == whole


@pytest.mark.parametrize("name", ["scores.json", "histograms.npz"])
@pytest.mark.parametrize("what", ["zeros", "other"])
def test_a_damaged_row_is_told_with_the_command_that_heals(scored: Path, name: str, what: str) -> None:
    """Of the same size, so that the manifest does not see it."""
    whole, file = results(scored), scored / "score" / HOOK / "topk-d24-k2-s1" / name
    data = file.read_bytes()
    other = json.dumps({"name": "topk-d24-k2-s1"}).encode() if name == "scores.json" else data[: len(data) // 2]
    file.write_bytes(bytes(len(data)) if what == "zeros" else other.ljust(len(data)))
    (scored / "score" / "scores.json").unlink()
    cwd = scored.parents[1]
    done = unmix("score", "r.toml", cwd=cwd, check=False)
    assert done.returncode == 2
    assert f"topk-d24-k2-s1/{name} is damaged: run `rm " in done.stderr
    command = re.search("`(.*)`", done.stderr)
    assert command
    subprocess.run(command[1], shell=True, check=True, cwd=cwd)
    unmix("score", "r.toml", cwd=cwd)
    assert results(scored) == whole


def test_a_row_that_is_missing_is_made_again(scored: Path) -> None:
    whole = results(scored)
    (scored / "score" / HOOK / "topk-d24-k2-s1" / "scores.json").unlink()
    (scored / "score" / "scores.json").unlink()
    unmix("score", "r.toml", cwd=scored.parents[1])
    assert results(scored) == whole
