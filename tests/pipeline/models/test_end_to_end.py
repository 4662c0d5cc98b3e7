"""Extract, train, score on a small Llama and a small GPT-NeoX, as a user types it."""

import json
from pathlib import Path

import pytest

from stores import ActivationStore
from tests.conftest import unmix
from tests.pipeline.models.small import save_small

RECIPE = """
[extract]
model = "model"
hook_points = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"]
context = 32
n_rows = 3000
chunk_rows = 310
heldout_fraction = 0.1
dtype = "float32"
text = { source = "files", path = "text.txt" }
[train]
batch_size = 128
n_tokens = 6400
[train.topk]
hook_points = ["blocks.2.hook_resid_post", "blocks.1.attn.hook_z"]
d_sae = 64
k = 4
[score]
n_sequences = 4
"""


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_extract_train_and_score(recipe: Path, name: str) -> None:
    save_small(recipe / "model", name)
    (recipe / "small.toml").write_text(RECIPE)
    done = unmix("run", "small.toml", cwd=recipe)
    assert "score: done" in done.stdout
    run = recipe / "runs" / "small"
    store = ActivationStore.open(run / "extract" / "activations.zarr")
    layers = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    assert list(store.hook_points) == [*layers, "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"]
    assert store.description.d == (32, 32, 32, 32, 48)
    rows = json.loads((run / "score" / "scores.json").read_text())["dictionaries"]
    assert len(rows) == 2
    for row in rows:
        assert row["l0"] <= 4
        assert 0 < row["fvu"] < 1
        assert row["ce"] != row["ce_clean"]
    assert "nothing to do" in unmix("extract", "small.toml", cwd=recipe).stdout
