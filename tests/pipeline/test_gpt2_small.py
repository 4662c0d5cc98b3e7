"""The recipe of the real model, against a folder with its shape and random weights."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.extract.language_model import DEMO
from stores import ActivationStore
from tests.conftest import unmix


@pytest.mark.slow
def test_the_recipe_runs_on_a_model_of_its_shape(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "gpt2" / name).write_text((DEMO / name).read_text())
    (tmp_path / "text").mkdir()
    source = Path(torch.__file__).parent / "functional.py"
    (tmp_path / "text" / "some.txt").write_text(source.read_text())

    sets = [
        f"extract.model={tmp_path / 'gpt2'}", "extract.text.source=files", f"extract.text.path={tmp_path / 'text'}",
        "extract.n_rows=4000", "extract.chunk_rows=511", "train.n_tokens=1024", "train.batch_size=256",
        "train.topk.d_sae=3072", "train.topk.seed=0", "train.relu_l1.d_sae=1536", "train.relu_l1.seed=0",
        "train.rotation.n_iterations=2", "train.pca.n_rows=3072", "score.n_sequences=1", "score.at_l0=[32]",
    ]  # fmt: skip
    arguments = [a for s in sets for a in ("--set", s)]
    for stage in ("extract", "train", "score"):
        assert f"{stage}: done" in unmix(stage, "gpt2-small", *arguments, cwd=tmp_path).stdout
    run = tmp_path / "runs" / "gpt2-small"
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
