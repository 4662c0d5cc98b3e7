import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.score.downstream import Downstream, Replacement, ce_score, evaluate
from pipeline.train.rotations.msp import random_rotation
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import unmix

HOOK, D = "blocks.1.hook_resid_post", 32
POSITIONS = tuple(range(1, 24))


def found_at(
    model: LanguageModel, tokens: np.ndarray, hook_point: str, positions: tuple[int, ...], maps: dict[str, Any]
) -> dict[str, Downstream]:
    """Of autoencoders at one hook point."""
    replacements = [Replacement.at(hook_point, map) for map in maps.values()]
    return dict(zip(maps, evaluate(model, tokens, positions, replacements), strict=True))


def linear(W: torch.Tensor) -> FeatureDictionary:
    return FeatureDictionary(Spec("linear", D, D, Site.at(HOOK)), W.T, torch.zeros(D), W, torch.zeros(D))


def test_identity_scores_one_zero_scores_nought_and_a_rotation_changes_nothing(
    model: LanguageModel, tokens: np.ndarray
) -> None:
    found = found_at(
        model, tokens, HOOK, POSITIONS,
        {
            "zero": torch.zeros_like,
            "identity": linear(torch.eye(D)),
            "zero dictionary": linear(torch.zeros(D, D)),
            "rotation": linear(random_rotation(D, 0).float()),
        },
    )  # fmt: skip
    zero = found["zero"].ce

    def score(name: str) -> float:
        return ce_score(zero, found[name].ce, found[name].ce_clean)

    assert score("identity") == 1
    assert found["identity"].kl == 0
    assert found["identity"].top1 == 1
    assert score("zero dictionary") == 0
    assert score("rotation") == pytest.approx(1, abs=1e-5)
    assert found["rotation"].kl == pytest.approx(0, abs=1e-5)
    assert found["zero"].kl > 0.01
    assert found["zero"].top1 < 0.9


def test_cross_entropy_is_the_models_own_at_the_kept_positions(
    model: LanguageModel, tiny_model: Path, tokens: np.ndarray
) -> None:
    found = found_at(model, tokens, HOOK, (3, 7, 23), {"identity": linear(torch.eye(D))})
    x = torch.from_numpy(tokens).long()
    with torch.no_grad():
        logits = GPT2LMHeadModel.from_pretrained(tiny_model)(x).logits
    expected = [torch.nn.functional.cross_entropy(logits[:, p], x[:, p + 1]) for p in (3, 7)]  # 23 predicts nothing
    assert found["identity"].ce_clean == pytest.approx(float(sum(expected)) / 2, rel=1e-5)


def test_other_positions_keep_their_activations(model: LanguageModel, tokens: np.ndarray) -> None:
    seen = []

    def edit(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[1])
        return x

    found_at(model, tokens, HOOK, (5, 6), {"edit": edit})
    assert set(seen) == {2}


def test_an_ablation_that_changes_nothing_gives_no_score(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="no CE score is defined"):
        ce_score(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "hook_point", ["blocks.0.mlp.hook_pre", "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out", HOOK]
)
def test_splicing_works_in_bfloat16_and_the_identity_changes_nothing(
    tiny_model: Path, tokens: np.ndarray, hook_point: str
) -> None:
    files = ModelFiles.find(str(tiny_model))
    d = files.d(hook_point)
    identity = FeatureDictionary(
        Spec("linear", d, d, Site.at(hook_point)), torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d)
    )
    edits = {"identity": identity, "zero": torch.zeros_like}
    found = found_at(load_model(files, precision="bfloat16"), tokens, hook_point, POSITIONS, edits)
    assert found["identity"].ce == found["identity"].ce_clean
    assert found["identity"].kl == 0
    assert found["zero"].ce != found["zero"].ce_clean
    exact = found_at(load_model(files), tokens, hook_point, POSITIONS, edits)
    assert 0 < abs(found["zero"].ce_clean - exact["zero"].ce_clean) < 0.05  # rounding alone


def test_scoring_runs_the_model_at_the_stores_precision(recipe: Path) -> None:
    text = (recipe / "tiny.toml").read_text()
    head, tail = text[: text.index("[train.topk]")], text[text.index("[score]") :]
    (recipe / "tiny.toml").write_text(head + "[train.neuron_basis]\n" + tail)
    sets = ["--set", "extract.precision=bfloat16", "--set", "extract.n_rows=1500"]
    unmix("run", "tiny.toml", *sets, cwd=recipe)
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    scores = json.loads((recipe / "runs" / "tiny" / "score" / "scores.json").read_text())["dictionaries"]
    description = store.description
    tokens = store.heldout_tokens(8)
    model = load_model(ModelFiles.of_store(description), precision="bfloat16")
    for row in scores:
        expected = found_at(model, tokens, row["site"], description.positions, {"zero": torch.zeros_like})["zero"]
        assert row["ce_clean"] == pytest.approx(expected.ce_clean, abs=1e-6)
        assert row["ce"] == row["ce_clean"]  # the neurons are an identity
        assert row["ce_zero"] == pytest.approx(expected.ce, abs=1e-6)
