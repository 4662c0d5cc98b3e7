"""Faults that were found in use, through the command line: each lost or mixed data, or left no way on, with exit code 0 or a
library's own error. What they came from is tested beside its code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from stores import ActivationStore
from tests.conftest import environment, kill_at, make_store, planted_rows, start, unmix
from tests.pipeline.conftest import RESID, recipe  # noqa: F401  a fixture

SMALL = ["--set", "extract.n_rows=1500", "--set", f"extract.hook_points=['{RESID}']"]
OWN = [*SMALL, "--set", "extract.model=model"]


def store_of(folder: Path, name: str = "tiny") -> Path:
    return folder / "runs" / name / "extract" / "activations.zarr"


@pytest.fixture
def folder(recipe: Path) -> Path:  # noqa: F811
    """Of a recipe that trains next to nothing."""
    text = (recipe / "tiny.toml").read_text()
    rest = "[train.neuron_basis]\n" + text[text.index("[score]") :]
    (recipe / "tiny.toml").write_text(text[: text.index("[train.topk]")] + rest)
    return recipe


@pytest.fixture
def model(folder: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, folder / "model"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [True, False])
def test_four_that_start_at_once_fill_a_store(folder: Path, share: bool, times: int) -> None:
    sets = [*SMALL, "--set", "extract.chunk_rows=155", "--set", "extract.shard_chunks=1"]
    unmix("extract", "tiny.toml", *sets, "--name", "one", cwd=folder)
    expected = ActivationStore.open(store_of(folder, "one")).digest
    for i in range(times):
        command = ["extract", "tiny.toml", *sets, "--name", f"r{i}"]
        four = [start(*command, *(["--worker", f"{k}/4"] if share else []), cwd=folder) for k in range(4)]
        assert [process.wait() for process in four] == [0] * 4
        assert ActivationStore.open(store_of(folder, f"r{i}")).digest == expected


def test_a_run_that_lost_its_plan_and_manifest_is_kept(folder: Path) -> None:
    unmix("extract", "tiny.toml", *SMALL, cwd=folder)
    run = store_of(folder).parent
    for name in ("plan.json", "manifest.json"):
        (run / name).unlink()
    (run / "mine.txt").write_text("x")
    inode = (run / "activations.zarr" / "zarr.json").stat().st_ino
    refused(unmix("extract", "tiny.toml", *SMALL, cwd=folder, check=False), "holds activations.zarr and no plan.json")
    assert (run / "mine.txt").exists()
    assert (run / "activations.zarr" / "zarr.json").stat().st_ino == inode


def test_a_stores_hook_point_leads_train_nowhere(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", d={"HOOK": 12}, rows=lambda _, n, d: planted_rows(n, d))
    outside = tmp_path / "outside"
    shutil.copytree(tmp_path / "s.zarr" / "HOOK", outside)  # so that its rows are found there
    (outside / "pca").mkdir()
    (outside / "pca" / "mine.txt").write_text("x")
    for file in (tmp_path / "s.zarr" / "commits").glob("*.npz"):
        sums = dict(np.load(file))
        np.savez(file, **{key.replace("HOOK", str(outside)): value for key, value in sums.items()})
    for file in (tmp_path / "s.zarr").rglob("*.json"):
        file.write_text(file.read_text().replace('"HOOK', f'"{outside}'))
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[extract]\nhook_points = ["blocks.0.hook_resid_post"]\nn_rows = 1\n'
        f"[train]\nbatch_size = 64\nn_tokens = 64\n[train.pca]\nn_rows = 100\n"
    )
    done = unmix("train", "r.toml", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "a hook point is called" in done.stderr
    assert (outside / "pca" / "mine.txt").exists()


def test_workers_with_another_revision_of_a_dataset_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: object, revision: str, **__: object) -> list[dict[str, str]]:
        return [{"text": f"{revision} {i} house " * 9} for i in range(400)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("pipeline.extract.text.Documents.bookmark", lambda _: None)
    text = ["--set", "extract.store=shared.zarr", "--set", 'extract.text={source="hub", dataset="someone/text"}']
    first, second = (
        unmix(
            "extract", "tiny.toml", *SMALL, *text, "--set", f"extract.text.revision={letter * 40}", "--name", letter,
            "--worker", f"{i}/2", cwd=folder, check=False,
        )
        for i, letter in enumerate("ab")
    )  # fmt: skip
    assert first.returncode == 0
    refused(second, "holds a store of another description .text_digest")


def test_neither_extract_nor_score_goes_on_with_a_model_whose_settings_changed(folder: Path, model: Path) -> None:
    unmix("extract", "tiny.toml", *OWN, cwd=folder)
    unmix("train", "tiny.toml", *OWN, cwd=folder)
    change(model / "config.json", activation_function="relu")
    refused(unmix("extract", "tiny.toml", *OWN, cwd=folder, check=False), "input model_digest: ")
    refused(unmix("score", "tiny.toml", *OWN, cwd=folder, check=False), "model")


def test_an_empty_commit_in_an_unfinished_store_is_mended_by_what_the_messages_say(folder: Path) -> None:
    sets = [*SMALL, "--set", "extract.shard_chunks=1"]
    unmix("extract", "tiny.toml", *sets, "--name", "one", cwd=folder)
    kill_at("*/commits/*.json", 4, "extract", "tiny.toml", *sets, cwd=folder)
    (store_of(folder) / "commits" / "00001.json").write_bytes(b"")
    found = unmix("extract", "tiny.toml", *sets, cwd=folder, check=False)
    assert found.returncode != 0
    [command] = re.findall(r"`unmix ([^`]+)`", found.stderr)
    unmix(*command.split(), cwd=folder)
    unmix("extract", "tiny.toml", *sets, cwd=folder)
    assert ActivationStore.open(store_of(folder)).digest == ActivationStore.open(store_of(folder, "one")).digest


def test_a_replacement_that_is_killed_at_any_step_leaves_nothing_behind(folder: Path) -> None:
    unmix("extract", "tiny.toml", *SMALL, cwd=folder)
    new = [*SMALL, "--set", "extract.context=24"]
    for point in ("*/extract/plan.json", "*/commits/*.json", "*/extract/manifest.json"):
        kill_at(point, 1, "extract", "tiny.toml", *new, "--replace", cwd=folder)
    unmix("extract", "tiny.toml", *new, cwd=folder)
    assert ActivationStore.open(store_of(folder)).description.context == 24
    assert not list((folder / "runs" / "tiny").glob(".*.replaced"))


def test_a_replacement_that_is_killed_first_leaves_the_old_recipe_a_way_on(folder: Path) -> None:
    unmix("extract", "tiny.toml", *SMALL, cwd=folder)
    expected = ActivationStore.open(store_of(folder)).digest
    kill_at(
        "*/extract/plan.json", 1, "extract", "tiny.toml", *SMALL, "--set", "extract.context=24", "--replace", cwd=folder
    )
    unmix("extract", "tiny.toml", *SMALL, cwd=folder)
    assert ActivationStore.open(store_of(folder)).digest == expected


def test_a_tokenizers_truncation_and_padding_make_no_tokens(folder: Path, model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(model / "tokenizer.json"))
    many_files(folder, 200)
    unmix("extract", "tiny.toml", *OWN, "--set", "extract.text.path=many", cwd=folder)
    store = ActivationStore.open(store_of(folder))
    assert (store.tokens(0, store.description.n_sequences)[:, 1:] == 0).mean() < 0.05


def many_files(folder: Path, n: int) -> None:
    (folder / "many").mkdir()
    for i in range(n):
        (folder / "many" / f"{i}.txt").write_text(f"def walk_{i}(path): return {i}\n" * 9)


def test_a_model_without_any_tokenizer_is_refused(folder: Path, model: Path) -> None:
    for file in model.glob("tok*"):
        file.unlink()
    many_files(folder, 20)
    done = unmix("extract", "tiny.toml", *OWN, "--set", "extract.text.path=many", cwd=folder, check=False)
    refused(done, "tokenizer")
    assert not (folder / "runs").exists()


def test_a_token_of_the_text_that_the_model_does_not_have_is_refused(folder: Path, model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens(["walk_9"])
    tokenizer.save(str(model / "tokenizer.json"))
    refused(unmix("extract", "tiny.toml", *OWN, cwd=folder, check=False), "vocabulary|token")
    assert not (folder / "runs").exists()


def test_random_bytes_are_no_text(folder: Path) -> None:
    (folder / "text.txt").write_bytes(np.random.default_rng(0).bytes(300_000))
    refused(unmix("extract", "tiny.toml", *SMALL, cwd=folder, check=False), "text.txt is (binary|not UTF-8)")
    assert not (folder / "runs").exists()


def test_a_null_row_is_left_out_and_told(folder: Path) -> None:
    rows = [{"text": f"def walk_{i}(path): return {i}\n" * 9 if i != 40 else None} for i in range(100)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--set", "extract.n_rows=60000"]  # to the end of the text
    done = unmix("extract", "tiny.toml", *SMALL, *more, "--set", "extract.text.path=a.jsonl", cwd=folder)
    assert "1 of 100 rows have null in column 'text', the first is 41" in done.stdout + done.stderr


def test_libraries_add_no_lines_to_a_refusal(folder: Path, model: Path) -> None:
    """What they write themselves, not by Python's stderr, too."""
    change(model / "config.json", n_embd=48)
    code = start("extract", "tiny.toml", *OWN, cwd=folder, stderr=folder / "stderr").wait()
    refused(subprocess.CompletedProcess([], code, "", (folder / "stderr").read_text()), "config.json")


@pytest.mark.slow
def test_libraries_add_no_lines_to_a_refusal_while_they_are_loaded(folder: Path, model: Path) -> None:
    change(model / "config.json", n_embd=48)
    command = [sys.executable, "-m", "pipeline", "extract", "tiny.toml", *OWN]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    refused(done, "config.json")
