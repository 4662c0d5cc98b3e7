"""What a Slurm task runs: a command, which is asked to stop and waited for before the job queues again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.cluster.task import Task
from pipeline.stages import limit_threads
from tests.conftest import environment

SAVES = """import signal, sys, time
def save(*_):
    time.sleep(.2)
    open("saved", "w").write("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
open("ready", "w").close()
time.sleep(60)
"""
PREEMPTED = """import os, signal, sys
from pipeline.cluster.slurm import Requeued
task = Requeued([sys.executable, "-S", "saves.py"], {})
signal.signal(signal.SIGUSR2, lambda *_: (task.checkpoint(), os._exit(7)))
task()
"""


SLURM = """#!/bin/bash
case $0 in *squeue) echo $STATE;; *) echo "$@" >> scontrol-was-told;; esac
"""
QUEUED = """import os, signal, sys
from pipeline.cluster.slurm import Requeued
Requeued([sys.executable, "-S", "saves.py"], {})()
"""


@pytest.mark.parametrize(
    ("script", "code"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_a_task_ends_as_its_command_does(script: str, code: int) -> None:
    task = Task([sys.executable, "-S", "-c", script], {})
    if code == 0:
        task()
        task.stop()  # a notice that comes after the end
        return
    with pytest.raises(SystemExit) as ended:
        task()
    assert ended.value.code == code


def test_variables_are_those_of_the_job_where_they_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "before")
    script = "import os; raise SystemExit(os.environ['SET'] + os.environ['NEW'] != 'before' + '4')"
    Task([sys.executable, "-S", "-c", script], {"SET": "after", "NEW": "4"})()


def test_a_preempted_task_queues_again_when_its_command_has_saved(tmp_path: Path) -> None:
    """submitit calls checkpoint in a signal's handler, while the command is waited for."""
    pytest.importorskip("submitit")
    (tmp_path / "saves.py").write_text(SAVES)
    process = subprocess.Popen([sys.executable, "-c", PREEMPTED], cwd=tmp_path, env=environment())
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == 7
    assert (tmp_path / "saved").read_text() == "saved"


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", True), ("COMPLETING", False)])
@pytest.mark.parametrize("code", [75, 1])  # torchrun's is 1
def test_a_task_that_sigterm_preempts_queues_again_unless_its_user_takes_it_back(
    tmp_path: Path, state: str, requeued: bool, code: int
) -> None:
    """Slurm sends the signal to every process of the job. One that is taken back is not running any more."""
    (tmp_path / "saves.py").write_text(SAVES.replace("75", str(code)))
    for name in ("squeue", "scontrol"):
        (tmp_path / name).write_text(SLURM)
        (tmp_path / name).chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "881", "STATE": state}
    process = subprocess.Popen(
        [sys.executable, "-c", QUEUED], cwd=tmp_path, env={**environment(), **own}, start_new_session=True
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == code
    assert (tmp_path / "saved").exists()
    told = tmp_path / "scontrol-was-told"
    assert (told.read_text() if told.exists() else "") == ("requeue 881\n" if requeued else "")


def test_no_more_threads_than_the_job_was_given_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        limit_threads()
        assert torch.get_num_threads() == 2  # the user has said so
        del os.environ["OMP_NUM_THREADS"]
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
