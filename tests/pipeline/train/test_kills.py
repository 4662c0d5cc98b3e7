"""A sweep that is killed again and again ends with the bits of one that was left alone."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import make_store, planted_rows, start, unmix

HOOK = "blocks.0.hook_resid_post"
RECIPE = f"""
store = "STORE"
[extract]
model = "demo"
hook_points = ["{HOOK}"]
n_rows = 1
[train]
batch_size = 128
n_tokens = 64_000
checkpoint_every_steps = 7
[train.topk]
d_sae = [48, 2400]
k = 4
seed = [0, 1]
aux_k = 8
dead_after_tokens = 2000
lr = 5e-3
[train.batch_topk]
d_sae = 2400
k = 4
[train.matryoshka]
d_sae = 96
n_prefixes = 3
k = 4
[train.relu_l1]
d_sae = 96
l1_coefficient = [0.3, 1.0]
resample_every_tokens = 5000
dead_after_tokens = 2000
[train.tied]
d_sae = 96
[train.gated]
d_sae = 96
[train.p_anneal]
d_sae = 96
[train.jumprelu]
d_sae = 96
[train.rotation]
n_iterations = 9
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    make_store(
        tmp_path / "activations.zarr", n_sequences=400, d={HOOK: 16},
        rows=lambda hook_point, n, d: planted_rows(n, d), chunk_sequences=20,
    )  # fmt: skip
    (tmp_path / "sweep.toml").write_text(RECIPE.replace("STORE", str(tmp_path / "activations.zarr")))
    return tmp_path


def dictionaries(run: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted((run / "train" / HOOK).glob("*/sae_weights.safetensors"))}


def kill(recipe: Path, name: str, rng: random.Random) -> bool:
    """Start it, kill it within a second of its going on. Returns whether it was still at work."""
    process, began, wait = start("train", "sweep.toml", "--name", name, cwd=recipe), time.time(), rng.uniform(0, 1)
    folder = recipe / "runs" / name / "train" / HOOK
    while process.is_alive() and not any(
        p.stat().st_mtime > began for p in folder.glob("*/started.json") if p.exists()
    ):
        time.sleep(0.01)
    process.join(wait)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_thirty_kills_of_a_sweep_change_no_bit(recipe: Path) -> None:
    unmix("train", "sweep.toml", "--name", "undisturbed", cwd=recipe)
    expected = dictionaries(recipe / "runs" / "undisturbed")
    assert len(expected) == 13
    rng, hits, rounds = random.Random(0), 0, 0
    while hits < 30:
        name = f"killed-{rounds}"
        while hits < 30 and kill(recipe, name, rng):
            hits += 1
        unmix("train", "sweep.toml", "--name", name, cwd=recipe)
        assert dictionaries(recipe / "runs" / name) == expected
        rounds += 1
