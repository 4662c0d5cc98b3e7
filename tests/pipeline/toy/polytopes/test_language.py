"""Clusters of a language model's activations, and its layers scaled."""

from pathlib import Path

import numpy as np

from pipeline.toy.polytopes.experiment import QUICK, Settings
from pipeline.toy.polytopes.language import clusters, open_store, sampled, validity
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


def test_planted_clusters_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(3, 6))

    def rows(hook_point: str, n: int, d: int) -> np.ndarray:
        return (centres[np.arange(n) % 3] + rng.normal(size=(n, d))).astype(np.float32)

    store = make_store(tmp_path / "s.zarr", n_sequences=40, n_positions=6, d={HOOK: 6}, rows=rows)
    found = clusters(Settings(**{**QUICK, "hook_point": HOOK}), store)
    assert found["n_clusters"] == 3
    assert found["sizes"] == [80, 80, 80]
    assert found["between"] > 3 * found["within"]
    assert validity(SMALL, store) is None  # no model made it


def test_a_language_models_layers_scaled(tiny_model: Path, tmp_path: Path) -> None:
    settings = Settings(**{**QUICK, "model": str(tiny_model), "hook_point": HOOK, "n_sequences": 8})
    store = open_store(settings, tmp_path)
    assert store.description.n_positions == 6
    found = validity(settings, store)
    assert found is not None
    for name, (_, unchanged, double) in found["kl"].items():
        assert abs(unchanged) < 1e-6, name
        # A layer norm follows the last residual stream.
        assert bool(double > 1e-4) is (name != "blocks.1.hook_resid_post"), name
