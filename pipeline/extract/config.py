"""The [extract] table of a recipe."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config, validated
from pipeline.models.hook_points import of_every_layer
from stores.names import check_name


class TextConfig(Config):
    """Where the text comes from.

    "stdlib": the source of the running Python's standard library (split: train, heldout, all).
    "files": path, one or several files or folders of .txt (a file is a document), .jsonl, .parquet.
    "hub": dataset, a Hugging Face dataset, streamed.
    """

    source: Literal["stdlib", "files", "hub"] = "stdlib"
    path: tuple[str, ...] = ()
    dataset: str | None = None
    subset: str | None = None
    revision: str | None = None
    split: str = "train"
    column: str = "text"

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> "TextConfig":
        if self.source == "files" and not self.path:
            raise ValueError('source = "files" needs path')
        if self.source == "hub" and not self.dataset:
            raise ValueError('source = "hub" needs dataset')
        if self.source == "stdlib" and self.split not in ("train", "heldout", "all"):
            raise ValueError(f'split of "stdlib" is train, heldout or all, not {self.split!r}')
        return self


class PositionsConfig(Config):
    """Which positions of each sequence are kept: those from skip_first on (1 leaves BOS out), or n_per_sequence of
    them, evenly spaced from the first to the last."""

    skip_first: int = Field(default=1, ge=0)
    n_per_sequence: int | None = Field(default=None, ge=1)

    def places(self, context: int) -> tuple[int, ...]:
        """Raises ValueError: the context has fewer positions."""
        left = context - self.skip_first
        n = left if self.n_per_sequence is None else self.n_per_sequence
        if left < 1 or n > left:
            raise ValueError(f"{n} positions after the first {self.skip_first} do not fit a context of {context}")
        if n == 1:
            return (self.skip_first,)
        return tuple(self.skip_first + i * (left - 1) // (n - 1) for i in range(n))


class ExtractConfig(Config):
    """model: "demo", a Hugging Face hub name, or a folder in Hugging Face layout. hook_points: "blocks.*.NAME" is that
    of every layer. n_rows: per hook point; rounded up to whole sequences. precision: of the forward pass; dtype: of the
    store. store: where it is written, a folder or s3:// or any fsspec URL; by default in the run folder. allow_nonfinite:
    keep rows that are not finite. shard_chunks: chunks in a shard, fewer where they are more than 1 GiB. keep: "rolling"
    keeps keep_bytes of rows at most, and makes those that are read again from the tokens."""

    model: str = "demo"
    revision: str | None = None
    weight_processing: Literal["none", "folded"] = "none"
    hook_points: tuple[str, ...] = Field(min_length=1)
    context: int = Field(default=256, ge=2, le=1 << 20)
    n_rows: int = Field(ge=1)
    heldout_fraction: float = Field(default=0.05, gt=0, lt=1)
    text: TextConfig = TextConfig()
    positions: PositionsConfig = PositionsConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    allow_nonfinite: bool = False
    keep: Literal["all", "rolling"] = "all"
    keep_bytes: int | None = Field(default=None, ge=1)
    store: str | None = None
    batch_sequences: int = Field(default=16, ge=1)
    chunk_rows: int = Field(default=8192, ge=1)
    shard_chunks: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ExtractConfig":
        for hook_point in self.hook_points:
            check_name(hook_point.replace("*", "0"), "a hook point")
        if len(set(self.hook_points)) < len(self.hook_points):
            raise ValueError("hook_points names one twice")
        self.positions.places(self.context)
        if (self.keep == "rolling") != (self.keep_bytes is not None):
            raise ValueError('keep = "rolling" and keep_bytes belong together, such as keep_bytes = 100_000_000_000')
        if self.keep == "rolling" and self.shard_chunks > 1:
            raise ValueError('keep = "rolling" makes rows again chunk by chunk: set shard_chunks = 1')
        return self


def n_sequences(config: ExtractConfig) -> int:
    return math.ceil(config.n_rows / len(config.positions.places(config.context)))


def with_every_layer(config: ExtractConfig, n_layers: int) -> ExtractConfig:
    """The same, with the names of all layers where a hook point has `*` for the layer.

    Raises UserError: a hook point is then named twice, or `*` stands for something else.
    """
    names = [
        name.replace("*", str(layer), 1)
        for name in config.hook_points
        for layer in range(n_layers if of_every_layer(name, "extract.hook_points") else 1)
    ]
    return validated(ExtractConfig, {**dict(config), "hook_points": tuple(names)}, "extract")
