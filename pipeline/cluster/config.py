"""The [cluster] table of a recipe."""

import re
from typing import Any

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipeline.config import Config, validated


class Resources(Config):
    """What a job asks for. partition, account: Slurm's default where they are left out. time: minutes. notice_s: so many
    seconds before the time is over the job is asked to save and queues again. memory: of a node, as Slurm writes it: 32G.
    cpus: of a task. gpus: of a train task, which torchrun then shares among as many processes; a task of another stage takes
    one at most. width: tasks of an array at most; at_a_time: how many of them run at once. extra: any other flag of
    sbatch by its long name; true stands for a flag without a value."""

    partition: str | None = None
    account: str | None = None
    time: PositiveInt | None = None
    notice_s: PositiveInt | None = None
    memory: str | None = None
    cpus: PositiveInt | None = None
    gpus: int | None = Field(default=None, ge=0)
    width: PositiveInt | None = None
    at_a_time: PositiveInt | None = None
    extra: dict[str, str | int | bool] = Field(default_factory=dict)

    @field_validator("memory")
    @classmethod
    def _as_slurm_writes_it(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[1-9]\d*[KMGT]?", value):
            raise ValueError("expected a number and K, M, G or T, such as 32G")
        return value

    @model_validator(mode="after")
    def _has_time_to_work(self) -> "Resources":
        if self.time and self.notice_s and 60 * self.time <= self.notice_s:
            raise ValueError(f"time = {self.time} minutes is over before notice_s = {self.notice_s} seconds begin")
        return self


_DEFAULTS = {"time": 240, "notice_s": 120, "width": 8}


class ClusterConfig(Resources):
    """together: how many dictionaries of a site share one read at most, all by default; fewer make more groups to divide
    over tasks. The tables extract, train, score and report say what is different for a stage."""

    together: PositiveInt | None = None
    extract: Resources = Resources()
    train: Resources = Resources()
    score: Resources = Resources()
    report: Resources = Resources()

    def of(self, stage: str) -> Resources:
        """What a stage's tasks ask for, with defaults. Raises UserError: its time is over before it begins."""
        own = getattr(self, stage)
        both = {**_DEFAULTS, **_given(self), **_given(own)}
        both["extra"] = {**self.extra, **own.extra}
        if stage != "train" and both.get("gpus"):
            both["gpus"] = 1
        return validated(Resources, both, f"cluster.{stage}")

    def overridden(self, flags: dict[str, Any]) -> "ClusterConfig":
        """With flags of the command line, which hold for every stage. Raises UserError: one is out of range."""
        given = {key: value for key, value in flags.items() if value is not None}
        values = {**self.model_dump(), **given}
        for stage in _STAGES:
            values[stage] = {key: value for key, value in values[stage].items() if key not in given}
        return validated(ClusterConfig, values, "cluster")


_STAGES = ("extract", "train", "score", "report")


def _given(resources: Resources) -> dict[str, Any]:
    values = {key: getattr(resources, key) for key in Resources.model_fields}
    return {key: value for key, value in values.items() if value is not None}
