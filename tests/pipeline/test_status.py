"""What `unmix status` says, from files alone, while others work and after they failed."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import pipeline.status
from pipeline.claims import Claims
from pipeline.models.files import ModelFiles
from pipeline.only import Only
from pipeline.stages import Run, load_recipe, run_extract, run_score, run_train
from pipeline.status import Progress, status
from pipeline.status_table import eta_s, show
from pipeline.train.group import Group
from stores.lease import LEASE_S, Leases
from stores.place import Folder
from tests.conftest import Process, environment, make_store, planted_rows, start
from tests.pipeline.conftest import RESID
from tests.pipeline.test_units import unit

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a recipe that trains 16 dictionaries in four groups."""
    hooks = [f"blocks.{i}.hook_resid_post" for i in range(4)]
    rows = lambda hook_point, n, d: planted_rows(n, d)  # noqa: E731
    make_store(tmp_path / "s.zarr", n_sequences=200, d=dict.fromkeys(hooks, 16), rows=rows, chunk_sequences=20)
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[train]\nbatch_size = 64\nn_tokens = 1280\n'
        "[train.topk]\nd_sae = [24, 48]\nk = 4\nseed = [0, 1]\n"
    )
    return tmp_path


def run_of(folder: Path, *sets: str, only: tuple[str, ...] = ()) -> Run:
    return Run(load_recipe(str(folder / "r.toml"), list(sets)), folder / "runs" / "r", "cpu", only=Only(only))


def trained(rows: list[Progress]) -> dict[str, Progress]:
    return {row.unit: row for row in rows if row.stage == "train"}


def manifests(run: Run) -> set[str]:
    return {
        f"{path.parent.parent.name}/{path.parent.name}" for path in (run.folder / "train").glob("*/*/manifest.json")
    }


def watch(run: Run, workers: list[Process], n: int, group: int) -> None:
    """Look while workers train n dictionaries in groups, until they have ended; every look has to be right."""
    before: set[str] = set()
    samples = 0
    while any(worker.is_alive() for worker in workers):
        earlier, rows = manifests(run), trained(status(run))
        states = {unit: row.state for unit, row in rows.items()}
        done = {unit for unit, state in states.items() if state == "done"}
        assert len(rows) == n
        assert {*states.values()} <= {"done", "running", "waiting"}
        assert before | earlier <= done <= manifests(run)  # as soon as its manifest is there, not before, and for good
        for row in rows.values():
            assert bool(row.workers) == (row.state == "running")
            assert {worker.pid for worker in row.workers} <= {worker.pid for worker in workers}
        by_worker = Counter(row.workers[0].pid for row in rows.values() if row.state == "running")
        assert all(n <= group for n in by_worker.values())
        before, samples = done, samples + 1
        time.sleep(0.02)
    assert [worker.wait() for worker in workers] == [0] * len(workers)
    assert {row.state for row in trained(status(run)).values()} == {"done"}
    assert samples > 20


@pytest.mark.slow
def test_status_is_right_at_every_moment_of_a_sweep_of_two_workers(folder: Path) -> None:
    long = "train.n_tokens=12800"
    watch(run_of(folder, long), [start("train", "r.toml", "--set", long, cwd=folder) for _ in range(2)], n=16, group=4)


def test_units_that_are_done_are_counted_and_of_those_that_wait_the_first_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [Progress("train", f"s/d{i}", "done", 9, 9, "steps", None, Path("x")) for i in range(3)]
    rows += [Progress("train", f"s/w{i}", "waiting", 0, 9, "steps", None, Path("x")) for i in range(20)]
    rows += [Progress("train", f"s/r{i}", "running", 3, 9, "steps", 1.0, Path("x")) for i in range(15)]

    def named(every: bool) -> tuple[list[str], list[str]]:
        show(rows, every)
        lines = [line.split() for line in capsys.readouterr().out.split("\n") if line.startswith("train ")]
        units = [line[1] for line in lines if line[1].startswith("s/")]
        return units, [" ".join(line[1:]) for line in lines if line[1].isdigit() and line[2] in ("done", "more")]

    names = [row.unit for row in rows]
    assert named(every=True) == (names, [])
    assert named(every=False) == (names[3:15] + names[23:], ["8 more waiting"])


def test_who_works_is_told_with_host_process_and_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "901")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "881")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    one = unit(tmp_path / "u")
    with Claims(tmp_path) as claims:
        assert Claims(tmp_path).worker(one) is None
        claims.claim([one])
        found = Claims(tmp_path).worker(one)
        assert found
        assert (found.host, found.pid, found.job) == (os.uname().nodename, os.getpid(), "881_3")
    assert Claims(tmp_path).worker(one) is None


@pytest.mark.parametrize(("age", "lives"), [(LEASE_S / 2, True), (2 * LEASE_S, False)])
def test_a_process_of_another_machine_lives_as_long_as_it_says_so(tmp_path: Path, age: float, lives: bool) -> None:
    """By the clock that dates the files: here none is ever asked what time it is."""
    with Leases(Folder(tmp_path)) as leases:
        assert leases.acquire("k")
        (file,) = (tmp_path / "leases/held/k").iterdir()
        file.write_text(json.dumps({**json.loads(file.read_text()), "machine": "another", "host": "node7"}))
        (alive,) = (tmp_path / "leases/alive").iterdir()
        os.utime(alive, (time.time() - age, time.time() - age))
        found = Leases(Folder(tmp_path)).holder("k")
        assert (found is not None and found.host == "node7") == lives
        alive.unlink()
        assert Leases(Folder(tmp_path)).holder("k") is None
    assert {path.name for path in (tmp_path / "leases").iterdir()} <= {"alive", "held"}


def test_what_failed_is_told_with_its_error_until_it_is_begun_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, error = run_of(folder, only=(HOOK,)), RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Group, "run", fail)
        with pytest.raises(RuntimeError):
            run_train(run)
    rows = trained(status(run))
    failed = {unit: row for unit, row in rows.items() if row.state == "failed"}
    assert {unit.split("/")[0] for unit in failed} == {HOOK}  # the group that it was at
    assert len(failed) == 4
    assert Counter(row.state for row in rows.values())["waiting"] == 12
    row = failed[f"{HOOK}/topk-d24-k4-s0"]
    assert row.error == "Tried to allocate 20 GiB"
    assert row.failure
    assert (row.failure.host, row.failure.pid) == (os.uname().nodename, os.getpid())
    show([row])
    assert "Tried to allocate 20 GiB" in capsys.readouterr().out
    run_train(run)
    assert {trained(status(run))[unit].state for unit in failed} == {"done"}
    assert not list(run.folder.rglob("failed.json"))


def test_the_log_of_what_failed_is_the_file_that_its_stderr_went_to(folder: Path) -> None:
    (folder / "r.toml").write_text((folder / "r.toml").read_text() + "lr = 1e30\n")
    assert start("train", "r.toml", "--only", HOOK, cwd=folder, stderr=folder / "slurm-881_3.out").wait() == 1
    row = trained(status(run_of(folder)))[f"{HOOK}/topk-d24-k4-s0"]
    assert row.state == "failed"
    assert row.error
    assert "diverged before step" in row.error
    assert row.failure
    assert row.failure.log == str(folder / "slurm-881_3.out")


def test_scores_that_are_moved_aside_between_two_looks_are_not_described_yet(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe)
    text = (recipe / "tiny.toml").read_text()
    (recipe / "tiny.toml").write_text(text[: text.index("[train.topk]")] + "[train.pca]\n[score]\nn_sequences = 8\n")
    sets = ["extract.n_rows=2000", "train.n_tokens=1280", f"extract.hook_points=['{RESID}']"]
    run = Run(load_recipe("tiny.toml", sets), recipe / "runs" / "r", "cpu")
    for stage in (run_extract, run_train, run_score):
        stage(run)
    monkeypatch.setattr(pipeline.status, "json_object", lambda _: None)
    (row,) = (row for row in status(run) if row.stage == "report")
    assert (row.state, row.unit) == ("waiting", f"{RESID}/pca")


def test_nothing_large_is_read(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the model, nor the text, nor the store's rows, nor what dictionaries and scores hold."""
    monkeypatch.chdir(recipe)
    text = (recipe / "tiny.toml").read_text()
    head = text[: text.index("[train.topk]")]
    (recipe / "tiny.toml").write_text(head + "[train.topk]\nd_sae = 48\nk = 4\n[train.pca]\n[score]\nn_sequences = 8\n")
    sets = ["extract.n_rows=2000", "train.n_tokens=1280", f"extract.hook_points=['{RESID}']"]
    run = Run(load_recipe("tiny.toml", sets), recipe / "runs" / "r", "cpu")
    assert Counter(row.state for row in status(run)) == {"waiting": 1 + 2 + 2 + 2}
    for stage in (run_extract, run_train, run_score):
        stage(run)
    for path in [*run.folder.rglob("*.safetensors"), *run.folder.rglob("*.npz"), *run.folder.rglob("c/0/0")]:
        path.write_bytes(b"0" * path.stat().st_size)
    for name in ("digest", "tokenizer", "tokenizer_digest"):
        monkeypatch.setattr(ModelFiles, name, property(lambda _: pytest.fail("the model is read")))
    (recipe / "text.txt").unlink()
    found = Counter((row.stage, row.state) for row in status(run))
    assert found == {("extract", "done"): 1, ("train", "done"): 2, ("score", "done"): 2, ("report", "waiting"): 2}


def test_a_stages_eta_is_of_what_is_left_at_the_rate_of_now() -> None:
    row = lambda state, done, rate: Progress("train", "a/b", state, done, 100, "steps", rate, Path("x"))  # noqa: E731
    assert eta_s([row("done", 100, None), row("running", 50, 10.0), row("waiting", 0, None)]) == pytest.approx(15)
    assert eta_s([row("waiting", 0, None)]) is None


@pytest.mark.slow
def test_a_reader_that_ended_early_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m pipeline status r.toml --json 2> said | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.stdout == "141\n"
    assert (folder / "said").read_text() == ""
