"""What stands on pages to be typed is run, at a small size: the commands of CHOOSING.md, and the tutorial."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ("extract.n_rows=20000", "train.checkpoint_every_s=600")
pytestmark = pytest.mark.slow


@pytest.fixture
def environment() -> dict[str, str]:
    """In which `unmix` and `python` are those of the tests."""
    own = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{own}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1"}


def test_commands_to_choose_by_run(tmp_path: Path, environment: dict[str, str]) -> None:
    """Each run has a length of its own, as on the page, and goes on the store of the run that it names."""
    page = (ROOT / "pipeline" / "train" / "CHOOSING.md").read_text()
    commands = re.findall(r"^    \.venv/bin/(.+)$", page, re.MULTILINE)
    assert len(commands) == 4
    for i, command in enumerate(commands):
        argv = shlex.split(command)
        if argv[0] == "unmix":
            for own in (*SMALL, f"train.n_tokens={4096 + 1024 * i}"):
                argv += ["--set", own]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "| 3,072 features |" in done.stdout


def test_the_tutorial_runs(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install -e '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]'")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "pipeline" / "tutorial.ipynb", as_version=4)
    saved = str(notebook)
    assert str(Path.home()) not in saved
    assert "site-packages" not in saved
    sizes = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert sizes.source.startswith("n_rows, n_tokens = ")
    sizes.source = "n_rows, n_tokens = 40_000, 40_000"
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    texts = ["".join(out.get("text", "") for out in cell.get("outputs", [])) for cell in notebook.cells]
    told = next(text for text in texts if "reconstructed: " in text)
    before, spliced, after = (float(x) for x in re.findall(r"(?:as it is|reconstructed|afterwards): ([\d.]+)", told))
    assert before == after < spliced
