"""The typed recipe: TOML in, JSON out; unknown keys are errors."""

import itertools
import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config, MethodConfig, UserError, nearest, validated
from stores.names import check_name

RECIPES = Path(__file__).parent / "recipes"


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
    """model: "demo", a Hugging Face hub name, or a folder in Hugging Face layout. n_rows: per hook point; rounded up
    to whole sequences. precision: of the forward pass; dtype: of the store. store: where it is written, a folder or
    s3:// or any fsspec URL; by default in the run folder. allow_nonfinite: keep rows that are not finite. shard_chunks:
    chunks in a shard, fewer where they are more than 1 GiB."""

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
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    allow_nonfinite: bool = False
    store: str | None = None
    batch_sequences: int = Field(default=16, ge=1)
    chunk_rows: int = Field(default=8192, ge=1)
    shard_chunks: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ExtractConfig":
        for hook_point in self.hook_points:
            check_name(hook_point, "a hook point")
        if len(set(self.hook_points)) < len(self.hook_points):
            raise ValueError("hook_points names one twice")
        self.positions.places(self.context)
        return self


class TrainConfig(Config):
    """Settings that all dictionaries share, and one table, or several, per method. In a method's table a list means
    one dictionary for each value; `hook_points` restricts it to some. parallel: what several processes divide among
    them, the rows of each batch or the features of each dictionary. precision: of the matrix products; weights, moments
    and sums are float32. "auto" is bfloat16 where the hardware multiplies it. tensorboard, wandb (a project's name):
    where metrics go besides metrics.jsonl."""

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
    methods: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        return max(1, self.n_tokens // self.batch_size)


class ScoreConfig(Config):
    """n_rows: held-out rows that the codes are measured on. n_sequences: held-out sequences for the CE scores.
    at_l0: how many coordinates of a linear dictionary's code are kept, to compare it with sparse ones.
    dictionaries: folders of others to score beside the recipe's own."""

    n_rows: int = Field(default=1_000_000, ge=1)
    n_sequences: int = Field(default=64, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    at_l0: tuple[int, ...] = (8, 16, 32, 64)
    ultra_low_density: float = Field(default=1e-5, gt=0, lt=1)
    dictionaries: tuple[str, ...] = ()


class Recipe(Config):
    """store: an activation store that is there already, a folder or URL; by default the one `extract` makes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    extract: ExtractConfig
    train: TrainConfig
    score: ScoreConfig = ScoreConfig()
    store: str | None = None


@dataclass(frozen=True)
class DictionaryPlan:
    """One dictionary to be made: its folder name below the hook point, its method and validated settings."""

    hook_point: str
    name: str
    method: str
    config: Config


def load_recipe(name_or_path: str, sets: list[str] | None = None, name: str | None = None) -> Recipe:
    """A recipe of pipeline/recipes by its name, or any TOML file by its path; `sets` are KEY=VALUE overrides.

    Raises UserError.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
        if not path.exists():
            known = sorted(p.stem for p in RECIPES.glob("*.toml"))
            raise UserError(
                f"no recipe {name_or_path!r}{nearest(name_or_path, known)} (or give a path ending in .toml)"
            )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no recipe file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also no UTF-8, a number of 5000 digits, 5000 brackets
        raise UserError(f"{path} is not TOML: {error}") from None
    for item in sets or []:
        set_value(values, item)
    values.setdefault("name", path.stem)
    if name:
        values["name"] = name
    return validated(Recipe, _gather_methods(values), "")


def set_value(values: dict[str, Any], item: str) -> None:
    """Apply one KEY=VALUE of --set, in place. Raises UserError."""
    key, separator, text = item.partition("=")
    if not separator:
        raise UserError(f"--set {item}: expected KEY=VALUE")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        value = text
    *parents, last = key.strip().split(".")
    tables = [values]
    for parent in parents:
        tables = [t for table in tables for t in _as_list(table.setdefault(parent, {}))]
        if not all(isinstance(table, dict) for table in tables):
            raise UserError(f"--set {item}: {parent} is a value, not a table")
    for table in tables:
        table[last] = value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _gather_methods(values: dict[str, Any]) -> dict[str, Any]:
    """Moves the [train.METHOD] tables into train.methods, so that TrainConfig need not know the methods' names."""
    if not isinstance(values.get("train", {}), dict):
        return values
    train = dict(values.get("train", {}))
    methods = {k: train.pop(k) for k, v in list(train.items()) if isinstance(v, dict) or _is_tables(v)}
    if not methods:
        return values
    return {**values, "train": {**train, "methods": {k: _as_list(v) for k, v in methods.items()}}}


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def plan_dictionaries(recipe: Recipe, d: Callable[[str], int], hook_points: tuple[str, ...]) -> list[DictionaryPlan]:
    """Every dictionary of the recipe, in its order. d(hook_point): its number of coordinates.

    Raises UserError: an unknown method or key, a hook point that is not extracted, d_sae or k out of range.
    """
    from pipeline.train.methods import METHODS

    for hook_point in hook_points:
        _checked("the store", check_name, hook_point, "a hook point")
    plans: dict[tuple[str, str], DictionaryPlan] = {}
    for method_name, tables in recipe.train.methods.items():
        if method_name not in METHODS:
            known = [*METHODS, *(f for f in TrainConfig.model_fields if f != "methods")]
            raise UserError(f"unknown key train.{method_name}{nearest(method_name, known)}")
        method = METHODS[method_name]
        for table in tables:
            table = dict(table)
            where = f"train.{method_name}"
            for hook_point in _as_list(table.pop("hook_points", list(hook_points))):
                if hook_point not in hook_points:
                    raise UserError(
                        f"{where}.hook_points: {hook_point!r} is not in the store{nearest(str(hook_point), list(hook_points))}"
                    )
                listed = {key for key, value in table.items() if isinstance(value, list)}
                for values in itertools.product(*(_as_list(v) for v in table.values())):
                    config = validated(method.config, dict(zip(table, values, strict=True)), where)
                    _checked(f"{where} at {hook_point}", cast(MethodConfig, config).check, d(hook_point), hook_point)
                    settings = config.model_dump()
                    labels = {**method.label, **{k: f"{k}_" for k in sorted(listed - set(method.label))}}
                    name = "-".join([method_name, *(f"{short}{settings[key]}" for key, short in labels.items())])
                    _checked(f"{where} at {hook_point}", check_name, name, "a dictionary's name")
                    if (hook_point, name) in plans:
                        raise UserError(f"{where}: {name} at {hook_point} comes twice")
                    plans[hook_point, name] = DictionaryPlan(hook_point, name, method_name, config)
    return sorted(plans.values(), key=lambda p: hook_points.index(p.hook_point))


def _checked(where: str, check: Callable[..., object], *arguments: Any) -> None:
    try:
        check(*arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def settings_json(config: Config) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(config.model_dump_json())


def n_sequences(config: ExtractConfig) -> int:
    return math.ceil(config.n_rows / len(config.positions.places(config.context)))
