"""submit: what is left of a run, as jobs. What is done gives none, and what waits or runs is not started twice."""

import shlex
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pipeline.claims import Claims
from pipeline.cluster import slurm
from pipeline.cluster.disk import warning
from pipeline.cluster.jobs import Job, jobs_of
from pipeline.cluster.left import left_of
from pipeline.cluster.processes import run_inline, run_processes
from pipeline.config import UserError
from pipeline.stages import Run
from stores.cpus import cpus_here
from stores.manifest import commit_json

Cluster = Literal["slurm", "local", "debug"]
_LOGS = Path("cluster") / "logs"
_RECORDS = Path("cluster") / "jobs.json"


def submit(
    run: Run,
    options: Sequence[str],
    stages: Collection[str],
    cluster: Cluster,
    dry_run: bool,
    scores_while_training: bool,
    call: Callable[[list[str]], int],
) -> None:
    """options: the recipe and the options of every job's command. call: runs a command in this process.

    Raises UserError; RuntimeError: a job that ran here failed.
    """
    with ExitStack() as stack:
        if cluster == "slurm" and not dry_run:
            slurm.check()
            stack.enter_context(stack.enter_context(Claims(run.folder)).alone("submission"))
        folder = run.folder / _LOGS
        records = slurm.read_records(run.folder / _RECORDS) if cluster == "slurm" else {}
        alive = slurm.live_jobs(has_to_answer=not dry_run) if records else set()
        live = {name: record for name, record in records.items() if record["id"] in alive}
        left = left_of(run)
        for what, log in slurm.failures(_of_left(records, live, left.n), folder).items():
            print(f"failed before: {what}, see {log}")
        for name, record in live.items():
            print(f"{name}: job {record['id']} waits or runs already")
        groups = {record["group"] for record in live.values()}
        config = run.recipe.cluster
        if cluster == "local" and config.width is None:  # more than there is room for would start one after another
            config = config.model_copy(update={"width": max(1, cpus_here() // (config.cpus or 1))})
        jobs = jobs_of(config, left, options, stages, groups, scores_while_training)
        if not jobs:
            print("nothing to submit: " + ("what is left waits or runs already" if live else "all is there"))
            return
        if left.extract and jobs[0].stage != "extract" and not jobs[0].after:
            raise UserError(f"{jobs[0].stage} has no store to read: submit extract with it")
        if dry_run:
            print("\n".join(described(job, cluster) for job in jobs))
        elif cluster == "slurm":
            if found := warning(run.folder):
                print(found)
            _submit(run, jobs, live, records)
        elif failed := run_processes(jobs, folder) if cluster == "local" else run_inline(jobs, call):
            raise RuntimeError("; ".join(f"{task}: {how}" for task, how in failed.items()))


def _of_left(records: dict[str, dict[str, Any]], live: Collection[str], n: Callable[[str], int]) -> dict[str, Any]:
    """Of jobs that have ended while there is something left of their stage."""
    return {name: record for name, record in records.items() if name not in live and n(record["stage"])}


def _submit(run: Run, jobs: Sequence[Job], live: dict[str, dict[str, Any]], records: dict[str, dict[str, Any]]) -> None:
    numbers = {name: (record["group"], record["id"]) for name, record in live.items()}  # job → group, number
    groups = {job.group for job in jobs}
    records = {name: record for name, record in records.items() if record["group"] not in groups}
    for job in jobs:
        after = [number for group, number in numbers.values() if group in job.after]
        failed = numbers[job.if_failed][1] if job.if_failed else None
        number = slurm.submit(job, run.recipe.name, run.folder / _LOGS, slurm.dependency(after, failed))
        numbers[job.name] = (job.group, number)
        records[job.name] = {"id": number, "group": job.group, "stage": job.stage, "submitted": time.time()}
        commit_json(run.folder / _RECORDS, records)
        print(f"{job.name}: job {number}, {_tasks(job)}{_after(job)}")
    print(f"logs: {run.folder / _LOGS}; to take them all back: scancel {' '.join(numbers[j.name][1] for j in jobs)}")


def described(job: Job, cluster: Cluster) -> str:
    """A job as --dry-run prints it: of an array the first command and the last."""
    lines = [f"{job.name}: {_tasks(job)}{_after(job)}"]
    if cluster == "slurm":
        flags = {"time": job.resources.time, "signal": f"USR2@{job.resources.notice_s}", **slurm.flags(job)}
        if job.n_tasks > 1:
            flags["array"] = f"0-{job.n_tasks - 1}%{job.resources.at_a_time or job.n_tasks}"
        lines.append("  sbatch " + shlex.join(f"--{key}" if v is True else f"--{key}={v}" for key, v in flags.items()))
    shown = dict.fromkeys((0, job.n_tasks - 1))
    lines += [f"  {'… ' if task > 1 else ''}{shlex.join(job.argv(task))}" for task in shown]
    return "\n".join(lines)


def _tasks(job: Job) -> str:
    at_a_time = job.resources.at_a_time
    bound = f", {at_a_time} at a time" if at_a_time and at_a_time < job.n_tasks else ""
    return f"{job.n_tasks} task{'s' * (job.n_tasks > 1)}{bound}"


def _after(job: Job) -> str:
    if job.if_failed:
        return f", only if a task of {job.if_failed} fails"
    return f", after {', '.join(job.after)}" if job.after else ""
