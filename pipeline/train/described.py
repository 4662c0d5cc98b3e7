"""What a method is and what its settings mean, read from its config."""

import sys
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from pipeline.config import MethodConfig
from pipeline.train.methods import Method


@dataclass(frozen=True)
class Key:
    """A setting. default: as a plain JSON value; None for a rule that the meaning tells, and for one that is required."""

    name: str
    default: Any
    required: bool
    meaning: str


@dataclass(frozen=True)
class Keys:
    """Those that one class of settings brings in. of: its name; what: the settings are these."""

    of: str
    what: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Described:
    """A method. origin: the file or package that it comes from, empty for one of this package. keys: its own first, then
    those it has in common with ever more methods."""

    name: str
    what: str
    origin: str
    keys: tuple[Keys, ...]


def described(name: str, method: Method) -> Described:
    """What it is stands first in a family's file, and first in the settings of what is no family."""
    what = _first(sys.modules[method.family.__module__].__doc__) if method.family else ""
    return Described(name, what or _what(method.config), method.origin.get("from", ""), _keys(method.config))


def _keys(config: type[MethodConfig]) -> tuple[Keys, ...]:
    """A key belongs to the most general class that gives it the meaning it has here: the nearest that is given, since a
    class that only changes a default says nothing."""
    classes = [c for c in config.__mro__ if issubclass(c, MethodConfig)]
    found: dict[type[MethodConfig], list[Key]] = {c: [] for c in classes}
    for name, field in config.model_fields.items():
        meanings = {c: c.model_fields[name].description or "" for c in classes if name in c.model_fields}
        meaning = next(filter(None, meanings.values()), "")
        home = [c for c, own in meanings.items() if own == meaning][-1]
        default = field.get_default(call_default_factory=not field.default_factory_takes_validated_data)
        default = None if default is PydanticUndefined else to_jsonable_python(default)
        found[home].append(Key(name, default, field.is_required(), meaning))
    return tuple(Keys(c.__name__, _what(c), tuple(keys)) for c, keys in found.items() if keys)


def _what(config: type[MethodConfig]) -> str:
    return _first(vars(config).get("__doc__")) or _first(sys.modules[config.__module__].__doc__)


def _first(docstring: str | None) -> str:
    """Its first paragraph, in one line."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())
