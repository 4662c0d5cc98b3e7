"""Jobs on Slurm, by submitit. The only importer of submitit."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from pipeline.cluster.jobs import Job
from pipeline.cluster.task import Task
from pipeline.config import UserError

_MANY = 1000  # times that a job may queue again after its time was over: it has saved, and goes on


def check() -> None:
    """Raises UserError: there is no Slurm to submit to, or it does not answer."""
    for program in ("sbatch", "srun", "squeue"):
        if not shutil.which(program):
            raise UserError(
                f"--cluster slurm: no {program} on the path: submit from a machine of the cluster, or use --cluster local"
            )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("--cluster slurm needs submitit: pip install submitit") from None
    live_jobs()


def live_jobs(has_to_answer: bool = True) -> set[str]:
    """The numbers of this user's jobs that wait or run; none where there is no Slurm and it does not have to answer.

    Raises UserError: it has to, and does not.
    """
    try:
        done = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%F"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        if has_to_answer:
            told = _told(getattr(error, "stderr", None) or str(error))
            raise UserError(f"Slurm does not answer ({told}): try again, or use --cluster local") from None
        return set()
    return set(done.stdout.split())


def flags(job: Job) -> dict[str, Any]:
    """Flags of sbatch by their long names, as the table asks for them."""
    asked = job.resources
    found = {"partition": asked.partition, "account": asked.account, "mem": asked.memory}
    found |= {"cpus-per-task": asked.cpus, "gpus-per-node": asked.gpus or None}
    return {key: value for key, value in {**found, **asked.extra}.items() if value is not None and value is not False}


def submit(job: Job, prefix: str, folder: Path, dependency: str | None) -> str:
    """Returns the job's number. prefix: of its name in Slurm. folder: for its log.

    Raises UserError: Slurm does not take it; the message is Slurm's own.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    asked = job.resources
    executor = SlurmExecutor(folder, max_num_timeout=_MANY)
    options: dict[str, Any] = {"dependency": dependency} if dependency else {}
    more = flags(job) | ({"kill-on-invalid-dep": "yes"} if job.if_failed else {})
    executor.update_parameters(
        job_name=f"{prefix}-{job.name}",
        time=asked.time,
        signal_delay_s=asked.notice_s,
        array_parallelism=asked.at_a_time or job.n_tasks,
        stderr_to_stdout=True,
        # since 22.05 srun does not take it over from sbatch, and a step would have one CPU
        srun_args=[f"--cpus-per-task={asked.cpus}"] if asked.cpus else None,
        additional_parameters=more,
        **options,
    )
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints what Slurm says, and raises it too
            started = [executor.submit(Requeued(job.argv(task), job.environment)) for task in range(job.n_tasks)]
        return started[0].job_id.partition("_")[0]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"{job.name}: {_told(str(error))}") from None


class Requeued(Task):
    """A task as submitit pickles it. It queues again when it was asked to stop. submitit calls checkpoint for SIGUSR2, which
    comes when the job's time is nearly over; an ordinary preemption sends SIGTERM to every process of the job."""

    def __call__(self) -> None:
        asked: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR1):  # not SIG_IGN, which the command would inherit
            signal.signal(number, lambda number, _: asked.append(number))
        try:
            super().__call__()
        except SystemExit as ended:
            if asked or ended.code == os.EX_TEMPFAIL:  # torchrun ends with 1 where its processes do with 75
                _requeue(os.environ.get("SLURM_JOB_ID", ""))
            raise

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(Requeued(self.argv, self.environment))


def _requeue(job: str) -> None:
    """Queue this job again, if it still runs: one that its user takes back, or whose time is over, is ending by now."""
    try:
        state = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}", "--format=%T"], capture_output=True, text=True, check=True
        )
        if state.stdout.strip() == "RUNNING":
            subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=True)
            print(f"job {job} queues again")
    except (OSError, subprocess.CalledProcessError) as error:
        told = _told(getattr(error, "stderr", None) or str(error))
        print(f"unmix: job {job} does not queue again: {told}", file=sys.stderr)


def _told(text: str) -> str:
    """What Slurm says is wrong, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join([line for line in lines if re.match(r"\w+: error:", line)] or lines[-1:])


def dependency(after: Sequence[str], failed: str | None) -> str | None:
    """As sbatch takes it. after: numbers of jobs that have to have ended; failed: of one of which a task has to have
    failed."""
    parts = [":".join(["afterany", *after])] if after else []
    parts += [f"afternotok:{failed}"] if failed else []
    return ",".join(parts) or None


def failures(records: Mapping[str, dict[str, Any]], folder: Path) -> dict[str, Path]:
    """What went wrong in jobs that have ended, in their own words → the last log that says so."""
    found: dict[str, Path] = {}
    for name, record in records.items():
        for log in sorted(folder.glob(f"{record['id']}_*log.out")):
            text = log.read_text(errors="replace")
            said = [line for line in text.splitlines() if line.startswith("unmix: ")]
            if "Exiting after successful completion" in text[-500:]:
                continue
            found[f"{name}: {said[-1].removeprefix('unmix: ') if said else 'it was killed'}"] = log
    return found


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Job's name → its number in Slurm and its group, of the last time that it was submitted."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # damaged: claims keep what is submitted twice from being done twice
        return {}
