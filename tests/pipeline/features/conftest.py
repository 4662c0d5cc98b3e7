"""A tiny run that is reported, once for all tests of the stage."""

import shutil
from pathlib import Path

import pytest

from pipeline.stages import Run, load_recipe, run_extract, run_report, run_score, run_train
from tests.pipeline.score.conftest import mlps, model, tokens  # noqa: F401

RESID = "blocks.1.hook_resid_post"
RECIPE = f"""[extract]
model = "{{model}}"
hook_points = ["{RESID}"]
context = 32
n_rows = 5000
chunk_rows = 310
shard_chunks = 2
heldout_fraction = 0.3
dtype = "float32"
text = {{{{ source = "files", path = "text.txt" }}}}
[train]
batch_size = 128
n_tokens = 6400
[train.topk]
d_sae = 48
k = 4
lr = 5e-3
[train.pca]
n_rows = 2000
[score]
n_sequences = 4
[report]
n_rows = 930
n_label_rows = 1240
batch_size = 100
n_top = 3
n_sampled = 10
"""


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe whose run is reported."""
    folder = tmp_path_factory.mktemp("reported")
    function = "def walk_{0}(path):\n    # files of {0}\n    return [os.listdir(path)[{0}:], 'walk']\n\n"
    (folder / "text.txt").write_text("".join(map(function.format, range(1, 801))))
    (folder / "tiny.toml").write_text(RECIPE.format(model=tiny_model))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = run_of(folder)
        assert all(do(run) for do in (run_extract, run_train, run_score, run_report))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy. It is the working folder."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(folder: Path, *sets: str, replace: bool = False) -> Run:
    return Run(load_recipe(str(folder / "tiny.toml"), list(sets)), folder / "runs" / "tiny", "cpu", replace)
