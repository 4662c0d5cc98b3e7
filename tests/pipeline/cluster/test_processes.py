"""Jobs as processes: order, room, what happens where one fails or is stopped. Their commands are small scripts."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cluster.config import Resources
from pipeline.cluster.jobs import Job
from pipeline.cluster.processes import _Machine, run_inline, run_processes
from tests.conftest import environment
from tests.pipeline.cluster.test_task import SAVES


@dataclass(frozen=True)
class Script(Job):
    """arguments: one Python script; {task} stands for the task."""

    def argv(self, task: int) -> list[str]:
        return [sys.executable, "-S", "-c", *self.own_arguments(task)]


def job(name: str, script: str, *, n: int = 1, after: str = "", if_failed: str | None = None, **asked: int) -> Script:
    group = name.removesuffix("-rest")
    return Script(name, group, "train", (script,), Resources(**asked), n, tuple(after.split()), if_failed)


def says(word: str, code: int = 0) -> str:
    return f"open('said', 'a').write('{word} '); raise SystemExit({code})"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*jobs: Job) -> dict[str, str]:
    return run_processes(jobs, Path("logs"))


def said() -> list[str]:
    return Path("said").read_text().split()


def test_a_job_starts_when_those_before_it_have_ended() -> None:
    slow = f"import time; time.sleep(.2); {says('a{task}')}"
    assert run(job("a", slow, n=3), job("b", says("b"), after="a"), job("c", says("c"), after="b")) == {}
    assert sorted(said()[:3]) == ["a0", "a1", "a2"]
    assert said()[3:] == ["b", "c"]


def test_what_failed_tasks_have_left_is_done_before_what_comes_after_and_only_then() -> None:
    fails = "if {task} == 1: raise SystemExit(1)\n" + says("a{task}")
    rest, after = job("a-rest", says("rest"), if_failed="a"), job("b", says("b"), after="a")
    assert run(job("a", fails, n=2), rest, after) == {}  # the rest has done it
    assert said() == ["a0", "rest", "b"]
    rest_fails = job("a-rest", says("rest", 1), if_failed="a")
    assert run(job("a", fails, n=2), rest_fails, after) == {
        "a[1]": "exit code 1, see logs/a[1].log",
        "a-rest": "exit code 1, see logs/a-rest.log",
    }
    Path("said").unlink()
    assert run(job("a", says("a{task}"), n=2), rest, after) == {}
    assert "rest" not in said()


def test_a_failed_job_does_not_hold_those_after_it() -> None:
    assert list(run(job("a", says("a", 1)), job("b", says("b"), after="a"))) == ["a"]
    assert said() == ["a", "b"]


def test_one_that_was_asked_to_stop_starts_again() -> None:
    assert run(job("a", f"import os; code = 0 if os.path.exists('said') else 75; {says('a', 0)[:-2]}code)")) == {}
    assert said() == ["a", "a"]


STOPPED = """import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be left alone
from pipeline.cluster.processes import run_processes
from pipeline.stopping import Stopped
from tests.pipeline.cluster.test_processes import job
try:
    run_processes([job("a", open("saves.py").read(), n=2)], Path("logs"))
except Stopped:
    sys.exit(75)
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)),
    ],
)
def test_each_signal_stops_the_tasks_and_waits_until_they_have_saved(folder: Path, number: int) -> None:
    (folder / "saves.py").write_text(
        SAVES.replace("ready", "ready{task}").replace('"saved", "w"', '"saved{task}", "w"')
    )
    process = subprocess.Popen([sys.executable, "-c", STOPPED], env=environment())
    while not list(folder.glob("ready*")):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 75
    assert {path.name.replace("ready", "saved") for path in folder.glob("ready*")} == {
        path.name for path in folder.glob("saved*")
    }


def test_a_task_has_as_many_threads_as_it_takes_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tells = "import os; open('said', 'a').write(os.environ['OMP_NUM_THREADS'] + ' ')"
    assert run(job("a", tells), job("b", tells, cpus=3, after="a")) == {}
    assert said() == ["1", "3"]


def test_no_more_run_at_a_time_than_are_asked_for_or_than_there_is_room_for() -> None:
    machine = _Machine(4, ["0", "1"])
    wide, gpu = job("b", "", n=9, cpus=3), job("c", "", n=9, gpus=2)
    assert machine.has_room(wide)
    sleeps = job("a", "import time; time.sleep(9)", n=9, at_a_time=2)
    with machine.stopped_with_this():
        machine.start(sleeps, 0, Path("0.log"))
        assert machine.has_room(sleeps)
        assert machine.has_room(wide)
        machine.start(sleeps, 1, Path("1.log"))
        assert not machine.has_room(sleeps)
        assert not machine.has_room(wide)
        assert machine.has_room(gpu)
        machine.start(job("c", "import time; time.sleep(9)", n=9, gpus=2), 0, Path("2.log"))
        assert not machine.has_room(gpu)
        assert machine.running[2].devices == ("0", "1")
        began = time.monotonic()
    assert all(running.process.poll() is not None for running in machine.running)  # all are stopped with it
    assert time.monotonic() - began < 5


def test_inline_tasks_run_in_order_and_the_rest_where_one_failed() -> None:
    calls: list[list[str]] = []

    def call(arguments: list[str]) -> int:
        calls.append(arguments)
        return int(arguments == ["1"])

    jobs = [job("a", "{task}", n=2), job("a-rest", "rest", if_failed="a"), job("b", "b", after="a")]
    assert run_inline(jobs, call) == {}
    assert list(run_inline(jobs, lambda arguments: int(arguments != ["b"]))) == ["a[0]", "a[1]", "a-rest"]
    assert calls == [["0"], ["1"], ["rest"], ["b"]]
    assert run_inline(jobs, lambda _: 0) == {}
