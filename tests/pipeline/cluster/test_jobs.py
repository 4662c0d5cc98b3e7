"""Jobs as plain data: from a table and what is left."""

import sys

import pytest

from pipeline.cluster.config import ClusterConfig
from pipeline.cluster.jobs import STAGES, Job, Left, jobs_of
from pipeline.config import UserError, validated

_GROUPS = {"a": 3, "b[0]": 1}
ALL = Left(9, {"train": _GROUPS, "score": _GROUPS, "report": _GROUPS}, table=True, pages=True)


def graph(jobs: list[Job]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Without what is for failed tasks."""
    return {job.name: (job.n_tasks, job.after) for job in jobs if not job.if_failed}


def test_each_stage_is_an_array_and_what_it_may_leave_and_comes_after_the_one_before() -> None:
    jobs = jobs_of(ClusterConfig(width=6), ALL, ["r"])
    assert graph(jobs) == {
        "extract": (6, ()),
        "train": (4, ("extract",)),
        "score": (4, ("train",)),
        "report": (4, ("score",)),
    }
    rest = {job.name: (job.n_tasks, job.group, job.if_failed) for job in jobs if job.if_failed}
    assert rest == {f"{stage}-rest": (1, stage, stage) for stage in STAGES}
    assert jobs[2].own_arguments(3) == ["train", "r", "--worker", "3/4"]
    assert jobs[3].own_arguments(0) == ["train", "r"]
    assert jobs[4].own_arguments(0) == ["score", "r", "--ready", "--worker", "0/4"]


def test_what_is_done_gives_no_job_and_one_task_is_no_array() -> None:
    assert jobs_of(ClusterConfig(), Left(), ["r"]) == []
    assert graph(jobs_of(ClusterConfig(), Left(table=True, pages=True), ["r"])) == {
        "score": (1, ()),
        "report": (1, ("score",)),
    }
    left = Left(groups={"train": {"a": 1}, "score": {"a": 2}})
    train, _, score, _ = jobs_of(ClusterConfig(), left, ["r"])
    assert graph([train, score]) == {"train": (1, ()), "score": (2, ("train",))}
    assert train.own_arguments(0) == ["train", "r"]


def test_what_waits_or_runs_is_not_started_twice_and_others_come_after_it() -> None:
    found = graph(jobs_of(ClusterConfig(width=1), ALL, ["r"], live={"extract", "score"}))
    assert found == {"train": (1, ("extract",)), "report": (1, ("score",))}


def test_a_stage_that_is_not_asked_for_is_passed_over() -> None:
    assert graph(jobs_of(ClusterConfig(width=1), ALL, ["r"], ["extract", "score"])) == {
        "extract": (1, ()),
        "score": (1, ("extract",)),
    }
    assert graph(jobs_of(ClusterConfig(width=1), ALL, ["r"], ["report"], live={"train"})) == {"report": (1, ("train",))}


def test_a_site_is_scored_when_its_own_training_is_over_and_the_table_comes_last() -> None:
    jobs = jobs_of(ClusterConfig(width=2, together=4), ALL, ["r"], scores_while_training=True)
    assert graph(jobs) == {
        "extract": (2, ()),
        "train@a": (2, ("extract",)),
        "train@b[0]": (1, ("extract",)),
        "score@a": (2, ("train@a",)),
        "score@b[0]": (1, ("train@b[0]",)),
        "score": (1, ("score@a", "score@b[0]")),
        "report": (2, ("score",)),
    }
    by_name = {job.name: job for job in jobs}
    # A site's name is no pattern.
    assert by_name["score@b[0]"].own_arguments(0)[2:] == ["--together", "4", "--ready", "--only", "b[[]0]/*"]


def test_sites_that_are_trained_are_scored_at_once() -> None:
    left = Left(groups={"train": {"a": 1}, "score": {"a": 1, "b": 1}}, table=True)
    assert graph(jobs_of(ClusterConfig(), left, ["r"], scores_while_training=True)) == {
        "train@a": (1, ()),
        "score@a": (1, ("train@a",)),
        "score@b": (1, ()),
        "score": (1, ("score@a", "score@b")),
    }


def test_a_stage_and_its_part_of_a_site_are_not_both_submitted() -> None:
    left = Left(groups={"train": {"a": 2, "b": 1}, "score": {"a": 2, "b": 1}}, table=True)
    for scores_while_training in (False, True):
        options = {"live": {"train@a", "score@a"}, "scores_while_training": scores_while_training}
        assert graph(jobs_of(ClusterConfig(), left, ["r"], **options)) == {
            "train@b": (1, ()),
            "score@b": (1, ("train@b",)),
            "score": (1, ("score@a", "score@b")),
        }
    assert jobs_of(ClusterConfig(), left, ["r"], live={"train", "score"}, scores_while_training=True) == []


def test_several_gpus_are_torchruns_and_for_training_alone() -> None:
    config = ClusterConfig(gpus=4, cpus=8, width=1)
    extract, _, train, *_ = jobs_of(config, ALL, ["r"])
    assert extract.resources.gpus == 1
    assert extract.argv(0) == [sys.executable, "-m", "pipeline", "extract", "r"]
    assert extract.environment == {"OMP_NUM_THREADS": "8"}
    command = train.argv(0)
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert command[-4:] == ["-m", "pipeline", "train", "r"]
    assert train.environment == {"OMP_NUM_THREADS": "2"}  # of each rank


def test_a_stage_has_what_is_different_for_it_and_flags_hold_for_every_stage() -> None:
    table = {"partition": "gpu", "gpus": 1, "extra": {"qos": "long"}, "score": {"partition": "cpu", "gpus": 0}}
    config = validated(ClusterConfig, {**table, "train": {"extra": {"constraint": "a100"}}}, "cluster")
    assert (config.of("train").partition, config.of("score").partition) == ("gpu", "cpu")
    assert (config.of("train").gpus, config.of("score").gpus, config.of("train").time) == (1, 0, 240)
    assert config.of("train").extra == {"qos": "long", "constraint": "a100"}
    given = config.overridden({"partition": "debug", "time": 30, "gpus": None})
    assert {given.of(stage).partition for stage in ("extract", "train", "score", "report")} == {"debug"}
    assert (given.of("score").time, given.of("score").gpus, given.of("train").extra) == (
        30,
        0,
        config.of("train").extra,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [({"partitoin": "x"}, "unknown key cluster.partitoin, did you mean partition?"),
     ({"train": {"gpu": 1}}, "unknown key cluster.train.gpu, did you mean gpus?"),
     ({"memory": "lots"}, "cluster.memory: expected a number and K, M, G or T, such as 32G, got 'lots'"),
     ({"train": {"time": 1, "notice_s": 60}}, "cluster.train: time = 1 minutes is over before notice_s = 60 seconds begin"),
     ({"width": 0}, "cluster.width: Input should be greater than 0, got 0")],
)  # fmt: skip
def test_a_mistake_in_the_table_is_one_line(values: dict, message: str) -> None:
    with pytest.raises(UserError) as raised:
        validated(ClusterConfig, values, "cluster")
    assert str(raised.value) == message
