import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.extract import stage
from pipeline.extract.config import TextConfig
from pipeline.extract.packing import Packer
from pipeline.extract.sanity import FirstBatch, first_batch_loss
from pipeline.extract.text import Documents
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from tests.conftest import unmix

POSITIONS = tuple(range(1, 64))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """(4, 64) of held-out Python."""
    files, texts = ModelFiles.find("demo"), Documents(TextConfig(source="stdlib", split="heldout"))
    return Packer(texts, files.tokenizer, files.bos, 64, 0.01).take("train", 4)


def first_batch(model: LanguageModel, tokens: np.ndarray, positions: tuple[int, ...] = POSITIONS) -> FirstBatch:
    found = first_batch_loss(model, tokens, positions)
    assert found is not None
    return found


def test_the_demo_model_does_not_warn_and_a_random_one_does(tokens: np.ndarray, tiny_model: Path) -> None:
    trained = first_batch(load_model(ModelFiles.find("demo")), tokens)
    random = first_batch(load_model(ModelFiles.find(str(tiny_model))), tokens)
    assert trained.warning is None
    assert random.warning is not None
    assert trained.unigram_ce == random.unigram_ce
    assert FirstBatch(float("nan"), 5.0).warning is not None


def test_a_uniform_guess_warns_on_any_text(tmp_path: Path, tiny_model: Path) -> None:
    """Logits that are all zero: cross-entropy log 4096, which the add-one unigram never exceeds."""
    shutil.copytree(tiny_model, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file({k: torch.zeros_like(v) for k, v in weights.items()}, tmp_path / "m" / "model.safetensors")
    model = load_model(ModelFiles.find(str(tmp_path / "m")))
    rng = np.random.default_rng(0)
    for tokens in (rng.integers(0, 4096, (2, 64)), rng.integers(0, 3, (2, 64)), np.arange(128).reshape(2, 64)):
        found = first_batch(model, tokens)
        assert found.ce == pytest.approx(math.log(4096), rel=1e-6)
        assert found.unigram_ce <= found.ce + 1e-6


def test_cross_entropy_is_that_of_transformers_at_the_positions_kept(tiny_model: Path, tokens: np.ndarray) -> None:
    from transformers import GPT2LMHeadModel

    found = first_batch(load_model(ModelFiles.find(str(tiny_model))), tokens, (3, 63))  # 63 predicts nothing
    x = torch.from_numpy(tokens).long()
    with torch.no_grad():
        logits = GPT2LMHeadModel.from_pretrained(tiny_model)(x).logits
    assert found.ce == pytest.approx(float(torch.nn.functional.cross_entropy(logits[:, 3], x[:, 4])), rel=1e-5)
    counts = {t: list(tokens[:, 4]).count(t) for t in tokens[:, 4]}
    expected = -np.mean([math.log((counts[t] + 1) / (4 + 4096)) for t in tokens[:, 4]])
    assert found.unigram_ce == pytest.approx(expected)
    assert first_batch_loss(load_model(ModelFiles.find(str(tiny_model))), tokens, (63,)) is None


def test_extract_prints_and_keeps_it(recipe: Path) -> None:
    done = unmix("extract", "tiny.toml", "--set", "extract.n_rows=700", cwd=recipe)
    kept = json.loads((recipe / "runs" / "tiny" / "extract" / "manifest.json").read_text())["headline"]["first_batch"]
    assert kept["ce"] >= kept["unigram_ce"] > 0
    assert str(FirstBatch(**kept)) in done.stdout
    assert "warning: the model predicts this text no better" in done.stdout


def test_a_damaged_first_batch_holds_nothing_up(recipe: Path) -> None:
    unmix("extract", "tiny.toml", cwd=recipe)
    folder = recipe / "runs" / "tiny" / "extract"
    (folder / "first_batch.json").write_text('{\n  "ce')
    (folder / "manifest.json").unlink()  # so that the unit is looked at again
    assert "extract: done" in unmix("extract", "tiny.toml", cwd=recipe).stdout
    assert "first_batch" not in json.loads((folder / "manifest.json").read_text())["headline"]
    assert not (folder / "first_batch.json").exists()


def test_layers_after_the_last_hook_point_serve_the_first_batch_alone(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker that comes second does not load them."""
    asked, models = [], []

    def recording(*arguments: Any) -> LanguageModel:
        asked.append(arguments[-1])
        models.append(load_model(*arguments))
        return models[-1]

    monkeypatch.setattr(stage, "load_model", recording)
    sets = ["--set", 'extract.hook_points=["blocks.0.mlp.hook_post"]', "--set", "extract.n_rows=3000"]
    for worker in ("0/2", "1/2"):
        unmix("extract", "tiny.toml", *sets, "--worker", worker, cwd=recipe)
    assert asked == [None, 1]
    assert [model.n_layers for model in models] == [1, 1]
