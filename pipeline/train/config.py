"""The [train] table of a recipe."""

from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config import Config, as_list


class TrainConfig(Config):
    """Settings that all dictionaries share, and one table, or several, per method. In a method's table a list means
    one dictionary for each value; `hook_points` restricts it to some. method_files: Python files with methods of the
    user's own, see families/README.md. parallel: what several processes divide among them, the rows of each batch or the
    features of each dictionary. precision: of the matrix products; weights, moments and sums are float32. "auto" is
    bfloat16 where the hardware multiplies it. tensorboard, wandb (a project's name): where metrics go besides
    metrics.jsonl. controls: whether controls are made beside each dictionary of a family, see pipeline.train.controls; a
    method's table may say it for itself."""

    batch_size: int = Field(default=2048, ge=1)
    n_tokens: int = Field(ge=1)
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    residency: Literal["auto", "stream", "ram", "gpu"] = "auto"
    window_chunks: int | None = Field(default=None, ge=1)
    parallel: Literal["data", "features"] = "data"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0)  # of the data order
    tensorboard: bool = False
    wandb: str | None = None
    controls: bool = False
    method_files: list[str] = Field(default_factory=list)
    methods: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        return max(1, self.n_tokens // self.batch_size)

    @model_validator(mode="before")
    @classmethod
    def _gather_methods(cls, values: Any) -> Any:
        """Moves the [train.METHOD] tables into methods, so that nothing here need know the methods' names."""
        if not isinstance(values, dict):
            return values
        methods = {k: v for k, v in values.items() if k != "methods" and (isinstance(v, dict) or _is_tables(v))}
        if not methods:
            return values
        rest = {k: v for k, v in values.items() if k not in methods}
        return {**rest, "methods": {k: as_list(v) for k, v in methods.items()}}


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
