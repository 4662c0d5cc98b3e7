"""A killed scoring goes on where it was."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import kill_at, unmix
from tests.pipeline.conftest import MLP, RESID, contents, tree


@pytest.mark.slow
def test_scoring_that_is_killed_goes_on_to_the_same_bytes(recipe: Path) -> None:
    kept = ["--set", "train.n_tokens=12800", "--set", "train.topk.d_sae=48"]
    for stage in ("extract", "train"):
        unmix(stage, "tiny.toml", *kept, "--name", "undisturbed", cwd=recipe)
    undisturbed, killed = recipe / "runs" / "undisturbed", recipe / "runs" / "killed"
    shutil.copytree(undisturbed, killed)
    unmix("score", "tiny.toml", *kept, "--name", "undisturbed", cwd=recipe)
    for pattern, n in ((f"*/{RESID}/*/checkpoints/part-*", 2), (f"*/{MLP}/*/histograms.npz", 1)):
        kill_at(pattern, n, "score", "tiny.toml", *kept, "--name", "killed", cwd=recipe)
    assert list((killed / "score" / RESID).glob("*/checkpoints")) == []  # scored, and nothing is left of its parts
    assert list((killed / "score" / MLP).glob("*/checkpoints/part-*"))
    unmix("score", "tiny.toml", *kept, "--name", "killed", cwd=recipe)
    first, second = (contents(tree(run / "score")) for run in (undisturbed, killed))
    results = {name for name in first if name.endswith(("scores.json", "histograms.npz"))}
    assert len(results) > 2
    assert {name: second[name] for name in results} == {name: first[name] for name in results}
    assert first.keys() == second.keys()
