"""Methods that others wrote: in a file that a recipe names, or in an installed package."""

import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from pipeline.config import UserError
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
            raise UserError(f"{where}: {point.name} = {point.value}: {_told(error)}; mend it or uninstall it") from None
        yield point.name, value, {"from": package}, where


def _of_file(file: str) -> Found:
    where, path = f"train.method_files: {file}", Path(file)
    if not path.is_file():
        raise UserError(f"{where}: no such file, looked in {Path.cwd()}")
    module = _loaded(path.resolve(), sha256(path.read_bytes()).hexdigest(), where)
    table = getattr(module, "METHODS", None)
    if not isinstance(table, dict) or not table:
        found = f"METHODS is {table!r}" if hasattr(module, "METHODS") else "it has no METHODS"
        raise UserError(f'{where}: {found}, expected METHODS = {{"name": MyFamily}}')
    for name, value in table.items():
        yield name, value, {"from": path.name, "sha256": module.__name__.rsplit("_", 1)[1]}, where


@cache
def _loaded(path: Path, digest: str, where: str) -> ModuleType:
    name = f"unmix_methods_{re.sub(r'[^A-Za-z0-9]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{where}: expected a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        raise UserError(f"{where}{f', line {line}' if line else ''}: {_told(error)}") from None
    return module


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _method(value: Any, origin: dict[str, str], where: str) -> Method:
    if isinstance(value, Method):
        return replace(value, origin=origin)
    if not (inspect.isclass(value) and issubclass(value, Family)):
        raise UserError(f"{where} is {value!r}, expected a subclass of pipeline.train.families.Family")
    try:
        return replace(of_family(value), origin=origin)
    except ContractError as error:
        raise UserError(f"{where}: {error}") from None
