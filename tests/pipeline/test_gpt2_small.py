"""The recipes of the real model, against a folder with its shape and random weights."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.models.files import DEMO
from stores import ActivationStore
from tests.conftest import unmix


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gpt2/ and text/."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2-small")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).save_pretrained(folder / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "gpt2" / name).write_text((DEMO / name).read_text())
    (folder / "text").mkdir()
    for source in sorted(Path(torch.__file__).parent.glob("*.py")):  # a fiftieth of them has to fill a held-out chunk
        (folder / "text" / f"{source.stem}.txt").write_text(source.read_text())
    return folder


def run_all(recipe: str, folder: Path, cwd: Path, *sets: str) -> Path:
    """The run folder after all three stages."""
    here = [f"extract.model={folder / 'gpt2'}", "extract.text.source=files", f"extract.text.path={folder / 'text'}"]
    arguments = [a for s in [*here, *sets] for a in ("--set", s)]
    for stage in ("extract", "train", "score"):
        assert f"{stage}: done" in unmix(stage, recipe, *arguments, cwd=cwd).stdout
    return cwd / "runs" / recipe


@pytest.mark.slow
def test_the_recipe_runs_on_a_model_of_its_shape(folder: Path, tmp_path: Path) -> None:
    run = run_all(
        "gpt2-small", folder, tmp_path,
        "extract.n_rows=4000", "extract.chunk_rows=511", "train.n_tokens=1024", "train.batch_size=256",
        "train.topk.d_sae=3072", "train.topk.seed=0", "train.relu_l1.d_sae=1536", "train.relu_l1.seed=0",
        "train.rotation.n_iterations=2", "train.pca.n_rows=3072", "score.n_sequences=1", "score.at_l0=[32]",
    )  # fmt: skip
    store = ActivationStore.open(run / "extract" / "activations.zarr")
    assert [store.d(h) for h in store.hook_points] == [768, 3072]
    assert store.description.weight_processing == "folded"
    assert abs(store.stats("blocks.8.hook_resid_pre").mean.mean()) < 1e-4  # centred
    rows = json.loads((run / "score" / "scores.json").read_text())["dictionaries"]
    assert len(rows) == 6 + 5
    for row in rows:
        assert 0 <= row["fvu"] < 2
        if row["method"] in ("rotation", "pca", "neuron_basis", "random"):
            assert row["fvu"] < 1e-6


@pytest.mark.slow
def test_the_rotations_of_an_untrained_model_find_that_its_mlps_are_linear(folder: Path, tmp_path: Path) -> None:
    layers = [(f"blocks.{n}.hook_resid_mid", f"blocks.{n}.hook_mlp_out") for n in (0, 11)]
    run = run_all(
        "gpt2-small-rotations", folder, tmp_path,
        "extract.n_rows=4000", "extract.chunk_rows=511", "train.n_tokens=5120", "train.batch_size=256",
        "train.jacobian_rotation.n_inputs=64", f"extract.hook_points={json.dumps([h for pair in layers for h in pair])}",
        "score.n_sequences=1",
    )  # fmt: skip
    for pair in layers:
        found = json.loads((run / "train" / "--".join(pair) / "jacobian_rotation-s0" / "jacobian.json").read_text())
        held = found["heldout"]
        assert found["linear"] > 0.5
        assert held["mean_svd"]["mass_in_1%"] > 0.5
        assert held["after"]["log"] < held["before"]["log"] - 0.5
    rows = json.loads((run / "score" / "scores.json").read_text())["dictionaries"]
    assert [row["site"].rsplit(".", 1)[1] for row in rows] == ["hook_resid_mid", "hook_mlp_out"] * 2
    assert all(row["fvu"] < 1e-6 for row in rows)
