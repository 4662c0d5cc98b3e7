"""unmix submit, without a Slurm: inline, as processes, or to programs that answer as Slurm's do."""

import json
import os
from pathlib import Path

import pytest

import pipeline.score.pictures
from tests.conftest import kill_at, make_store, planted_rows, unmix
from tests.pipeline.conftest import contents, tree
from tests.pipeline.test_only_stages import RECIPE, SITES

TABLE = '[cluster]\nwidth = 4\ntogether = 2\npartition = "low"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With r.toml, its store, and a [cluster] table."""
    make_store(tmp_path / "s.zarr", d=dict.fromkeys(SITES, 12), rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(RECIPE + TABLE)
    monkeypatch.setattr(pipeline.score.pictures, "draw", lambda *_: None)  # it takes longer than all else
    return tmp_path


def results(run: Path) -> dict[str, bytes]:
    """Dictionaries, and the table of scores where it is."""
    files = [p for p in run.rglob("*") if p.suffix == ".safetensors" or p.name == "scores.json"]
    return {str(p.relative_to(run)): p.read_bytes() for p in files}


def submitted(out: str) -> list[str]:
    """TASK of those that ran inline, in order."""
    return [line.split(": unmix ")[0] for line in out.splitlines() if ": unmix " in line]


def test_tasks_train_what_a_plain_run_trains_and_then_there_is_nothing_to_submit(folder: Path) -> None:
    done = unmix("submit", "r.toml", "train", "--cluster", "debug", cwd=folder)
    # Two sites with three dictionaries each, two of which share a read.
    assert submitted(done.stdout) == [f"train[{i}]" for i in range(4)]
    unmix("train", "r.toml", "--name", "plain", cwd=folder)
    assert results(folder / "runs" / "r") == results(folder / "runs" / "plain")
    assert "nothing to submit: all is there" in unmix("submit", "r.toml", "train", "--dry-run", cwd=folder).stdout


def test_what_a_killed_process_has_not_done_is_left(folder: Path) -> None:
    kill_at("*/train/*/topk-d24-k2-s1/manifest.json", 1, "train", "r.toml", cwd=folder)
    planned = unmix("submit", "r.toml", "--dry-run", cwd=folder).stdout
    assert "train: 3 tasks" in planned  # pca is made first, topk with seed 0 then
    assert "score: 4 tasks, after train" in planned
    assert "report" not in planned  # the store is of no model, so there is nothing to show


@pytest.mark.slow
def test_sites_are_scored_one_by_one_and_the_table_is_that_of_a_plain_run(folder: Path) -> None:
    unmix("train", "r.toml", "--only", SITES[0], cwd=folder)
    done = unmix("submit", "r.toml", "--cluster", "debug", "--scores-while-training", cwd=folder)
    begun = submitted(done.stdout)
    assert begun[:2] == [f"train@{SITES[1]}[{i}]" for i in range(2)]
    assert sorted(begun[2:]) == ["score", *(f"score@{site}[{i}]" for site in SITES for i in range(2))]
    assert begun[-1] == "score"
    unmix("run", "r.toml", "--name", "plain", cwd=folder)
    assert results(folder / "runs" / "r") == results(folder / "runs" / "plain")
    before = tree(folder / "runs" / "r" / "score")
    assert "nothing to submit" in unmix("submit", "r.toml", cwd=folder).stdout
    assert tree(folder / "runs" / "r" / "score") == before


def test_a_dry_run_prints_jobs_and_changes_nothing(folder: Path) -> None:
    out = unmix(
        "submit", "r.toml", "--dry-run", "--gpus", "2", "--name", "x", "--set", "train.seed=3", cwd=folder
    ).stdout
    assert "score: 4 tasks, after train" in out
    assert "score-rest: 1 task, only if a task of score fails" in out
    assert "sbatch --time=240 --signal=USR2@120 --partition=low --gpus-per-node=2 --array=0-3%4" in out
    assert "-m pipeline train r.toml --set train.seed=3 --name x --together 2 --worker 3/4" in out
    assert "-m pipeline score r.toml --set train.seed=3 --name x --together 2 --ready --worker 0/4" in out
    assert not (folder / "runs").exists()


def test_processes_are_no_more_than_there_are_cpus_unless_that_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.submit.cpus_here", lambda: 3)
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text.replace("width = 4\n", ""))
    local = ("submit", "r.toml", "train", "--dry-run", "--cluster", "local")
    assert "train: 3 tasks" in unmix(*local, cwd=folder).stdout
    assert "train: 1 task\n" in unmix(*local, "--cpus", "2", cwd=folder).stdout
    assert "train: 4 tasks" in unmix(*local, "--width", "9", cwd=folder).stdout


def test_who_only_looks_removes_nothing(folder: Path) -> None:
    """Neither what a process that died has replaced and not removed yet."""
    unmix("train", "r.toml", "--only", "pca", cwd=folder)
    replaced = folder / "runs" / "r" / "train" / SITES[0] / f".pca.{'0' * 32}.replaced"
    replaced.mkdir()
    unmix("submit", "r.toml", "--dry-run", cwd=folder)
    unmix("status", "r.toml", cwd=folder)
    assert replaced.exists()
    unmix("train", "r.toml", "--only", "pca", cwd=folder)
    assert not replaced.exists()


@pytest.mark.slow
def test_what_failed_for_good_does_not_hold_the_others_and_is_named(folder: Path) -> None:
    """A dictionary whose learning rate is too high, beside others."""
    bad = f'[[train.relu_l1]]\nd_sae = 24\nlr = 1e30\nhook_points = "{SITES[0]}"\n'
    (folder / "r.toml").write_text(RECIPE + bad + TABLE)
    done = unmix("submit", "r.toml", "--cluster", "debug", cwd=folder, check=False)
    assert done.returncode == 1
    assert "relu_l1-d24" in done.stderr
    assert "diverged" in done.stderr
    scores = json.loads((folder / "runs" / "r" / "score" / "scores.json").read_text())
    assert len(scores["dictionaries"]) == 6
    assert len(scores["missing"]) == 1


@pytest.mark.slow
def test_local_processes_end_with_what_a_plain_run_makes(recipe: Path) -> None:
    """Of all stages, from text to pages."""
    (recipe / "tiny.toml").write_text((recipe / "tiny.toml").read_text() + "[cluster]\nwidth = 2\ntogether = 7\n")
    unmix("submit", "tiny.toml", "--cluster", "local", cwd=recipe)
    unmix("run", "tiny.toml", "--name", "plain", cwd=recipe)
    local, plain = recipe / "runs" / "tiny", recipe / "runs" / "plain"
    stores = [contents(tree(run / "extract" / "activations.zarr")) for run in (local, plain)]
    assert stores[0] == stores[1]
    assert results(local) == results(plain)
    assert (local / "report" / "index.html").exists()
    assert "nothing to submit" in unmix("submit", "tiny.toml", "--dry-run", cwd=recipe).stdout


SLURM = {  # answers as Slurm does: numbers from 100 on; jobs of the file `queue` wait or run
    "sbatch": 'n=$(($(cat $FAKE/n 2>/dev/null || echo 99) + 1)); echo $n > $FAKE/n; cp "$1" $FAKE/$n.sh\n'
    "if grep -q partition=nope $1; then echo 'sbatch: error: invalid partition specified: nope' >&2\n"
    "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1; fi\n"
    "echo Submitted batch job $n",
    "squeue": "cat $FAKE/queue 2>/dev/null; true",
    "srun": "exit 1",
    "sinfo": "hostname",
}


@pytest.fixture
def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that are called as Slurm's are, and what they were given."""
    pytest.importorskip("submitit")
    programs = folder / "slurm"
    programs.mkdir()
    for name, script in SLURM.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(programs))
    return programs


def flags(slurm: Path, number: int) -> set[str]:
    lines = (slurm / f"{number}.sh").read_text().splitlines()
    return {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}


def test_slurm_is_given_arrays_dependencies_and_the_tables_flags(folder: Path, slurm: Path) -> None:
    sets = ["--set", "cluster.extra.qos=long", "--set", "cluster.extra.exclusive=true", "--set", "cluster.score.time=9"]
    out = unmix("submit", "r.toml", *sets, "--cpus", "3", "--memory", "7G", cwd=folder).stdout
    assert "train: job 100, 4 tasks" in out
    assert "scancel 100 101 102 103" in out
    train, rest, score = (flags(slurm, n) for n in (100, 101, 102))
    assert {"--array=0-3%4", "--partition=low", "--qos=long", "--exclusive", "--time=240", "--mem=7G"} <= train
    assert {"--cpus-per-task=3", "--signal=USR2@120", "--open-mode=append", "--job-name=r-train"} <= train
    assert {"--dependency=afternotok:100", "--kill-on-invalid-dep=yes"} <= rest
    assert {"--dependency=afterany:100:101", "--time=9"} <= score
    assert "srun --unbuffered" in (slurm / "100.sh").read_text()
    assert "--cpus-per-task=3" in (slurm / "100.sh").read_text().split("# command")[1]


def test_what_waits_or_runs_is_not_submitted_twice(folder: Path, slurm: Path) -> None:
    unmix("submit", "r.toml", "train", cwd=folder)
    (slurm / "queue").write_text("100\n101\n77\n")
    again = unmix("submit", "r.toml", cwd=folder)
    assert "train: job 100 waits or runs already" in again.stdout
    assert "train: job 10" not in again.stdout.split("already")[-1]
    assert "--dependency=afterany:100:101" in flags(slurm, 102)
    (slurm / "queue").write_text("100\n101\n102\n103\n")
    assert "nothing to submit: what is left waits" in unmix("submit", "r.toml", cwd=folder).stdout
    (slurm / "queue").write_text("")  # all have ended, and nothing was done
    assert "train: job 104" in unmix("submit", "r.toml", "train", cwd=folder).stdout


def test_what_ended_badly_is_named_with_its_log(folder: Path, slurm: Path) -> None:
    unmix("submit", "r.toml", "train", cwd=folder)
    logs = folder / "runs" / "r" / "cluster" / "logs"
    (logs / "100_0_0_log.out").write_text("unmix: topk at x diverged before step 20\nand so on\n")
    (logs / "100_1_0_log.out").write_text("train: done\n… - Exiting after successful completion\n")
    (logs / "100_2_0_log.out").write_text("train: 50%\n")
    out = unmix("submit", "r.toml", "--dry-run", cwd=folder).stdout
    assert "failed before: train: topk at x diverged before step 20, see runs/r/cluster/logs/100_0_0_log.out" in out
    assert "failed before: train: it was killed, see runs/r/cluster/logs/100_2_0_log.out" in out
    assert out.count("failed before") == 2


def test_an_unknown_partition_is_told_in_slurms_words(folder: Path, slurm: Path) -> None:
    refused = unmix("submit", "r.toml", "--partition", "nope", cwd=folder, check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        "unmix: train: sbatch: error: invalid partition specified: nope; "
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["r.toml"], "--cluster slurm: no sbatch on the path"), (["r.toml", "trian"], "no stage 'trian', did you mean train?"),
     (["r.toml", "--set", "cluster.patition=x"], "unknown key cluster.patition, did you mean partition?"),
     (["r.toml", "--memory", "lots", "--dry-run"], "cluster.memory: expected a number and K, M, G or T"),
     (["r.toml", "extract", "--dry-run"], "nothing to submit")],
)  # fmt: skip
def test_bad_input_is_one_line(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    found = unmix("submit", *arguments, cwd=folder, check=False)
    if message == "nothing to submit":
        assert found.returncode == 0
    else:
        assert found.returncode == 2
        assert found.stderr.startswith(f"unmix: {message}")
        assert found.stderr.count("\n") == 1
