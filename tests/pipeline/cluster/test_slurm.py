"""unmix submit on a real Slurm: make cluster-test, or any on which a job starts at once. Some minutes."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stores import ActivationStore
from tests.conftest import unmix
from tests.pipeline.cluster.test_submit import results
from tests.pipeline.conftest import RESID
from tests.pipeline.train.test_ranks import assert_alike, learned, wait_until_no_process_is_in

pytestmark = pytest.mark.slurm
SLOW = """import os, time
from pipeline.train.families.topk import TopK

class Slow(TopK):
    def loss(self, x, y, now):
        if now.n_steps == 200:  # not while the contract is checked
            time.sleep(float(os.environ.get("SLOW_S", "0")))
        return super().loss(x, y, now)

METHODS = {"slow": Slow}
"""
PATIENCE_S = 1500.0


@pytest.fixture(autouse=True)
def slurm() -> None:
    """Skips where there is none."""
    pytest.importorskip("submitit")
    if not shutil.which("sinfo"):
        pytest.skip("no Slurm here: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge")
    found = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no Slurm answers: scripts/slurm-local.sh start, or make cluster-test")
    if not {"low", "high"} <= set(found.stdout.split()):
        pytest.skip("this Slurm has no partitions low and high, of which one preempts the other: make cluster-test")


@pytest.fixture
def folder(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With slow.toml: a sweep of four dictionaries at one site, each of which takes more than its four minutes."""
    text = (recipe / "tiny.toml").read_text()
    before, after = text.index("[train.topk]"), text.index("[score]")
    sweep = "[train.slow]\nd_sae = [48, 64]\nk = 4\nseed = [0, 1]\n"
    text = text[:before] + f'method_files = ["slow.py"]\n{sweep}' + text[after:]
    text = text.replace("n_tokens = 12_800", "n_tokens = 25_600").replace(', "blocks.0.mlp.hook_post"', "")
    table = '[cluster]\npartition = "low"\nwidth = 4\ntogether = 1\ncpus = 1\ntime = 20\nnotice_s = 30\n'
    (recipe / "slow.toml").write_text(text + table + "[cluster.train]\ntime = 4\n")
    (recipe / "slow.py").write_text(SLOW)
    monkeypatch.setenv("SLOW_S", "1.2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return recipe


def slurm_says(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def running(job: str, recipe: str = "slow") -> list[str]:
    """Tasks of a job that run, as 12_3."""
    return sorted(slurm_says("squeue", "-h", "-n", f"{recipe}-{job}", "-t", "R", "-o", "%i"))


class Clock:
    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {what}", flush=True)

    def until(self, what: str, found: Callable[[], bool]) -> None:
        while not found():
            assert time.monotonic() - self.began < PATIENCE_S, f"no {what}: {slurm_says('squeue')}"
            time.sleep(0.5)
        self.say(what)


def test_one_submit_through_requeue_kill_preemption_and_time_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The store, the dictionaries and the scores are those of a plain run."""
    run, clock = folder / "runs" / "slow", Clock()
    with capsys.disabled():
        print()
        print(unmix("submit", "slow.toml", cwd=folder).stdout)
        again = unmix("submit", "slow.toml", cwd=folder).stdout
        assert "nothing to submit: what is left waits or runs already" in again

        begun = lambda: [p for p in (run / "cluster" / "logs").glob("*_log.out") if "Starting with" in p.read_text()]  # noqa: E731
        clock.until("extract: four tasks have begun", lambda: len(begun()) == 4)
        requeued = running("extract")[1]
        slurm_says("scontrol", "requeue", requeued)
        clock.say(f"scontrol requeue {requeued}")

        checkpoints = lambda: len(list(run.glob("train/*/*/checkpoints/*")))  # noqa: E731
        clock.until("train: four tasks have saved", lambda: len(running("train")) == 4 and checkpoints() >= 4)
        killed = running("train")[0]
        slurm_says("scancel", "--signal=KILL", killed)
        clock.say(f"scancel --signal=KILL {killed}")
        slurm_says("sbatch", "-p", "high", "-c", "3", "-o", "/dev/null", "--wrap", "sleep 5")
        clock.say("a job of partition high takes 3 of 4 CPUs")
        clock.until("train: two tasks preempted", lambda: len(running("train")) <= 1)

        clock.until("nothing waits or runs", lambda: not slurm_says("squeue", "-h"))
        logs = {p.name: p.read_text() for p in (run / "cluster" / "logs").glob("*_log.out")}
        for name, text in sorted(logs.items()):
            starts, signals = (len(re.findall(p, text)) for p in ("Starting with Job", "Caught signal SIGUSR2"))
            done = re.findall(r"^(?:extract|train|score|report): .*", text, re.MULTILINE)
            clock.say(f"{name}: {starts} starts, {signals} notices, {done[-1] if done else 'killed'}")
    monkeypatch.setenv("SLOW_S", "0")
    unmix("run", "slow.toml", "--name", "plain", cwd=folder)
    plain = folder / "runs" / "plain"
    stores = [ActivationStore.open(r / "extract" / "activations.zarr") for r in (run, plain)]
    assert stores[0].digest == stores[1].digest
    assert results(run) == results(plain)
    assert len(list(run.glob(f"train/{RESID}/*/manifest.json"))) == 4
    assert (run / "report" / "index.html").exists()
    assert logs[f"{requeued}_0_log.out"].count("Starting with Job") >= 2
    assert logs[f"{killed}_0_log.out"].count("Exiting after successful completion") == 0
    assert sum(text.count("Requeued job") for text in logs.values()) >= 3  # preempted, or their time was over
    assert "nothing to submit: all is there" in unmix("submit", "slow.toml", cwd=folder).stdout


def test_two_ranks_that_are_preempted_leave_no_process_and_go_on_as_two_or_as_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """torchrun inside a job that asks for two GPUs, which no process has here."""
    text = (folder / "slow.toml").read_text().replace("seed = [0, 1]", "seed = 0")
    (folder / "pair.toml").write_text(text.replace("[cluster.train]\ntime = 4", "[cluster.train]\ngpus = 2\ncpus = 2"))
    runs, clock = folder / "runs", Clock()
    monkeypatch.setenv("SLOW_S", "0")
    unmix("run", "pair.toml", "--name", "plain", "--set", "train.precision=float32", cwd=folder)
    monkeypatch.setenv("SLOW_S", "0.3")
    shared = ("pair.toml", "--set", "train.precision=float32")
    unmix("extract", *shared, cwd=folder)
    with capsys.disabled():
        print()
        print(unmix("submit", "pair.toml", "train", *shared[1:], cwd=folder).stdout)
        checkpoints = lambda: len(list((runs / "pair").glob("train/*/*/checkpoints/*")))  # noqa: E731
        clock.until("train: two ranks have saved", lambda: bool(running("train", "pair")) and checkpoints() >= 1)
        log = next((runs / "pair" / "cluster" / "logs").glob("*_log.out"))
        slurm_says("sbatch", "-D", "/", "-p", "high", "-c", "3", "-o", "/dev/null", "--wrap", "sleep 30")
        clock.until("train: preempted", lambda: not running("train", "pair"))
        wait_until_no_process_is_in(folder)
        clock.say("no process is left")
        shutil.copytree(runs / "pair", runs / "one")
        clock.until("nothing waits or runs", lambda: not slurm_says("squeue", "-h"))
    (kept,) = re.findall(r"saved at step (\d+) of 200", log.read_text())
    assert 20 <= int(kept) < 200
    assert log.read_text().count("Starting with Job") == 2
    monkeypatch.setenv("SLOW_S", "0")
    unmix("train", *shared, "--name", "one", cwd=folder)
    for name in ("pair", "one"):
        assert len(learned(folder, "plain", RESID)) == 2
        assert_alike(learned(folder, "plain", RESID), learned(folder, name, RESID))


def test_an_unknown_partition_is_told_in_slurms_words(folder: Path) -> None:
    refused = unmix("submit", "slow.toml", "--partition", "nope", cwd=folder, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("unmix: extract: sbatch: error: ")
    assert "nope" in refused.stderr or "partition" in refused.stderr
    assert refused.stderr.count("\n") == 1
