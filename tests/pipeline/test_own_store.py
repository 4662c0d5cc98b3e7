"""Training and scoring on rows from anywhere: no model, no text."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import stores
from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.score.results import read_row
from pipeline.train.config import TrainConfig
from pipeline.train.families.topk import TopKConfig
from pipeline.train.methods import METHODS
from pipeline.train.stage import source_of_store
from stores import ActivationStore, BatchLoader, FeatureDictionary, write_store
from stores.site import Site
from tests.conftest import planted_rows, unmix

RECIPE = """
name = "own"
store = "own.zarr"

[train]
n_tokens = 32000
batch_size = 128

[train.topk]
hook_points = "my layer"
d_sae = 32
k = 2
lr = 1e-2

[train.pca]
hook_points = "other"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a store of planted rows at two hook points that no model has, and a recipe."""
    found = tmp_path_factory.mktemp("own")
    x = planted_rows(20_000, 16)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for rows in torch.from_numpy(x).split(700):
            yield {"my layer": rows, "other": rows.flip(1)[:, :8]}

    write_store(found / "own.zarr", batches())
    (found / "own.toml").write_text(RECIPE)
    return found


def test_a_recipe_of_a_store_alone_trains_and_scores(folder: Path) -> None:
    done = unmix("run", "own.toml", cwd=folder)
    assert done.stdout.count("no language model is known to have made the store, so cross-entropy is left out") == 1
    names = {p.relative_to(folder / "runs/own/train").as_posix() for p in folder.glob("runs/own/train/*/*/")}
    assert {"my layer/topk-d32-k2-s0", "other/pca"} <= names
    row = read_row(folder / "runs/own/score/my layer/topk-d32-k2-s0", "topk-d32-k2-s0")
    assert row["fvu"] < 0.3
    assert row["l0"] == pytest.approx(2, abs=0.1)
    assert not [key for key in row if key.startswith("ce")]
    assert "nothing to do" in unmix("run", "own.toml", cwd=folder).stdout
    assert "done" in unmix("status", "own.toml", cwd=folder).stdout


def test_python_learns_from_it_without_a_recipe(folder: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", {"x": planted_rows(20_000, 16)})
    site, config = Site.at("x"), TrainConfig(n_tokens=32_000, batch_size=128)

    source = source_of_store(config, store, site, weights=lambda: pytest.fail("topk needs no model"))
    method = METHODS["topk"]
    assert method.learner is not None
    learner = method.learner(TopKConfig(d_sae=32, k=2, lr=1e-2), source, "cpu")
    for batch in BatchLoader(store, site.reads, config.batch_size, seed=0, n_steps=config.n_steps):
        learner.step(batch.x["x"].float(), batch.step, config.n_steps)
    learner.to_dictionary({"method": "topk"}).save(tmp_path / "dictionary")
    dictionary = FeatureDictionary.load(tmp_path / "dictionary")
    x = torch.from_numpy(np.concatenate(list(store.heldout("x", 1000))))
    fvu = ((dictionary(x) - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert float(fvu) < 0.3


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(stores.__file__).parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (recipe,) = (toml for toml in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "own.zarr" in toml)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    (tmp_path / "own.toml").write_text(recipe)
    unmix("run", "own.toml", "--set", "train.n_tokens=4096", cwd=tmp_path)
    sites = {p.name for p in (tmp_path / "runs/own/score").iterdir() if p.is_dir()}
    assert sites == {"hidden", "hidden--output"}


def test_what_needs_a_model_says_that_there_is_none(folder: Path) -> None:
    description = ActivationStore.open(folder / "own.zarr").description
    with pytest.raises(UserError, match="no language model is known to have made the store"):
        ModelFiles.of_store(description)
    done = unmix("train", "own.toml", "--set", "train.topk.init=writer", "--name", "w", cwd=folder, check=False)
    assert done.returncode == 2
    assert "no language model is known to have made the store: take methods and settings that need none" in done.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('name = "x"\n', "extract is missing: the recipe x has no store either"),
        (
            'name = "x"\nstore = "nowhere.zarr"\n',
            "store: no activation store at nowhere.zarr: extract one there, or write",
        ),
    ],
)
def test_a_recipe_without_rows_is_one_line(folder: Path, lines: str, message: str) -> None:
    (folder / "x.toml").write_text(f"{lines}[train]\nn_tokens = 1000\n")
    for command in ("train", "status"):
        done = unmix(command, "x.toml", cwd=folder, check=False)
        assert done.returncode == 2
        assert message in done.stderr
