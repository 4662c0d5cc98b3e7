from pathlib import Path

import pytest

import pipeline.stages
from pipeline.score.losses import model_of
from pipeline.stages import Run, load_recipe, run_score, run_train
from stores.activations import ActivationStore

RECIPE = """
name = "r"
store = "{store}"

[train]
n_tokens = 512
batch_size = 128

[train.neuron_basis]
hook_points = ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]

[score]
n_sequences = 4
"""


def test_the_model_is_loaded_once_for_all_sites(
    mlps: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(store=mlps.place.root))
    run, loads = Run(load_recipe(str(tmp_path / "r.toml")), tmp_path / "run", "cpu"), []
    monkeypatch.setattr(pipeline.stages, "model_of", lambda *given: loads.append(given) or model_of(*given))
    run_train(run)
    assert run_score(run)
    assert len(list((run.folder / "score").glob("*/neuron_basis/scores.json"))) == 2
    assert len(loads) == 1
    assert not run_score(run)
    assert len(loads) == 1
