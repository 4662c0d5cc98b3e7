"""Clusters of a language model's activations, and its layers scaled."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.files import DEMO
from pipeline.toy.polytopes.experiment import QUICK, Settings
from pipeline.toy.polytopes.language import clusters, open_store, sampled, validity
from stores.activations import ActivationStore
from stores.description import Description
from tests.conftest import make_store

SMALL = Settings(**QUICK)
HOOK = "blocks.0.mlp.hook_post"


def description(positions: tuple[int, ...]) -> Description:
    return Description(
        model="none", model_revision=None, model_digest="", tokenizer_digest="", weight_processing="none",
        precision="float32", text="none", text_digest=None, context=1024, positions=positions, bos=True, hook_points=(HOOK,),
        d=(4,), dtype="float32", n_sequences=4, heldout_fraction=0.25, chunk_sequences=1, shard_chunks=1,
    )  # fmt: skip


def test_positions_are_the_sources_six() -> None:
    every = description(tuple(range(1, 1024)))
    assert [every.positions[i] for i in sampled(every)] == np.linspace(100, 1023, 6).astype(int).tolist()
    assert sampled(description((5, 9, 12))) == [0, 1, 2]


def test_planted_clusters_are_found_and_told_by_their_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(3, 6))

    def rows(hook_point: str, n: int, d: int) -> np.ndarray:
        return (centres[np.arange(n) % 3] + rng.normal(size=(n, d))).astype(np.float32)

    store = make_store(tmp_path / "s.zarr", n_sequences=40, n_positions=6, d={HOOK: 6}, rows=rows)
    assert isinstance(store, ActivationStore)
    found = clusters(Settings(**{**QUICK, "hook_point": HOOK, "n_sequences": 40}), store)
    assert found["n_clusters"] == 3
    assert found["sizes"] == [80, 80, 80]
    assert found["between"] > 3 * found["within"]
    tokens = store.tokens(0, 40)[:, 1:].reshape(-1)
    expected = [max(np.bincount(tokens[k::3])) / 80 for k in range(3)]
    assert sorted(found["shares"]) == pytest.approx(sorted(expected))
    assert np.mean(found["excess"]) == pytest.approx(0, abs=0.02)  # the tokens are random
    assert validity(SMALL, store) is None  # no model made it


def test_a_language_models_layers_scaled(tiny_model: Path, tmp_path: Path) -> None:
    settings = Settings(**{**QUICK, "model": str(tiny_model), "hook_point": HOOK, "n_sequences": 8})
    store = open_store(settings, tmp_path)
    assert store.description.n_positions == 6
    found = validity(settings, store)
    assert found is not None
    for name, values in found["kl"].items():
        unchanged, tenfold = (np.array(values[settings.factors.index(factor)]) for factor in (1.0, 10.0))
        assert len(unchanged) == 2, name
        assert abs(unchanged).max() < 1e-6, name
        # A layer norm follows the last residual stream.
        assert bool(tenfold.min() > 1e-4) is (name != "blocks.1.hook_resid_post"), name


@pytest.mark.slow
def test_the_sources_sampling_of_a_model_of_gpt2s_size(tmp_path: Path) -> None:
    """Random weights: the positions, the width and the cost are GPT-2 small's. 6 of 1,024 tokens, of none of the first 100,
    whole vectors of 4 · 768."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "gpt2" / name).write_text((DEMO / name).read_text())
    settings = Settings(model=str(tmp_path / "gpt2"), hook_point="blocks.0.mlp.hook_post", n_sequences=10)
    store = open_store(settings, tmp_path)
    assert list(store.description.positions) == np.linspace(100, 1023, 6).astype(int).tolist()
    found = clusters(settings, store)
    assert (found["context"], found["d"], found["n_rows"]) == (1024, 4 * 768, 60)
    assert found["positions"] == list(store.description.positions)
