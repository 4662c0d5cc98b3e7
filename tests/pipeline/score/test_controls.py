"""A recipe that asks for controls, trained and scored on planted features."""

import json
from pathlib import Path

import numpy as np
import pytest

from stores.dictionary import FeatureDictionary
from tests.conftest import make_store, planted_rows, unmix

pytestmark = pytest.mark.slow

HOOK = "blocks.0.hook_resid_post"
FREE, DECODER, ENCODER, COVARIANCE = (
    "topk-d32-k2",
    "topk-d32-k2-frozen_decoder",
    "topk-d32-k2-frozen_encoder",
    "covariance-d32-k2",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    make_store(folder / "s.zarr", d={HOOK: 16}, rows=lambda _, n, d: planted_rows(n, d))
    (folder / "r.toml").write_text(
        f'store = "{folder}/s.zarr"\n[extract]\nhook_points = ["{HOOK}"]\nn_rows = 1\n'
        "[train]\nbatch_size = 64\nn_tokens = 6400\ncontrols = true\n"
        "[train.topk]\nd_sae = 32\nk = 2\nseed = [0, 1, 2]\nlr = 1e-2\n[train.pca]\n"
    )
    unmix("train", "r.toml", cwd=folder)
    unmix("score", "r.toml", cwd=folder)
    return folder / "runs" / "r"


def test_each_group_stands_beside_its_controls_and_is_better(run: Path) -> None:
    scores = json.loads((run / "score" / "scores.json").read_text())
    groups = {group["name"]: group for group in scores["groups"]}
    assert set(groups) == {FREE, DECODER, ENCODER, COVARIANCE, "pca"}
    assert set(groups[FREE]["controls"]) == {DECODER, ENCODER, COVARIANCE}
    rows = {row["name"]: row for row in scores["dictionaries"]}
    for name in (FREE, DECODER, ENCODER, COVARIANCE):
        fvu = [rows[f"{name}-s{seed}"]["fvu"] for seed in range(3)]
        assert groups[name]["scores"]["fvu"]["mean"] == pytest.approx(np.mean(fvu), abs=1e-6)
        assert groups[name]["scores"]["fvu"]["std"] == pytest.approx(np.std(fvu, ddof=1), abs=1e-6)
    margins = {c["score"]: c for c in scores["comparisons"] if (c["a"], c["relation"]) == (FREE, "control")}
    assert {"fvu", "mmcs"} <= set(margins)
    for score in ("fvu", "mmcs"):
        assert margins[score]["apart"]
        assert margins[score]["difference"] > 0


def test_a_frozen_decoder_is_in_the_dictionary_what_it_began_as(run: Path) -> None:
    """Its directions are random ones, and two seeds share none."""
    first, second = (FeatureDictionary.load(run / "train" / HOOK / f"{DECODER}-s{seed}").W_dec for seed in (0, 1))
    for W in (first, second):
        assert float((W @ W.T).fill_diagonal_(0).abs().mean()) == pytest.approx((2 / np.pi / 16) ** 0.5, rel=0.1)
    assert float((first @ second.T).max()) < 0.95


def test_the_table_tells_the_margin(run: Path) -> None:
    printed = unmix("score", "r.toml", cwd=run.parents[1]).stdout
    (line,) = [line for line in printed.split("\n") if line.startswith(FREE + " ") and "+" in line]
    assert "frozen" in line or "covariance" in line
