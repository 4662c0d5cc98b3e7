"""Extraction as a user runs it: text that ends, activations that overflow, a full disk, a store that lies elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pipeline.extract.config import ExtractConfig, TextConfig
from pipeline.extract.description import describe
from pipeline.models.files import ModelFiles
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.description import Part, is_heldout
from stores.place import place_at
from tests.conftest import environment, start, unmix
from tests.pipeline.conftest import MLP, RESID
from tests.pipeline.extract.test_packing import streams


def digest(folder: Path, name: str) -> str:
    return ActivationStore.open(folder / "runs" / name / "extract" / "activations.zarr").digest


MANY = ["--set", "extract.text.path=many"]


def many(folder: Path, n: int) -> list[str]:
    """n short documents in files of their own."""
    texts = [f"def walk_{i}(path):\n    return os.listdir(path)[{i}:]\n\n" * (1 + i % 5) for i in range(n)]
    (folder / "many").mkdir()
    for i, text in enumerate(texts):
        (folder / "many" / f"{i:04d}.txt").write_text(text)
    return texts


@pytest.mark.parametrize("n", [60, 40, 16])
def test_a_text_that_ends_early_makes_a_smaller_store(recipe: Path, n: int) -> None:
    """In later shards, in the second, and before two chunks are full."""
    expected = streams(many(recipe, n), 0.1)
    done = unmix("extract", "tiny.toml", *MANY, cwd=recipe)
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    description = store.description
    for part, sequences in expected.items():
        found = store.tokens(0, description.part_sequences(part), part)
        assert len(found)
        assert np.array_equal(found, sequences[: len(found)])
    stopped: Part = (
        "heldout"
        if is_heldout(description.n_chunks + 1, 0.1)[description.n_sequences // description.chunk_sequences]
        else "train"
    )
    assert description.part_sequences(stopped) == len(expected[stopped])
    assert f"the text ends after {description.n_sequences} sequences" in done.stdout
    assert f"the store has {store.n_rows} of 6000 rows" in done.stdout
    assert description.ended_early
    assert store.rows(RESID, 0, store.n_rows).any(1).all()
    assert "nothing to do" in unmix("extract", "tiny.toml", *MANY, cwd=recipe).stdout


@pytest.mark.parametrize(("kept", "n_chunks"), [(1 << 30, 4), (100_000, 2), (30_000, 1), (10, 1)])
def test_a_shard_of_all_hook_points_has_the_bytes_that_are_kept_for_it(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
    n_chunks: int,
) -> None:
    monkeypatch.setattr("pipeline.extract.description.SHARD_BYTES", kept)
    (tmp_path / "a.txt").write_text("".join(f"def walk_{i}(path): return {i}\n" for i in range(3000)))
    config = ExtractConfig(
        model=str(tiny_model),
        hook_points=(RESID, MLP),
        context=32,
        n_rows=3100,
        chunk_rows=155,
        shard_chunks=4,
        heldout_fraction=0.3,
        text=TextConfig(source="files", path=(str(tmp_path / "a.txt"),)),
    )
    unit = Unit("extract", "activations", tmp_path / "run", 0, {}, {"text": {}})
    description = describe(config, ModelFiles.find(config.model), unit, None)
    n_bytes = description.chunk_rows * sum(description.d) * 2
    assert description.shard_chunks == n_chunks
    assert n_chunks in (1, 4) or n_chunks * n_bytes <= kept < (n_chunks + 1) * n_bytes


def test_every_source_is_trained_on_and_held_out(recipe: Path) -> None:
    for name, line in (("books", "Call me walk {}, said the path.\n"), ("code", "def walk_{}(path): return path\n")):
        (recipe / name).mkdir()
        for i in range(100):
            (recipe / name / f"{i:03d}.txt").write_text(line.format(i) * 4)
    sets = [
        "--set",
        "extract.text.path=['books', 'code']",
        "--set",
        "extract.n_rows=20_000",
        "--set",
        "extract.chunk_rows=62",
    ]
    unmix("extract", "tiny.toml", *sets, cwd=recipe)
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    decode = ModelFiles.find("demo").tokenizer.decode
    scored = decode(store.heldout_tokens(8).ravel().tolist())
    trained = decode(store.tokens(0, store.description.part_sequences("train"), "train").ravel().tolist())
    for line in ("Call me walk", "def walk_"):
        assert line in scored
        assert line in trained


def test_a_text_without_a_heldout_document_is_told(recipe: Path) -> None:
    (recipe / "text.txt").write_text("import os\n" * 100)
    done = unmix("extract", "tiny.toml", cwd=recipe, check=False)
    assert done.returncode == 2
    assert "the held-out documents fill no sequence of 32 tokens with extract.heldout_fraction = 0.1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (recipe / "runs").exists()


def test_a_store_is_done_only_for_the_rows_that_were_asked_for(recipe: Path) -> None:
    """Also where another recipe's text would have ended just there."""
    many(recipe, 40)
    there = ["extract", "tiny.toml", *MANY, "--set", "extract.store=shared.zarr"]
    unmix(*there, "--name", "one", cwd=recipe)
    n_rows = ActivationStore.open(recipe / "shared.zarr").n_rows
    other = unmix(*there, "--set", f"extract.n_rows={n_rows}", "--name", "two", cwd=recipe, check=False)
    assert other.returncode == 2
    assert "holds a store of another description" in other.stderr
    more = unmix(*there, "--set", "extract.n_rows=7000", "--name", "three", cwd=recipe, check=False)
    assert "holds a store of another description" in more.stderr
    assert "extract: done" in unmix(*there, "--name", "four", cwd=recipe).stdout


def test_a_run_is_not_done_with_the_store_that_another_text_made_where_its_own_lay(recipe: Path) -> None:
    there = ["extract", "tiny.toml", "--set", "extract.store=shared.zarr"]
    unmix(*there, "--name", "one", cwd=recipe)
    many(recipe, 60)
    (recipe / "shared.zarr").rename(recipe / "aside.zarr")
    unmix(*there, *MANY, "--name", "two", cwd=recipe)
    other = unmix(*there, "--name", "one", cwd=recipe, check=False)
    assert other.returncode == 2
    assert "holds a store of another description" in other.stderr
    shutil.rmtree(recipe / "shared.zarr")
    (recipe / "aside.zarr").rename(recipe / "shared.zarr")
    assert "extract: nothing to do" in unmix(*there, "--name", "one", cwd=recipe).stdout


def test_workers_find_the_end_of_the_text_whoever_gets_there(recipe: Path) -> None:
    many(recipe, 60)
    unmix("extract", "tiny.toml", *MANY, "--name", "one", cwd=recipe)
    for i in (2, 0, 1):
        unmix("extract", "tiny.toml", *MANY, "--name", "three", "--worker", f"{i}/3", cwd=recipe)
    assert digest(recipe, "three") == digest(recipe, "one")


def test_activations_that_overflow_are_refused_or_kept_and_told(recipe: Path, tiny_model: Path) -> None:
    model = recipe / "huge"
    shutil.copytree(tiny_model, model)
    weights = load_file(model / "model.safetensors")
    weights["transformer.wpe.weight"][7] *= 1e6  # position 7 leaves float16 behind
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    sets = [
        "--set",
        f"extract.model={model}",
        "--set",
        "extract.dtype=float16",
        "--set",
        f"extract.hook_points=['{RESID}']",
    ]
    sets += ["--set", "extract.n_rows=900"]
    refused = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert refused.returncode == 1
    assert "not finite in float16, the first at sequence 0, position 7: try extract.dtype" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    kept = unmix("extract", "tiny.toml", *sets, "--set", "extract.allow_nonfinite=true", "--replace", cwd=recipe)
    assert f"30 activations at {RESID} are not finite in float16, the first at sequence 0, position 7" in kept.stdout
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    assert store.nonfinite == {RESID: (30, 0, 7)}
    assert store.stats(RESID).n_rows == store.n_train_rows - 20
    assert np.isfinite(store.stats(RESID).mean).all()
    train = unmix("train", "tiny.toml", *sets, "--set", "extract.allow_nonfinite=true", cwd=recipe, check=False)
    assert train.returncode == 2
    assert "nothing can be learned from such rows" in train.stderr


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_next_run_goes_on(recipe: Path) -> None:
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    unmix("extract", "tiny.toml", "--name", "roomy", cwd=recipe)
    command = f"{sys.executable} -m pipeline extract tiny.toml --runs small"
    script = f"""mkdir small && mount -t tmpfs -o size=2m tmpfs small || exit 99
        {command} >first.txt; echo first $?
        ls small/tiny/extract/activations.zarr/commits | grep -c json; find small -name '*.partial*'
        mount -o remount,size=100m small
        {command} && cp -r small/tiny runs/full"""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], cwd=recipe, env=environment(), capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode == 99:
        pytest.skip("this user may not mount a small file system")
    assert done.stdout.startswith("first 1\n")
    assert 1 <= int(done.stdout.splitlines()[1]) < 10
    assert "partial" not in done.stdout
    assert "unmix: no space left at small/tiny/extract/activations.zarr" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert digest(recipe, "full") == digest(recipe, "roomy")


@pytest.mark.slow
def test_a_store_on_s3_is_filled_by_workers_that_are_killed(recipe: Path, s3: str) -> None:
    unmix("extract", "tiny.toml", "--name", "here", cwd=recipe)
    url = f"{s3}/killed/activations.zarr"
    there = ["extract", "tiny.toml", "--set", f"extract.store={url}"]
    points = [("*/commits/*.json", 2), (f"*/{RESID}/c/*", 3)]
    processes = [
        start(*there, "--name", f"w{i}", "--worker", f"{i}/2", cwd=recipe, dies_at=point)
        for i, point in enumerate(points)
    ]
    assert [process.wait() for process in processes] == [-SIGKILL, -SIGKILL]
    assert any(name.endswith(".json") for name in place_at(url).names("commits"))
    unmix(*there, "--name", "last", cwd=recipe)
    store = ActivationStore.open(url)
    assert store.digest == digest(recipe, "here")
    assert "as they were committed" in unmix("verify", url, cwd=recipe).stdout
    # Another recipe's store in the same place is refused, and stays.
    other = unmix(*there, "--set", "extract.context=24", "--name", "other", cwd=recipe, check=False)
    assert other.returncode == 2
    assert "holds a store of another description" in other.stderr
    assert ActivationStore.open(url).digest == store.digest
    # And other recipes train on it where it lies.
    sets = ["--set", f"store={url}", "--set", "train.n_tokens=1280", "--set", f"train.topk.hook_points={MLP}"]
    trained = unmix("train", "tiny.toml", *sets, "--name", "elsewhere", cwd=recipe)
    assert "train: done" in trained.stdout


def test_a_url_that_nothing_can_reach_is_told(recipe: Path) -> None:
    done = unmix("extract", "tiny.toml", "--set", "extract.store=nonsense://x", cwd=recipe, check=False)
    assert done.returncode == 2
    assert "cannot reach nonsense://x" in done.stderr
    assert not (recipe / "runs").exists()
