"""Dictionaries that others made, beside a run's own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stores.dictionary import FeatureDictionary, Spec
from tests.conftest import make_store, planted_rows, unmix

HOOK = "blocks.0.hook_resid_post"
D = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of planted rows, a recipe that trains PCA on it, trained."""
    make_store(tmp_path / "s.zarr", d={HOOK: D}, rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[extract]\nhook_points = ["{HOOK}"]\nn_rows = 1\n'
        "[train]\nbatch_size = 64\nn_tokens = 64\n[train.pca]\nn_rows = 100\n[score]\nat_l0 = [4]\n"
    )
    unmix("train", "r.toml", cwd=tmp_path)
    return tmp_path


def foreign(folder: Path, seed: int = 0, d_sae: int = 20, architecture: str = "standard", **provenance: object) -> Path:
    """A dictionary as another library might have left it: without provenance.json, unless something is to stand in it."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(D, d_sae, generator=generator)
    FeatureDictionary(Spec(architecture, D, d_sae, HOOK), W, torch.zeros(d_sae), W.T, torch.zeros(D)).save(folder)
    (folder / "provenance.json").unlink()
    if provenance:
        (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def alter(folder: Path, file: str, change: Callable[[dict], object]) -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


def score(folder: Path, *dictionaries: str, check: bool = True, cwd: Path | None = None):
    sets = [f"score.dictionaries={json.dumps(dictionaries)}"] if dictionaries else []
    arguments = ["score", str(folder / "r.toml"), "--runs", str(folder / "runs")]
    return unmix(*arguments, *(x for s in sets for x in ("--set", s)), cwd=cwd or folder, check=check)


def scores(folder: Path) -> dict:
    return json.loads((folder / "runs" / "r" / "score" / "scores.json").read_text())


def refused(done, message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_dot_is_called_as_its_folder_and_removes_nothing(folder: Path) -> None:
    score(folder)
    kept = folder / "runs" / "r" / "score" / HOOK / "notes.txt"
    kept.write_text("mine")
    here = foreign(folder / "theirs")
    score(folder, ".", cwd=here)
    assert kept.read_text() == "mine"
    assert [row["name"] for row in scores(folder)["dictionaries"]] == ["pca", "theirs"]


@pytest.mark.parametrize("name", [".hidden", "tab\there"])
def test_a_folder_whose_name_is_none_is_refused(folder: Path, name: str) -> None:
    foreign(folder / name)
    refused(score(folder, f"./{name}", check=False), "the folder is called")
    assert not (folder / "runs" / "r" / "score").exists()


@pytest.mark.parametrize("hook", ["../../x", "/tmp/x", "..", "a\0b"])
def test_a_hook_point_that_leads_elsewhere_is_refused(folder: Path, hook: str) -> None:
    alter(foreign(folder / "theirs"), "cfg.json", lambda c: c["metadata"].update(hook_name=hook))
    refused(score(folder, "theirs", check=False), "theirs/cfg.json: metadata.hook_name is called ")
    assert not (folder / "runs" / "r" / "score").exists()


def test_a_method_that_is_no_name_is_refused(folder: Path) -> None:
    foreign(folder / "theirs", method="../x")
    refused(score(folder, "theirs", check=False), 'theirs/provenance.json: method is called "../x"')
