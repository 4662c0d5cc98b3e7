"""Which sites a method's table in a recipe names."""

import re
from collections.abc import Sequence
from typing import Any

from pipeline.config import UserError, as_list, nearest
from pipeline.models.hook_points import layer_of, of_every_layer
from stores.site import Site

KEYS = ("hook_points", "reads", "writes")


def sites(table: dict[str, Any], hook_points: Sequence[str], where: str) -> list[Site]:
    """Of a table's `hook_points` (one autoencoder at each), or `reads` and `writes`; without them, of every hook point.

    In `reads` and `writes` a text is one hook point, a list is several together. `*` stands for every layer that is there:
    in a text it makes a site of each layer, in a list it is expanded in its place. `writes` is by default what is read.
    Raises UserError: a hook point that is none of hook_points, or keys that exclude each other.
    """
    found = {key: table[key] for key in KEYS if key in table}
    for key, value in found.items():
        if not as_list(value) or not all(isinstance(name, str) for name in as_list(value)):
            raise UserError(f"{where}.{key}: expected the name of a hook point, or several in a list, got {value!r}")
    if "hook_points" in found:
        if len(found) > 1:
            raise UserError(f"{where}: hook_points says what is read and written, leave out reads and writes")
        names = as_list(found["hook_points"])
        return [Site.at(h) for name in names for h in _expanded(name, hook_points, f"{where}.hook_points")]
    if not found:
        return [Site.at(hook_point) for hook_point in hook_points]
    if "reads" not in found:
        raise UserError(f"{where}.reads is missing: a dictionary that writes {found['writes']} reads something")
    reads, writes = found["reads"], found.get("writes", found["reads"])
    layers: list[int | None] = [None]
    if isinstance(reads, str) and "*" in reads:
        layers = [layer_of(h) for h in _expanded(reads, hook_points, f"{where}.reads")]
    elif isinstance(writes, str) and "*" in writes:
        raise UserError(f"{where}.writes = {writes!r} is of every layer, but reads is not: put it into a list")
    return [
        _site(
            _side(reads, layer, hook_points, where, "reads"), _side(writes, layer, hook_points, where, "writes"), where
        )
        for layer in layers
    ]


def _side(value: Any, layer: int | None, hook_points: Sequence[str], where: str, key: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value if layer is None else value.replace("*", str(layer)),)
    return tuple(h for name in value for h in _expanded(name, hook_points, f"{where}.{key}"))


def _site(reads: tuple[str, ...], writes: tuple[str, ...], where: str) -> Site:
    if reads != writes and sorted(reads) == sorted(writes):
        raise UserError(f"{where}: writes is reads in another order, leave writes out")
    try:
        return Site(reads, writes)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _expanded(name: str, hook_points: Sequence[str], where: str) -> list[str]:
    """The name itself, or what is there with a layer in the place of `*`."""
    if not of_every_layer(name, where):
        return [name]
    pattern = re.compile(re.escape(name).replace(r"\*", r"\d+", 1))
    if not (found := [hook_point for hook_point in hook_points if pattern.fullmatch(hook_point)]):
        raise UserError(f"{where}: {name!r} is no hook point in the store{nearest(name, list(hook_points))}")
    return found
