"""Recipes: TOML in, a name and tables out. What a table may hold is known where its stage is."""

import tomllib
from pathlib import Path
from typing import Any

from pipeline.config import UserError, as_list, nearest

RECIPES = Path(__file__).parent / "recipes"


def read_recipe(name_or_path: str, sets: list[str] | None = None, name: str | None = None) -> dict[str, Any]:
    """The tables and the name of a recipe of pipeline/recipes by its name, or any TOML file by its path; `sets` are KEY=VALUE
    overrides.

    Raises UserError.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        known = sorted(p.stem for p in RECIPES.glob("*.toml"))
        if name_or_path not in known:
            if path.is_dir():
                raise UserError(
                    f"{name_or_path} is a folder, expected a recipe: its name, or its path ending in .toml; --runs and --name "
                    f"say in which folder it runs"
                )
            raise UserError(
                f"no recipe {name_or_path!r}{nearest(name_or_path, known)} (or give a path ending in .toml)"
            )
        path = RECIPES / f"{name_or_path}.toml"
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
    return values


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
        tables = [t for table in tables for t in as_list(table.setdefault(parent, {}))]
        if not all(isinstance(table, dict) for table in tables):
            raise UserError(f"--set {item}: {parent} is a value, not a table")
    for table in tables:
        table[last] = value
