"""A command that gets a signal stops with all that it has done, and the same command goes on to the same bytes."""

import re
import shutil
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals

import pytest

from pipeline.train import checkpoint
from tests.conftest import make_store, planted_rows, start, unmix
from tests.pipeline.conftest import RESID, contents, tree

ROWS = ["--set", "extract.n_rows=2000", "--set", f"extract.hook_points=['{RESID}']", "--set", "extract.chunk_rows=124"]
SETS = [*ROWS, "--set", "train.n_tokens=6400", "--set", "train.topk.d_sae=48", "--set", "extract.shard_chunks=1"]
RESULTS = ("sae_weights.safetensors", "metrics.jsonl", "histograms.npz", "scores.json", ".parquet")


@pytest.fixture
def folder(recipe: Path) -> Path:
    text = (recipe / "tiny.toml").read_text()
    train = "[train.topk]\nd_sae = 48\nk = 4\nseed = [0, 1]\n[train.pca]\n[score]\nn_sequences = 8\n"
    (recipe / "tiny.toml").write_text(text[: text.index("[train.topk]")] + train)
    return recipe


def run(folder: Path, *stages: str, name: str) -> Path:
    for stage in stages:
        unmix(stage, "tiny.toml", *SETS, "--name", name, cwd=folder)
    return folder / "runs" / name


def stopped(folder: Path, stage: str, *signals: tuple[str, int, Signals], name: str = "stopped", code: int = 75) -> str:
    """What a process says that stops by signals it sends itself."""
    said = folder / "stderr.txt"
    process = start(stage, "tiny.toml", *SETS, "--name", name, cwd=folder, signals=signals, stderr=said)
    assert process.wait() == code, said.read_text()
    assert not list(
        (folder / "runs" / name).glob("leases/alive/*.json")
    )  # nobody has to wait until it is seen to be gone
    (line,) = re.findall(r"^unmix: (stopped.*)$", said.read_text(), re.MULTILINE)
    return line


def results(run: Path) -> dict[str, bytes]:
    """What is a function of the settings, of a store and of units."""
    files = tree(run)
    store = {k: v for k, v in contents(tree(run / "extract" / "activations.zarr")).items()}
    return store | {k: v for k, (_, v) in files.items() if k.endswith(RESULTS) and not k.startswith("extract/")}


STAGES = ["extract", "train", "score", "report"]
POINTS = {
    "extract": [
        ("*/extract/plan.json", 1, SIGUSR2),
        ("*/commits/*.json", 2, SIGTERM),
        ("*/commits/*.json", 1, SIGUSR1),
    ],
    "train": [
        ("*/pca/cfg.json", 1, SIGINT),
        ("*/topk-*/started.json", 2, SIGTERM),
        ("*/checkpoints/step-*", 3, SIGUSR1),
    ],
    "score": [("*/checkpoints/part-*", 2, SIGTERM), ("*/topk-*s1/scores.json", 1, SIGUSR2), ("*/pairs/*", 1, SIGUSR1)],
    "report": [("*/topk-*s0/features.parquet", 1, SIGTERM), ("*/features/tokens.json", 1, SIGUSR1)],
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_stopped_goes_on_to_the_same_bytes(folder: Path, stage: str) -> None:
    before = STAGES[: STAGES.index(stage)]
    whole = run(folder, *before, name="undisturbed")
    if before:
        shutil.copytree(whole, folder / "runs" / "stopped")
    run(folder, stage, name="undisturbed")
    for point in POINTS[stage]:
        line = stopped(folder, stage, point)
        assert line.startswith(f"stopped by {point[2].name}: ")
        assert line.endswith("; run the same command again, it goes on from there")
    assert results(run(folder, stage, name="stopped")) == results(whole)


def test_signals_before_the_first_step_and_during_the_save_stop_it_once(tmp_path: Path) -> None:
    hook = "blocks.0.hook_resid_post"
    rows = lambda hook_point, n, d: planted_rows(n, d)  # noqa: E731
    make_store(tmp_path / "s.zarr", n_sequences=200, d={hook: 16}, rows=rows, chunk_sequences=20)
    table = "[train]\nbatch_size = 64\nn_tokens = 1280\n[train.topk]\nd_sae = 24\nk = 4\n"
    (tmp_path / "tiny.toml").write_text(f'store = "{tmp_path}/s.zarr"\n{table}')
    saves = [("*/checkpoints/step-*", 1, number) for number in (SIGTERM, SIGUSR2, SIGINT)]
    said = tmp_path / "stderr.txt"
    signals = [("*/started.json", 1, SIGUSR1), *saves]
    assert start("train", "tiny.toml", "--name", "two", cwd=tmp_path, signals=signals, stderr=said).wait() == 75
    kept = f"1 dictionary at {hook} saved at step 1 of 20"
    assert said.read_text() == f"unmix: stopped by SIGUSR1: {kept}; run the same command again, it goes on from there\n"
    (unit,) = (tmp_path / "runs" / "two" / "train" / hook).glob("topk-*")
    assert checkpoint.steps(unit / "checkpoints") == [1]
    for name in ("one", "two"):
        unmix("train", "tiny.toml", "--name", name, cwd=tmp_path)
    one, two = (
        (tmp_path / "runs" / name / "train" / hook).glob("*/sae_weights.safetensors") for name in ("one", "two")
    )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] != []
