"""The wheel: what is in it, and the main job from it in an environment that has nothing else."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "scripts" / "constraints.txt"
# The demo with a tenth of its rows and a sixteenth of its training, so that the whole path takes a minute.
SHORT = ["extract.n_rows=45000", "train.n_tokens=30720", "train.topk.d_sae=256", "train.relu_l1.d_sae=256",
         "train.rotation.n_iterations=2", "train.jacobian_rotation.n_iterations=2"]  # fmt: skip

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As a user has it who knows nothing of this repository."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)


def pip(python: Path | str, *arguments: str | Path, cwd: Path) -> None:
    """Skips: pip cannot reach what it is asked for."""
    done = run(python, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)
    if done.returncode and re.search("No matching distribution|Connection|NewConnectionError|Retrying", done.stderr):
        pytest.skip(f"pip reaches no registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy of the files: building leaves folders beside them."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pipeline", "stores", "tests", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip(sys.executable, "wheel", "--no-deps", "--quiet", "--wheel-dir", made, source, cwd=made)
    (found,) = made.glob("unmix-*.whl")
    return found


def files(suffixes: Sequence[str]) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in ("pipeline", "stores")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_it_holds_the_packages_with_all_that_they_read_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = message_from_bytes(archive.read(metadata))
        (points,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt"))
    everything = {name for name in files([".py", ".toml", ".typed", ".json", ".safetensors", ".js", ".html", ".css"])}
    assert names == everything
    assert {"pipeline/py.typed", "stores/py.typed", "pipeline/recipes/demo.toml"} <= names
    assert said["Name"] == "unmix"
    assert said["Version"] in (ROOT / ".github" / "CHANGELOG.md").read_text()
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "MIT"
    assert "unmix = pipeline.cli:main" in points


def test_the_main_job_runs_from_it_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    assert run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path).returncode == 0
    python, unmix = (tmp_path / "env" / "bin" / name for name in ("python", "unmix"))
    (torch,) = re.findall(r"^torch==\S+", CONSTRAINTS.read_text(), re.MULTILINE)
    pip(python, "install", "--quiet", torch, cwd=tmp_path)
    pip(python, "install", "--quiet", "--constraint", CONSTRAINTS, wheel, cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    sets = [part for setting in SHORT for part in ("--set", setting)]
    for stage in ("extract", "train", "score"):
        done = run(unmix, stage, "demo", *sets, cwd=tmp_path / "elsewhere")
        assert done.returncode == 0, done.stderr
        assert f"{stage}: done" in done.stdout
    assert (tmp_path / "elsewhere" / "runs" / "demo" / "score" / "scores.json").exists()
    code = "import stores, sys; sys.exit('transformers' in sys.modules or not stores.__file__.startswith(sys.prefix))"
    assert run(python, "-c", code, cwd=tmp_path / "elsewhere").returncode == 0
