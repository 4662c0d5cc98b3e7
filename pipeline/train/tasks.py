"""What the [train] table of a recipe asks for: one task per dictionary."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.config import MethodConfig, UserError, as_list, nearest, validated
from pipeline.train.config import TrainConfig
from pipeline.train.controls import controls
from pipeline.train.families.config import FamilyConfig
from pipeline.train.frozen import frozen_weights
from pipeline.train.methods import Method
from pipeline.train.own_methods import methods
from pipeline.train.sites import KEYS, sites
from stores.names import check_name
from stores.site import Site

KEYS_OF_TRAIN = tuple(name for name in TrainConfig.model_fields if name != "methods")  # no method's names


@dataclass(frozen=True)
class Task:
    """One dictionary to be made: what it reads and writes, its folder name below the site's, its method and settings.

    made_by: the method that `method` names.
    """

    site: Site
    name: str
    method: str
    config: MethodConfig
    made_by: Method


def tasks(config: TrainConfig, d: Callable[[str], int], hook_points: tuple[str, ...]) -> list[Task]:
    """Every dictionary that the [train] table asks for, site by site. d(hook_point): its number of coordinates.

    Raises UserError: an unknown method or key, a hook point that is not extracted, d_sae or k out of range.
    """
    for hook_point in hook_points:
        _checked("the store", check_name, hook_point, "a hook point")
    found: dict[tuple[Site, str], Task] = {}
    extra: list[Task] = []
    known = methods(config.method_files, KEYS_OF_TRAIN)
    for method_name, tables in config.methods.items():
        if method_name not in known:
            raise UserError(f"unknown key train.{method_name}{nearest(method_name, [*known, *KEYS_OF_TRAIN])}")
        method = known[method_name]
        for table in tables:
            where = f"train.{method_name}"
            controlled = table.get("controls", config.controls)
            if not isinstance(controlled, bool):
                raise UserError(f"{where}.controls: expected true or false, got {controlled!r}")
            own_keys = (*KEYS, "controls") if method.family else KEYS  # what is no family has no controls
            settings = {key: value for key, value in table.items() if key not in own_keys}
            for site in sites(table, hook_points, where):
                _check_held(site, method, hook_points, where)
                for task in _at(site, method_name, method, settings, d, where):
                    if (site, task.name) in found:
                        raise UserError(f"{where}: {task.name} at {site.name} comes twice")
                    found[site, task.name] = task
                    for name, own in controls(method_name, method, task.config, site) if controlled else ():
                        extra.append(_task(site, name, known[name], own, _listed(settings), where))
    for task in extra:  # dictionaries of one size and sparsity share theirs, and a table may ask for one by its name
        found.setdefault((task.site, task.name), task)
    order = list(dict.fromkeys(Site.at(h) for h in hook_points) | dict.fromkeys(task.site for task in found.values()))
    return sorted(found.values(), key=lambda task: order.index(task.site))


def _check_held(site: Site, method: Method, hook_points: tuple[str, ...], where: str) -> None:
    """Raises UserError: the store does not hold what the method learns from."""
    for key, names in (("reads", site.reads), ("writes", () if method.reads_only else site.writes)):
        for name in names:
            if name not in hook_points:
                key = "hook_points" if site.reads == site.writes else key
                raise UserError(f"{where}.{key}: {name!r} is not in the store{nearest(name, list(hook_points))}")


def _at(
    site: Site, method_name: str, method: Method, table: dict[str, Any], d: Callable[[str], int], where: str
) -> Iterator[Task]:
    """One task for each combination of the values in the table's lists."""
    d_in = sum(map(d, site.reads))
    for values in itertools.product(*(as_list(v) for v in table.values())):
        settings = validated(method.config, dict(zip(table, values, strict=True)), where)
        _checked(f"{where} at {site.name}", settings.check, site, d_in)
        yield _task(site, method_name, method, settings, _listed(table), where)


def _listed(table: dict[str, Any]) -> set[str]:
    """The keys of which a table lists several values: they are part of its dictionaries' names."""
    return {key for key, value in table.items() if isinstance(value, list)}


def _task(site: Site, method_name: str, method: Method, settings: MethodConfig, listed: set[str], where: str) -> Task:
    """Raises UserError: what is frozen cannot be, or the name is none of a folder."""
    where = f"{where} at {site.name}"
    if method.family and isinstance(settings, FamilyConfig):
        _checked(where, frozen_weights, method.family, settings)
    plain = settings.model_dump()
    more = sorted((listed & plain.keys()) - {*method.label, *settings.variants})
    labels = {**method.label, **{k: f"{k}_" for k in more}}
    parts = [
        method_name,
        *(f"{short}{plain[key]}" for key, short in labels.items() if plain[key] is not None),
        *(v for v in settings.variants if plain[v]),
    ]
    name = "-".join(parts)
    _checked(where, check_name, name, "a dictionary's name")
    return Task(site, name, method_name, settings, method)


def _checked(where: str, check: Callable[..., object], *arguments: Any) -> None:
    try:
        check(*arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
