"""The same jobs without a scheduler: as processes of this machine, or one after another in this process."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import stopping
from pipeline.cluster.jobs import Job
from stores.cpus import cpus_here

_POLL_S = 0.05


def run_inline(jobs: Sequence[Job], call: Callable[[list[str]], int]) -> dict[str, str]:
    """Run each task in this process, by call(arguments), which returns an exit code. Returns what failed and was not done by
    another task: task → how."""
    failed: dict[str, str] = {}
    for job in jobs:
        if job.if_failed and not any(_is_of(name, job.if_failed) for name in failed):
            continue
        for task in range(job.n_tasks):
            print(f"{_name(job, task)}: unmix {shlex.join(job.own_arguments(task))}")
            if code := call(job.own_arguments(task)):
                failed[_name(job, task)] = f"exit code {code}"
            elif job.if_failed:
                failed = _without(failed, job.if_failed)
    return failed


def run_processes(jobs: Sequence[Job], folder: Path) -> dict[str, str]:
    """Run each task in a process of its own, as many at a time as there are CPUs and GPUs for. folder: for their logs.
    Returns what failed and was not done by another task: task → how, and its log. Raises Stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    machine, failed = _Machine(cpus_here(), _devices()), {}
    waiting = [(job, task) for job in jobs for task in range(job.n_tasks)]
    with machine.stopped_with_this():
        while waiting or machine.running:
            stopping.look(f"{len(waiting) + len(machine.running)} tasks are left")
            for one, code in machine.ended():
                name = _name(one.job, one.task)
                if code == os.EX_TEMPFAIL:  # it was asked to stop, and has saved
                    waiting.insert(0, (one.job, one.task))
                elif code:
                    failed[name] = f"exit code {code}, see {one.log}"
                    print(f"{name}: {failed[name]}")
                else:
                    print(f"{name} has ended, {time.monotonic() - one.started:.0f} s")
                    if one.job.if_failed:
                        failed = _without(failed, one.job.if_failed)
            for job, task in list(waiting):
                left = [other for other, _ in waiting] + [one.job for one in machine.running]
                if any(other.group in job.after or other.name == job.if_failed for other in left):
                    continue
                if job.if_failed and not any(_is_of(name, job.if_failed) for name in failed):
                    waiting.remove((job, task))
                elif machine.has_room(job):
                    waiting.remove((job, task))
                    machine.start(job, task, folder / f"{_name(job, task).replace('/', '.')}.log")
            time.sleep(_POLL_S)
    return failed


@dataclass(frozen=True)
class _Running:
    job: Job
    task: int
    process: subprocess.Popen
    log: Path
    devices: tuple[str, ...]
    started: float = field(default_factory=time.monotonic)


@dataclass
class _Machine:
    """What is free here, and what runs. devices: GPUs that no task has, as CUDA_VISIBLE_DEVICES names them."""

    n_cpus: int
    devices: list[str]
    running: list[_Running] = field(default_factory=list)

    def has_room(self, job: Job) -> bool:
        """A task that is alone may have less than it asks for."""
        own = sum(one.job == job for one in self.running)
        taken = sum(one.job.resources.cpus or 1 for one in self.running)
        enough = taken + (job.resources.cpus or 1) <= self.n_cpus and len(self.devices) >= self._n_devices(job)
        return own < (job.resources.at_a_time or job.n_tasks) and (enough or not self.running)

    def _n_devices(self, job: Job) -> int:
        return (job.resources.gpus or 0) if self.devices or any(one.devices for one in self.running) else 0

    def start(self, job: Job, task: int, log: Path) -> None:
        n = self._n_devices(job)
        own, self.devices = tuple(self.devices[:n]), self.devices[n:]
        environment = {"OMP_NUM_THREADS": "1", **job.environment, **os.environ}  # as many as has_room counts
        if own:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        print(f"{_name(job, task)} begins, log: {log}")
        with log.open("ab") as out:
            process = subprocess.Popen(job.argv(task), env=environment, stdout=out, stderr=subprocess.STDOUT)
        self.running.append(_Running(job, task, process, log, own))

    def ended(self) -> Iterator[tuple[_Running, int]]:
        """What has ended since, and its exit code."""
        for one in list(self.running):
            if (code := one.process.poll()) is not None:
                self.running.remove(one)
                self.devices += one.devices
                yield one, code

    @contextmanager
    def stopped_with_this(self) -> Iterator[None]:
        """When this process is asked to stop, all are, and it waits until they have saved. A signal sets a flag and raises
        nothing, so that no process is started and not known here."""
        with stopping.listening():
            try:
                yield
            finally:
                for one in self.running:
                    one.process.terminate()
                for one in self.running:
                    one.process.wait()


def _name(job: Job, task: int) -> str:
    return job.name if job.n_tasks == 1 else f"{job.name}[{task}]"


def _without(failed: dict[str, str], job: str) -> dict[str, str]:
    """Without what tasks of a job have left, and its rest has done."""
    return {name: how for name, how in failed.items() if not _is_of(name, job)}


def _is_of(name: str, job: str) -> bool:
    """Whether a task of that name is of a job."""
    return name == job or name.startswith(f"{job}[")


def _devices() -> list[str]:
    import torch

    n = torch.cuda.device_count()
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[:n] or [str(i) for i in range(n)]
