"""A dictionary of two bases is scored as two: of what is read, and of what is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import UserError
from pipeline.score.config import ScoreConfig
from pipeline.score.similarity import matched_cosine
from pipeline.score.subjects import Subject, foreign_subjects, subjects_of
from pipeline.train.rotations.msp import random_rotation
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store
from tests.pipeline.score.made import scored

D = 6
MID, OUT = ([f"blocks.{layer}.{site}" for layer in (0, 1)] for site in ("hook_resid_mid", "hook_mlp_out"))
NAME = "jacobian_rotation-s0"


def bases(folder: Path, layer: int, **settings: Any) -> list[Subject]:
    spec = Spec("bases", D, D, Site((MID[layer],), (OUT[layer],)), d_out=D)
    R_in, R_out = (random_rotation(D, seed).float() for seed in (2 * layer, 2 * layer + 1))
    path = folder / "train" / spec.site.name / NAME
    FeatureDictionary(spec, R_in.T, torch.zeros(D), R_out, torch.zeros(D)).save(path)
    return subjects_of(path, NAME, "jacobian_rotation", settings)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """Without what layer 1 writes."""
    found = make_store(tmp_path / "s.zarr", d=dict.fromkeys([MID[0], OUT[0], MID[1]], D))
    assert isinstance(found, ActivationStore)
    return found


def test_both_are_scored_where_the_store_has_their_hook_points(store: ActivationStore, tmp_path: Path) -> None:
    subjects = [s for layer in (0, 1) for s in bases(tmp_path, layer) if s.fits(store)]
    scores = scored(tmp_path, store, subjects, at_l0=(2,))
    rows = [(row["site"], row["name"]) for row in scores["dictionaries"]]
    assert rows == [(MID[0], NAME), (OUT[0], f"{NAME}-output"), (MID[1], NAME)]
    assert all(row["fvu"] < 1e-6 < row["fvu_at_l0_2"] for row in scores["dictionaries"])
    assert all(row["signed"] for row in scores["dictionaries"])
    assert scores["sets"] == []


def test_what_a_layer_writes_is_compared_with_what_the_next_one_reads(store: ActivationStore, tmp_path: Path) -> None:
    first, second = bases(tmp_path, 0), bases(tmp_path, 1)
    written, read = first[1].load().directions, second[0].load().directions
    (pair,) = scored(tmp_path, store, [*first, second[0]], at_l0=(2,))["pairs"]
    assert pair["relation"] == "next layer"
    assert pair["site"] == f"{OUT[0]} → {MID[1]}"
    assert pair["matched_cosine"] == pytest.approx(matched_cosine(written, read, signed=True), abs=1e-4)
    assert 0 < pair["matched_floor"] < 1
    assert (pair["a"], pair["b"]) == (f"{NAME}-output", NAME)


def test_layers_of_other_settings_are_not_compared(store: ActivationStore, tmp_path: Path) -> None:
    subjects = [*bases(tmp_path, 0, k=1), bases(tmp_path, 1, k=2)[0]]
    assert scored(tmp_path, store, subjects, at_l0=(2,))["pairs"] == []


def test_bases_that_others_made_are_scored_where_the_store_has_one(store: ActivationStore, tmp_path: Path) -> None:
    folders = [bases(tmp_path, layer)[0].folder for layer in (0, 1)]
    sites = [
        [s.site.name for s in foreign_subjects(ScoreConfig(dictionaries=(str(folder),)), store)] for folder in folders
    ]
    assert sites == [[MID[0], OUT[0]], [MID[1]]]
    nowhere = make_store(tmp_path / "n.zarr", d={"blocks.5.hook_resid_mid": D})
    assert isinstance(nowhere, ActivationStore)
    with pytest.raises(UserError, match=f"{MID[1]}, {OUT[1]} is missing"):
        foreign_subjects(ScoreConfig(dictionaries=(str(folders[1]),)), nowhere)
