"""The recipe of Pythia-70m, against a folder with its shape and random weights."""

import json
from pathlib import Path

import pytest
import torch

from scripts.bench_architectures import random_model
from stores import ActivationStore
from tests.conftest import unmix


@pytest.mark.slow
def test_the_recipe_runs_on_a_model_of_its_shape(tmp_path: Path) -> None:
    random_model(tmp_path / "pythia", "pythia-70m")
    (tmp_path / "text").mkdir()
    for source in sorted(Path(torch.__file__).parent.glob("*.py")):  # a fiftieth of them has to fill a held-out chunk
        (tmp_path / "text" / f"{source.stem}.txt").write_text(source.read_text())
    sets = [
        f"extract.model={tmp_path / 'pythia'}", "extract.text.source=files", f"extract.text.path={tmp_path / 'text'}",
        "extract.n_rows=4000", "extract.chunk_rows=511", "train.n_tokens=1024", "train.batch_size=256",
        "train.topk.d_sae=1024", "train.topk.seed=0", "train.pca.n_rows=2048", "score.n_sequences=1", "score.at_l0=[32]",
    ]  # fmt: skip
    arguments = [a for s in sets for a in ("--set", s)]
    for stage in ("extract", "train", "score"):
        assert f"{stage}: done" in unmix(stage, "pythia-70m", *arguments, cwd=tmp_path).stdout
    run = tmp_path / "runs" / "pythia-70m"
    store = ActivationStore.open(run / "extract" / "activations.zarr")
    assert [store.d(h) for h in store.hook_points] == [512, 512, 512, 2048, 512]
    rows = json.loads((run / "score" / "scores.json").read_text())["dictionaries"]
    assert sum(row["method"] == "topk" for row in rows) == 4
