"""Several processes fill one store, and are killed while they do."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import pytest

from pipeline.extract import stage
from pipeline.extract.capture import capture
from pipeline.models.protocol import LanguageModel
from pipeline.stages import Run, load_recipe, run_extract
from stores import ActivationStore
from tests.conftest import kill_at, start, unmix
from tests.pipeline.conftest import RESID

SETS = ["--set", "extract.chunk_rows=124", "--set", "extract.shard_chunks=1"]  # 49 shards


def digest(runs: Path) -> str:
    return ActivationStore.open(runs / "extract" / "activations.zarr").digest


def round_of(folder: Path, name: str, dies_at: list[tuple[str, int] | None]) -> list[int]:
    """One start of as many workers as there are places to die at; what they returned."""
    arguments, n = ["extract", "tiny.toml", *SETS, "--name", name, "--worker"], len(dies_at)
    processes = [start(*arguments, f"{i}/{n}", cwd=folder, dies_at=point) for i, point in enumerate(dies_at)]
    return [process.wait() for process in processes]


@pytest.mark.slow
def test_three_workers_make_the_store_of_one(recipe: Path) -> None:
    unmix("extract", "tiny.toml", *SETS, "--name", "one", cwd=recipe)
    commit, sums, rows = "*/commits/*.json", "*/commits/*.npz", f"*/{RESID}/c/*"
    assert round_of(recipe, "three", [(commit, 2), (rows, 5), None]) == [-SIGKILL, -SIGKILL, 0]
    assert round_of(recipe, "three", [(sums, 4), None, None]) == [-SIGKILL, 0, 0]
    assert round_of(recipe, "three", [None, None, None]) == [0, 0, 0]
    assert digest(recipe / "runs" / "three") == digest(recipe / "runs" / "one")
    done = unmix("verify", "runs/three/extract/activations.zarr", cwd=recipe)
    assert "as they were committed" in done.stdout


def test_those_that_were_given_no_shares_divide_the_store(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, here threads with claims of their own: no sequence goes through the model twice."""
    monkeypatch.chdir(recipe)
    n_captured = []

    def counting(model: LanguageModel, tokens: np.ndarray, *options: Any) -> dict[str, np.ndarray]:
        n_captured.append(len(tokens))
        return capture(model, tokens, *options)

    monkeypatch.setattr(stage, "capture", counting)
    one, three = (load_recipe("tiny.toml", SETS[1::2], name) for name in ("one", "three"))
    assert run_extract(Run(one, recipe / "one", "cpu"))
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda _: run_extract(Run(three, recipe / "three", "cpu")), range(3)))
    assert sorted(n_captured[:49]) == sorted(n_captured[49:])
    stores = [recipe / name / "extract" / "activations.zarr" for name in ("one", "three")]
    assert ActivationStore.open(stores[0]).digest == ActivationStore.open(stores[1]).digest
    assert not list((stores[1] / "leases").rglob("*.json"))


def fill(folder: Path, name: str, n: int, kills: int, rng: random.Random) -> int:
    """Run n workers until the store is done; SIGKILL one of them at a random moment, up to `kills` times. Returns the
    kills that hit a running process."""
    run = folder / "runs" / name
    arguments = ["extract", "tiny.toml", *SETS, "--name", name, "--worker"]
    hit = 0
    while not (run / "extract" / "manifest.json").exists():
        processes = [start(*arguments, f"{i}/{n}", cwd=folder) for i in range(n)]
        if hit < kills:
            time.sleep(rng.uniform(0.5, 2.0 + 1.5 * n))
            for process in rng.sample(processes, rng.randint(1, n)):
                if hit < kills and process.is_alive():
                    process.kill()
                    hit += 1
        for process in processes:
            process.wait()
    return hit


@pytest.mark.slow
def test_forty_kills_of_one_two_and_five_workers_change_nothing(recipe: Path) -> None:
    unmix("extract", "tiny.toml", *SETS, "--name", "undisturbed", cwd=recipe)
    expected = digest(recipe / "runs" / "undisturbed")
    rng, hits, rounds = random.Random(1), 0, 0
    while hits < 40:
        for n in (1, 2, 5):
            hits += fill(recipe, f"run-{rounds}-{n}", n, kills=6, rng=rng)
            assert digest(recipe / "runs" / f"run-{rounds}-{n}") == expected
        rounds += 1


def test_extract_makes_again_what_verify_took_back(recipe: Path) -> None:
    unmix("extract", "tiny.toml", *SETS, "--name", "one", cwd=recipe)
    store = recipe / "runs" / "one" / "extract" / "activations.zarr"
    before = digest(recipe / "runs" / "one")
    file = store / "blocks.0.mlp.hook_post" / "c" / "7" / "0"
    data = bytearray(file.read_bytes())
    data[1000] ^= 4
    file.write_bytes(data)
    found = unmix("verify", str(store), cwd=recipe, check=False)
    assert found.returncode == 1
    assert f"{file} was altered" in found.stdout
    assert f"unmix verify {store} --repair" in found.stderr
    assert "shard 7 taken back" in unmix("verify", str(store), "--repair", cwd=recipe).stdout
    assert "extract: done" in unmix("extract", "tiny.toml", *SETS, "--name", "one", cwd=recipe).stdout
    assert digest(recipe / "runs" / "one") == before
    assert unmix("verify", str(store), cwd=recipe).returncode == 0


def test_extract_closes_a_store_that_was_killed_after_a_shard_was_made_again(recipe: Path) -> None:
    unmix("extract", "tiny.toml", "--name", "one", cwd=recipe)
    store = recipe / "runs" / "one" / "extract" / "activations.zarr"
    before = digest(recipe / "runs" / "one")
    (store / "commits" / "00003.json").write_bytes(b"")
    unmix("verify", str(store), "--repair", cwd=recipe)
    kill_at("*/activations.zarr/manifest.json", 1, "extract", "tiny.toml", "--name", "one", cwd=recipe)
    refused = unmix("train", "tiny.toml", "--name", "one", cwd=recipe, check=False)
    assert "not finished, 10 of 10 shards: run `unmix extract`" in refused.stderr
    assert "extract: done" in unmix("extract", "tiny.toml", "--name", "one", cwd=recipe).stdout
    assert digest(recipe / "runs" / "one") == before


def test_bad_workers_are_told(recipe: Path) -> None:
    for worker in ("3/3", "x", "1"):
        done = unmix("extract", "tiny.toml", "--worker", worker, cwd=recipe, check=False)
        assert done.returncode == 2
        assert "expected I/N" in done.stderr
