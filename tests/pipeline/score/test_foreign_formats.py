"""Dictionaries in other libraries' formats, beside a run's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.score.comparison import side
from pipeline.score.config import ForeignDictionary, ScoreConfig
from pipeline.score.subjects import Subject, foreign_subjects
from stores.activations import ActivationStore
from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store, planted_rows, unmix

HOOK, OTHER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
D = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of one hook point; layers.0 and layers.1 as sparsify has them, and what layers.0 was converted from."""
    make_store(tmp_path / "s.zarr", d={HOOK: D}, rows=lambda _, n, d: planted_rows(n, d))
    for layer, hook_point in enumerate((HOOK, OTHER)):
        g = torch.Generator().manual_seed(layer)
        W = torch.randn(D, 20, generator=g)
        spec = Spec("topk", D, 20, Site.at(hook_point), 3)
        FeatureDictionary(spec, W, torch.zeros(20), W.T, torch.ones(D)).save(tmp_path / f"ours-{layer}")
        theirs = tmp_path / "theirs" / f"layers.{layer}"
        convert(tmp_path / f"ours-{layer}", theirs, "sparsify", Stated())
        config = json.loads((theirs / "cfg.json").read_text())
        del config["unmix"]  # as sparsify itself leaves it
        (theirs / "cfg.json").write_text(json.dumps(config))
    return tmp_path


def subjects(folder: Path, *dictionaries: str | ForeignDictionary) -> list[Subject]:
    return foreign_subjects(ScoreConfig(dictionaries=dictionaries), ActivationStore.open(folder / "s.zarr"))


def test_a_folder_of_many_is_one_entry_and_scored_as_our_own(folder: Path) -> None:
    many = '{path = "theirs", hook_point = "blocks.{layer}.hook_resid_post"}'
    (folder / "r.toml").write_text(
        f'store = "{folder}/s.zarr"\n[train]\nbatch_size = 64\nn_tokens = 64\n[train.pca]\nn_rows = 100\n'
        f'[score]\nat_l0 = [4]\ndictionaries = ["ours-0", {many}]\n'
    )
    unmix("train", "r.toml", cwd=folder)
    done = unmix("score", "r.toml", cwd=folder)
    assert "of the 2 dictionaries in theirs 1 are at hook points of the store" in done.stdout
    rows = json.loads((folder / "runs/r/score/scores.json").read_text())["dictionaries"]
    ours, theirs = rows[1:]
    assert (ours["name"], theirs["name"]) == ("ours-0", "theirs-layers.0")
    assert theirs["method"] == "foreign topk"
    assert theirs["site"] == HOOK
    assert theirs["l0"] == ours["l0"]
    assert theirs["fvu"] == pytest.approx(ours["fvu"], abs=1e-6)


def test_without_a_hook_point_the_line_says_to_state_one(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"theirs/layers.0 is of '', no hook point .* read: state hook_point; the store has"
    ):
        subjects(folder, str(folder / "theirs" / "layers.0"))
    with pytest.raises(UserError, match=r"theirs holds 2 dictionaries, of ''; the store has blocks.0.hook_resid_post"):
        subjects(folder, str(folder / "theirs"))


def test_what_is_stated_is_in_the_digest(folder: Path) -> None:
    W = np.ones((D, 20), dtype=np.float32)
    np.savez(folder / "sae.npz", W_enc=W, b_enc=W[0], W_dec=W.T, b_dec=W[:, 0])
    path = str(folder / "sae.npz")
    stated = [(subtracts, k) for subtracts in (True, False) for k in (1, 2)]
    entries = [ForeignDictionary(path=path, hook_point=HOOK, apply_b_dec_to_input=b, k=k) for b, k in stated]
    found = [subjects(folder, entry)[0] for entry in entries]
    assert len({subject.digest for subject in found}) == 4
    assert [subject.load().spec.k for subject in found] == [1, 2, 1, 2]
    with pytest.raises(UserError, match="does not say whether b_dec is subtracted from x"):
        subjects(folder, ForeignDictionary(path=path, hook_point=HOOK))


def test_what_others_left_is_compared(folder: Path) -> None:
    found = side(str(folder / "theirs" / "layers.0"), folder / "runs")
    assert torch.equal(found.dictionary.W_dec, FeatureDictionary.load(folder / "ours-0").W_dec)
