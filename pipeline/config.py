"""What all typed settings share, and how a mistake in them is told to the user in one line."""

import difflib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from stores.site import Site


class UserError(Exception):
    """Bad input: the message is one line that says what was found, what was expected and what to do. Exit code 2."""


class Config(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class MethodConfig(Config):
    """Settings of one way to make a dictionary. variants: settings that are true or false, and end a dictionary's name with
    their own where they are true."""

    variants: ClassVar[tuple[str, ...]] = ()

    def rows_to_begin(self, d: int) -> dict[str, int]:
        """How many training rows there have to be, by the setting that takes them. d: the larger of d_in and d_out."""
        return {}

    @property
    def fvu_name(self) -> str:
        """What the log calls the fraction of variance unexplained of the rows that are learned."""
        return "fvu"

    def warnings(self, record: Mapping[str, float], d_in: int) -> list[str]:
        """What to tell a user who reads the last line of a dictionary's log; nothing where all went as it was asked."""
        return []

    def check(self, site: Site, d_in: int) -> None:
        """Raises ValueError: these settings do not fit a site that reads d_in coordinates. By default a method writes what
        it reads."""
        if site.reads != site.writes:
            raise ValueError("it writes what it reads: set hook_points instead of reads and writes")


C = TypeVar("C", bound=Config)


def validated(model: type[C], values: dict[str, Any], where: str) -> C:
    """model(**values). Raises UserError for the first mistake, naming the key and the nearest known one."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        *parents, key = (str(part) for part in first["loc"]) if first["loc"] else ("",)
        name = ".".join(p for p in (where, *parents, key) if p)
        name = name if name.isprintable() else ascii(name)
        if first["type"] == "extra_forbidden":
            known = _fields(model, parents)
            raise UserError(f"unknown key {name}{nearest(key, known)}") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise UserError(f"{name} is missing") from None
        if isinstance(first["input"], dict):
            raise UserError(f"{name}: {message}") from None
        raise UserError(f"{name}: {message}, got {_shown(first['input'])}") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of 5000 digits, 5000 brackets
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:199]}…"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        for kind in get_args(annotation) or (annotation,):  # one that may be left out is X | None
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return list(model.model_fields)


def nearest(word: str, known: list[str]) -> str:
    """', did you mean …?' or the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]}?" if close else f", known are: {', '.join(known)}"


def settings_json(config: Config) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(config.model_dump_json())


def as_list(value: Any) -> list[Any]:
    """What may be one or several, as several."""
    return value if isinstance(value, list) else [value]
