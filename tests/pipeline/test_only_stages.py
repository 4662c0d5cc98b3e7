"""Stages that are asked for some dictionaries alone, one after another and at once."""

import json
import multiprocessing
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import pipeline.score.pictures
import pipeline.score.stage
from pipeline.only import Only
from pipeline.stages import Run, load_recipe, run_score, run_train
from pipeline.train.group import Group
from stores.formats.found import path_digest
from tests.conftest import make_store, planted_rows, start, unmix
from tests.pipeline.conftest import tree

SITES = [f"blocks.{layer}.hook_resid_post" for layer in (1, 2)]
NAMES = ["topk-d24-k2-s0", "topk-d24-k2-s1", "pca"]
PLACES = [f"{site}/{name}" for site in SITES for name in NAMES]
RECIPE = """store = "s.zarr"
[train]
batch_size = 64
n_tokens = 640
[train.topk]
d_sae = 24
k = 2
seed = [0, 1]
[train.pca]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With r.toml and its store. It is the working folder."""
    make_store(tmp_path / "s.zarr", d=dict.fromkeys(SITES, 12), rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures of scores, which take longer than all else."""
    monkeypatch.setattr(pipeline.score.pictures, "draw", lambda *_: None)


def done(run: Path, stage: str) -> list[str]:
    """SITE/NAME of what is finished."""
    found = {f"{path.parts[-3]}/{path.parts[-2]}" for path in (run / stage).glob("*/*/manifest.json")}
    assert found <= set(PLACES)
    return [place for place in PLACES if place in found]


def scores(run: Path) -> dict[str, Any]:
    return json.loads((run / "score" / "scores.json").read_text())


def scored(run: Path) -> list[str]:
    return [f"{row['site']}/{row['name']}" for row in scores(run)["dictionaries"]]


def results(run: Path) -> dict[str, bytes]:
    """What the score stage leaves for good."""
    kept = ("scores.json", "histograms.npz", ".png")
    return {str(p.relative_to(run)): p.read_bytes() for p in (run / "score").rglob("*") if p.name.endswith(kept)}


def run_of(name: str, *patterns: str) -> Run:
    return Run(load_recipe("r.toml", name=name), Path("runs") / name, "cpu", only=Only(patterns))


@pytest.mark.slow
def test_what_is_scored_in_parts_is_what_one_run_scores(folder: Path) -> None:
    """Pictures, too; those of a site at which nothing is new are left alone."""
    run = folder / "runs" / "r"
    unmix("train", "r.toml", "--only", "topk-*", "--only", PLACES[5], cwd=folder)
    unmix("score", "r.toml", "--only", f"{SITES[1]}/topk-*", cwd=folder)
    assert done(run, "score") == scored(run) == PLACES[3:5]
    unmix("score", "r.toml", "--only", PLACES[5], cwd=folder)
    before = tree(run / "score" / SITES[1])
    unmix("run", "r.toml", cwd=folder)
    assert tree(run / "score" / SITES[1]) == before
    assert scores(run)["missing"] == []
    unmix("run", "r.toml", "--name", "plain", cwd=folder)
    assert results(run) == results(folder / "runs" / "plain")


def test_those_alone_are_trained_and_scored_and_what_is_missing_is_told(folder: Path, undrawn: None) -> None:
    run = folder / "runs" / "r"
    unmix("train", "r.toml", "--only", "blocks.2*/topk-*", "--only", PLACES[2], cwd=folder)
    assert done(run, "train") == PLACES[2:5]
    told = unmix("score", "r.toml", "--only", "pca", cwd=folder, check=False)
    assert told.returncode == 2
    assert f"pca at {SITES[1]} is new, not trained: run `unmix train` first" in told.stderr
    assert not (run / "score").exists()
    shown = unmix("score", "r.toml", "--only", "topk-*-s1", "--only", PLACES[3], cwd=folder, check=False)
    assert shown.returncode == 2  # that of the first site is not trained
    shown = unmix("score", "r.toml", "--only", SITES[1] + "/topk-*", cwd=folder)
    assert done(run, "score") == scored(run) == PLACES[3:5]
    assert len(scores(run)["pairs"]) == 2
    assert scores(run)["missing"] == [PLACES[0], PLACES[1], PLACES[5], PLACES[2]]  # not trained, not scored
    assert f"! 4 more have no scores yet: {PLACES[0]}, {PLACES[1]}, {PLACES[5]}, …" in shown.stdout
    unmix("score", "r.toml", "--only", PLACES[2], cwd=folder)
    assert scored(run) == PLACES[2:5]


def test_settings_of_others_are_no_matter(folder: Path, undrawn: None) -> None:
    run = folder / "runs" / "r"
    unmix("run", "r.toml", cwd=folder)
    other = ["--set", "train.pca.n_rows=50"]
    assert unmix("train", "r.toml", *other, cwd=folder, check=False).returncode == 2
    assert "nothing to do" in unmix("train", "r.toml", *other, "--only", "topk-*", cwd=folder).stdout
    unmix("score", "r.toml", *other, "--only", "blocks.1*/topk-*", cwd=folder)
    assert scored(run) == [place for place in PLACES if "topk" in place]
    again = unmix("train", "r.toml", *other, "--only", PLACES[2], "--replace", cwd=folder)
    assert "train: done" in again.stdout
    plans = [json.loads((run / "train" / place / "plan.json").read_text()) for place in PLACES[2::3]]
    assert [plan["settings"]["pca"]["n_rows"] for plan in plans] == [50, 65536]


@pytest.mark.parametrize("stage", ["train", "score", "run"])
def test_a_pattern_that_fits_nothing_is_one_line_and_nothing_is_written(folder: Path, stage: str) -> None:
    unmix("train", "r.toml", "--only", "pca", "--name", "other", cwd=folder)
    before = tree(folder)
    asked = ["--only", "pca", "--only", "blocks.1*/topk-d25-*", "--name", "other"]
    told = unmix(stage, "r.toml", *asked, cwd=folder, check=False)
    assert told.returncode == 2
    assert tree(folder) == before
    assert re.fullmatch(
        r"unmix: --only 'blocks.1\*/topk-d25-\*' fits no dictionary; there are blocks.1.hook_resid_post/topk.* and 3 more: "
        r"`unmix status r.toml --name other` lists them\n",
        told.stderr,
    )
    listed = unmix("status", "r.toml", "--name", "other", cwd=folder).stdout
    assert set(PLACES) <= set(listed.split())


def test_status_as_json_names_units_as_only_takes_them(folder: Path) -> None:
    unmix("train", "r.toml", "--only", PLACES[4], cwd=folder)
    rows = json.loads(unmix("status", "r.toml", "--json", cwd=folder).stdout)
    assert {row["unit"] for row in rows if row["stage"] == "train"} == set(PLACES)
    (one,) = (row for row in rows if row["stage"] == "train" and row["state"] == "done")
    assert one == {
        "stage": "train", "unit": PLACES[4], "state": "done", "done": 10, "of": 10, "counted": "steps", "rate": None,
        "eta_s": None, "folder": f"runs/r/train/{PLACES[4]}", "workers": [], "error": None, "failure": None,
    }  # fmt: skip


def test_a_dictionary_that_nobody_asked_for_is_compared_as_it_was_scored_or_not_at_all(
    folder: Path, undrawn: None
) -> None:
    """Its digest is the manifest's; its bytes are looked at where they are read."""
    run, other = folder / "runs" / "r", folder / "runs" / "r" / "train" / PLACES[0]
    unmix("train", "r.toml", "--only", "blocks.1*/topk-*", cwd=folder)
    unmix("score", "r.toml", "--only", PLACES[0], cwd=folder)
    plan = json.loads((run / "score" / PLACES[0] / "plan.json").read_text())
    assert plan["inputs"]["dictionary_digest"] == path_digest(other)
    weights = other / "sae_weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 64]))
    told = unmix("score", "r.toml", "--only", PLACES[1], cwd=folder, check=False)
    assert told.returncode == 1
    assert f"{PLACES[0]}/sae_weights.safetensors was altered" in told.stderr
    assert done(run, "score") == PLACES[:2]
    assert scored(run) == PLACES[:1]
    weights.write_bytes(kept)
    unmix("score", "r.toml", "--only", PLACES[1], cwd=folder)
    assert scored(run) == PLACES[:2]


def test_the_table_has_what_others_score_while_it_is_made(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process has read what is scored, another one scores more and would write its table, and then the first writes."""
    run_train(run_of("r"))
    make, run = pipeline.score.stage._summary, folder / "runs" / "r"
    other = threading.Thread(target=run_score, args=(run_of("r", SITES[1]),))

    def slowly(*given: Any) -> dict[str, Any]:
        found = make(*given)
        if not other.ident:
            other.start()
            while done(run, "score") != PLACES:
                assert other.is_alive()
                time.sleep(0.01)
            other.join(0.5)
        return found

    monkeypatch.setattr(pipeline.score.stage, "_summary", slowly)
    run_score(run_of("r", SITES[0]))
    other.join()
    assert scored(run) == PLACES


def train_and_tell(run: Run, together: Any, told: Any) -> None:
    """In a process of its own. Tells of the dictionaries that it makes together, once all processes are at some."""
    make, told_before = Group.run, []

    def watched(group: Group, start: Any) -> list[str]:
        if not told_before:
            together.wait(60)
        told_before.append([unit.place for _, unit in group.items.values()])
        return make(group, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Group, "run", watched)
        run_train(run)
    told.put(told_before)


def at_once(runs: list[Run]) -> list[list[list[str]]]:
    """What each process made, of several that train at the same time."""
    context = multiprocessing.get_context("forkserver")
    together, told = context.Barrier(len(runs)), context.Queue()
    processes = [context.Process(target=train_and_tell, args=(run, together, told)) for run in runs]
    for process in processes:
        process.start()
    found = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return sorted(found)


@pytest.mark.slow
def test_starts_without_shares_train_a_site_each_at_the_same_time(folder: Path) -> None:
    """Those of one site stay together, and none is made twice."""
    assert at_once([run_of("r")] * 2) == [[PLACES[:2]], [PLACES[3:5]]]
    assert done(folder / "runs" / "r", "train") == PLACES


@pytest.mark.slow
def test_starts_that_are_asked_for_some_each_train_one_site_at_the_same_time(folder: Path) -> None:
    runs = [run_of("r", f"{SITES[0]}/{name}") for name in NAMES[:2]]
    assert at_once(runs) == [[[PLACES[0]]], [[PLACES[1]]]]
    run_train(run_of("r", PLACES[2]))
    run_train(run_of("plain", SITES[0]))
    one, plain = (folder / "runs" / name / "train" / SITES[0] for name in ("r", "plain"))
    for name in ("curves.png", *(f"{name}/sae_weights.safetensors" for name in NAMES)):
        assert (one / name).read_bytes() == (plain / name).read_bytes()


@pytest.mark.slow
def test_processes_that_score_some_each_make_the_table_of_all(folder: Path) -> None:
    for name in ("r", "plain"):
        unmix("train", "r.toml", "--name", name, cwd=folder)
    asked = [f"{SITES[0]}/topk-*", f"{SITES[0]}/pca", SITES[1]]
    processes = [start("score", "r.toml", "--only", one, cwd=folder) for one in asked]
    assert [process.wait() for process in processes] == [0, 0, 0]
    unmix("score", "r.toml", "--name", "plain", cwd=folder)
    assert results(folder / "runs" / "r") == results(folder / "runs" / "plain")
