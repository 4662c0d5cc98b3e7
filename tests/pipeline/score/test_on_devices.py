"""Extraction and scores on a GPU, and on a device that pretends to be one: tests/pretended.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.extract.capture import capture
from pipeline.extract.sanity import first_batch_loss
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.score.codes import reconstruct
from pipeline.score.config import ScoreConfig
from pipeline.score.downstream import Replacement, Splice
from pipeline.score.losses import losses
from pipeline.score.measures import columns_of, measures_of
from pipeline.score.rows import Parts, measure
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from tests.pipeline.score.made import dictionary

MID, POST, OUT = "blocks.0.hook_resid_mid", "blocks.1.mlp.hook_post", "blocks.0.hook_mlp_out"
HEADS = "blocks.1.attn.hook_z"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_activations_are_those_of_the_cpu(tiny_model: Path, tokens: np.ndarray, dtype: str, device: str) -> None:
    """To 1e-4 of their root mean square; int8 to one step of its scale."""
    files, hook_points = ModelFiles.find(str(tiny_model)), (MID, HEADS, POST)
    found, expected = (
        capture(load_model(files, device=d), tokens, hook_points, tuple(range(1, 24)), 4, dtype)
        for d in (device, "cpu")
    )
    for hook_point, rows in expected.items():
        assert rows.dtype == found[hook_point].dtype
        if dtype == "bfloat16":  # as it lies in a store: its bits
            rows, other = (
                torch.from_numpy(r.view(np.int16)).view(torch.bfloat16).float().numpy()
                for r in (rows, found[hook_point])
            )
            assert np.abs(other - rows).max() <= 2**-7 * np.abs(rows).max()
        elif dtype == "int8":
            assert (rows != found[hook_point]).mean() < 0.02
        else:
            assert np.abs(found[hook_point] - rows).max() <= 1e-4 * np.sqrt((rows**2).mean())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predictions_are_those_of_the_cpu(tiny_model: Path, tokens: np.ndarray, precision, device: str) -> None:
    files = ModelFiles.find(str(tiny_model))
    found, expected = (
        first_batch_loss(load_model(files, device=d, precision=precision), tokens, range(1, 24))
        for d in (device, "cpu")
    )
    assert found is not None
    assert expected is not None
    assert found.ce == pytest.approx(expected.ce, rel=1e-4 if precision == "float32" else 1e-2)


def dictionaries() -> list[FeatureDictionary]:
    """Of one site."""
    reads, writes = {MID: 32}, {OUT: 32}
    return [
        dictionary(reads, writes, d_sae=40, seed=1),
        dictionary(reads, writes, d_sae=40, seed=2, architecture="jumprelu", threshold=torch.full((40,), 0.1)),
    ]


def scores(store: ActivationStore, folder: Path, device: str) -> list[dict[str, float]]:
    config, site = ScoreConfig(n_sequences=4, at_l0=[4]), dictionaries()[0].spec.site
    own = {str(i): made.to(device) for i, made in enumerate(dictionaries())}
    begin = lambda name: measures_of(own[name], config, ordered=False)  # noqa: E731
    parts = {name: Parts(folder / name, name) for name in own}
    measured = measure(store, site, config.n_rows, config.batch_size, own, begin, parts, device)
    model = load_model(ModelFiles.of_store(store.description), device=device)
    replacements = [Replacement([Splice(site, lambda x, f=f: reconstruct(f, x))]) for f in own.values()]
    lost = losses(config.n_sequences, store, model, site.writes, replacements)
    rows = [columns_of(config, measured[name]) | loss for name, loss in zip(own, lost, strict=True)]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def test_scores_are_those_of_the_cpu(mlps: ActivationStore, tmp_path: Path, device: str) -> None:
    expected, found = scores(mlps, tmp_path / "here", "cpu"), scores(mlps, tmp_path / "there", device)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
