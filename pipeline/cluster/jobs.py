"""Jobs as plain data: what is to be started, with what, and after what. Nothing here starts anything."""

import glob
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cluster.config import ClusterConfig, Resources

STAGES = ("extract", "train", "score", "report")
_SIGNALS = (
    "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"  # torchrun dies of one that is not named, and leaves its ranks
)


@dataclass(frozen=True)
class Left:
    """What is left of each stage. groups: site → groups of dictionaries that are worked on together; a stage that has
    nothing to do for any is not there. extract: shards, where it is. table: of scores; pages: of the report."""

    extract: int = 0
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    table: bool = False
    pages: bool = False

    def n(self, stage: str) -> int:
        """How many tasks a stage has work for."""
        if stage == "extract":
            return self.extract
        summary = {"score": self.table, "report": self.pages}.get(stage, False)
        return max(sum(self.groups.get(stage, {}).values()), int(summary))


@dataclass(frozen=True)
class Job:
    """group: jobs that together are a stage, or a site's part of it: an array, and one task for what failed ones have left.
    arguments: of unmix; {task} stands for the number of a task. after: groups that have ended, in whichever way, before this
    one starts. if_failed: it is for what failed tasks of this job have left, and starts only if there are any."""

    name: str
    group: str
    stage: str
    arguments: tuple[str, ...]
    resources: Resources
    n_tasks: int = 1
    after: tuple[str, ...] = ()
    if_failed: str | None = None

    @property
    def n_ranks(self) -> int:
        """Processes of torchrun in each task."""
        return max(1, self.resources.gpus or 1) if self.stage == "train" else 1

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its processes, where they are not set: torchrun would give each rank one thread."""
        cpus = self.resources.cpus
        return {"OMP_NUM_THREADS": str(max(1, cpus // self.n_ranks))} if cpus else {}

    def own_arguments(self, task: int) -> list[str]:
        return [argument.replace("{task}", str(task)) for argument in self.arguments]

    def argv(self, task: int) -> list[str]:
        """The command of a task. torchrun meets its processes at a port that it chooses itself, --standalone."""
        command = [sys.executable]
        if self.n_ranks > 1:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.n_ranks}"]
            command += [f"--signals-to-handle={_SIGNALS}"]
        return [*command, "-m", "pipeline", *self.own_arguments(task)]


def jobs_of(
    config: ClusterConfig,
    left: Left,
    options: Sequence[str],
    stages: Collection[str] = STAGES,
    live: Collection[str] = (),
    scores_while_training: bool = False,
) -> list[Job]:
    """Jobs for what is left, each after those that it depends on. options: the recipe and the options of every command.
    live: groups that wait or run already: they are not started twice, and others come after them. A stage of which a site's
    part is live is parted by sites, whether that is asked for or not."""
    found: list[Job] = []
    before: list[str] = []  # groups of the nearest stage before this one that has any
    for stage in STAGES:
        own: list[str] = []
        parted = scores_while_training or any(group.startswith(f"{stage}@") for group in live)
        by_site = parted and stage in ("train", "score") and stage not in live
        for site, n in left.groups.get(stage, {}).items() if by_site else ():
            group = f"{stage}@{site}"
            after = [one for one in before if "@" not in one or one == f"train@{site}"]
            if stage in stages and group not in live:
                found += _group_jobs(config, options, stage, group, n, after, site)
            if group in live or stage in stages:
                own.append(group)
        if not by_site or stage == "score":  # scored site by site, it is the table that is left
            n = min(1, left.n(stage)) if by_site else left.n(stage)
            if stage in stages and stage not in live and n:
                found += _group_jobs(config, options, stage, stage, n, own or before)
            if stage in live or (stage in stages and n):
                own = [stage]
        before = own or before
    return found


def _group_jobs(
    config: ClusterConfig,
    options: Sequence[str],
    stage: str,
    group: str,
    n: int,
    after: Sequence[str],
    site: str | None = None,
) -> Iterator[Job]:
    """n: what there is work for."""
    resources = config.of(stage)
    arguments = (stage, *options)
    if stage != "extract" and config.together:
        arguments += ("--together", str(config.together))
    if stage in ("score", "report"):
        arguments += ("--ready",)
    if site is not None:
        arguments += ("--only", f"{glob.escape(site)}/*")
    n = min(resources.width or 1, n)
    own = ("--worker", f"{{task}}/{n}") if n > 1 else ()
    yield Job(group, group, stage, (*arguments, *own), resources, n, tuple(after))
    yield Job(f"{group}-rest", group, stage, arguments, resources, if_failed=group)
