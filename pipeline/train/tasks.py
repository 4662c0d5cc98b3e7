"""What the [train] table of a recipe asks for: one task per dictionary."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pipeline.config import Config, MethodConfig, UserError, as_list, nearest, validated
from pipeline.train.config import TrainConfig
from pipeline.train.methods import METHODS
from stores.names import check_name


@dataclass(frozen=True)
class Task:
    """One dictionary to be made: its folder name below the hook point, its method and validated settings."""

    hook_point: str
    name: str
    method: str
    config: Config


def tasks(config: TrainConfig, d: Callable[[str], int], hook_points: tuple[str, ...]) -> list[Task]:
    """Every dictionary that the [train] table asks for, in its order. d(hook_point): its number of coordinates.

    Raises UserError: an unknown method or key, a hook point that is not extracted, d_sae or k out of range.
    """
    for hook_point in hook_points:
        _checked("the store", check_name, hook_point, "a hook point")
    found: dict[tuple[str, str], Task] = {}
    for method_name, tables in config.methods.items():
        if method_name not in METHODS:
            known = [*METHODS, *(f for f in TrainConfig.model_fields if f != "methods")]
            raise UserError(f"unknown key train.{method_name}{nearest(method_name, known)}")
        method = METHODS[method_name]
        for table in tables:
            table = dict(table)
            where = f"train.{method_name}"
            for hook_point in as_list(table.pop("hook_points", list(hook_points))):
                if hook_point not in hook_points:
                    raise UserError(
                        f"{where}.hook_points: {hook_point!r} is not in the store{nearest(str(hook_point), list(hook_points))}"
                    )
                listed = {key for key, value in table.items() if isinstance(value, list)}
                for values in itertools.product(*(as_list(v) for v in table.values())):
                    settings = validated(method.config, dict(zip(table, values, strict=True)), where)
                    _checked(f"{where} at {hook_point}", cast(MethodConfig, settings).check, d(hook_point), hook_point)
                    plain = settings.model_dump()
                    labels = {**method.label, **{k: f"{k}_" for k in sorted(listed - set(method.label))}}
                    name = "-".join([method_name, *(f"{short}{plain[key]}" for key, short in labels.items())])
                    _checked(f"{where} at {hook_point}", check_name, name, "a dictionary's name")
                    if (hook_point, name) in found:
                        raise UserError(f"{where}: {name} at {hook_point} comes twice")
                    found[hook_point, name] = Task(hook_point, name, method_name, settings)
    return sorted(found.values(), key=lambda task: hook_points.index(task.hook_point))


def _checked(where: str, check: Callable[..., object], *arguments: Any) -> None:
    try:
        check(*arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
