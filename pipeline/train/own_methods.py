"""Methods that others wrote: in a file that a recipe names, or in an installed package."""

import importlib.metadata
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import UserError
from pipeline.own_files import own_module, told
from pipeline.train.contract import ContractError, check_family
from pipeline.train.families.base import Family
from pipeline.train.methods import METHODS, Method, of_family

GROUP = "unmix.methods"  # of entry points: NAME = "package.module:MyFamily"


def methods(files: Sequence[str] = (), taken: Sequence[str] = ()) -> dict[str, Method]:
    """By name: METHODS, those of installed packages, and those of files, each of which has METHODS = {"name": MyFamily}.

    taken: names that mean something else. Raises UserError: a file that is not there, raises or holds no methods; a name
    that is no name, or is taken.
    """
    found = dict(METHODS)
    for name, value, origin, where in (*_of_packages(), *(own for file in files for own in _of_file(file))):
        if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise UserError(f"{where}: {name!r} is no name of a method, expected small letters, digits and _")
        if name in found or name in taken:
            whose = (
                "a built-in method" if name in METHODS else "another method" if name in found else "a key of [train]"
            )
            raise UserError(f"{where}: {name} is the name of {whose} already, choose another")
        found[name] = _method(value, origin, f"{where}: {name}")
    return found


def check(method: Method, name: str) -> None:
    """Raises UserError: another's family that does not keep the contract of families."""
    if method.family is None or not method.origin:
        return
    try:
        _checked(method.family)
    except ContractError as error:
        raise UserError(
            f"train.{name} ({method.origin['from']}) breaks the contract of families: {error}; "
            f"pipeline.train.contract.check_family shows where"
        ) from None
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise UserError(
            f"train.{name} ({method.origin['from']}): {method.config.__name__} needs a default for {keys}"
        ) from None


@cache
def _checked(family: type[Family]) -> None:
    check_family(family)


Found = Iterator[tuple[Any, Any, dict[str, str], str]]


def _of_packages() -> Found:
    """(name, what it is, where it comes from, how a message begins)"""
    for point in importlib.metadata.entry_points(group=GROUP):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        where = f"the installed package {package}"
        try:
            value = point.load()
        except (Exception, SystemExit) as error:
            raise UserError(f"{where}: {point.name} = {point.value}: {told(error)}; mend it or uninstall it") from None
        yield point.name, value, {"from": package}, where


def _of_file(file: str) -> Found:
    where = f"train.method_files: {file}"
    module, digest = own_module(file, where)
    table = getattr(module, "METHODS", None)
    if not isinstance(table, dict) or not table:
        found = f"METHODS is {table!r}" if hasattr(module, "METHODS") else "it has no METHODS"
        raise UserError(f'{where}: {found}, expected METHODS = {{"name": MyFamily}}')
    for name, value in table.items():
        yield name, value, {"from": Path(file).name, "sha256": digest}, where


def _method(value: Any, origin: dict[str, str], where: str) -> Method:
    if isinstance(value, Method):
        return replace(value, origin=origin)
    if not (inspect.isclass(value) and issubclass(value, Family)):
        raise UserError(f"{where} is {value!r}, expected a subclass of pipeline.train.families.Family")
    try:
        return replace(of_family(value), origin=origin)
    except ContractError as error:
        raise UserError(f"{where}: {error}") from None
