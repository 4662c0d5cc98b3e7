"""Types and shapes in signatures are checked at the calls that the tests make, in modules that have shapes: by beartype, as
lenient as pyright is. A call of the types and shapes of an earlier one is not checked again: training loops would spend a third
of their time on it."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jaxtyping
import numpy as np
import torch
from beartype import BeartypeConf, BeartypeHintOverrides, beartype

_ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for package in ("stores", "pipeline")
    for path in sorted((_ROOT / package).rglob("*.py"))
    if re.search("from (jaxtyping|stores.shapes) import", path.read_text(encoding="utf-8"))
]

# an int is a float; jaxtyping decorates methods, and not their class, where Self means nothing
check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=BeartypeHintOverrides({Self: Any})))


def kind(value: Any) -> Any:
    """What a check can see of an argument; raises TypeError: it holds others."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return type(value), value.dtype, value.shape
    if isinstance(value, list | tuple | dict | set):
        raise TypeError
    return type(value)


def once(function: Callable, checked: Callable) -> Callable:
    """The function, checked where its arguments are of kinds that it has not had yet."""
    seen: set[Any] = set()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            kinds = (*map(kind, args), *kwargs, *map(kind, kwargs.values()))
        except TypeError:
            return checked(*args, **kwargs)
        if kinds in seen:
            return function(*args, **kwargs)
        found = checked(*args, **kwargs)
        seen.add(kinds)
        return found

    return call


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's, of a function once for each kind of arguments; of one whose shapes depend on numbers, at every call."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    checked = _jaxtyped(function, typechecker=typechecker)
    plain = inspect.isfunction(function) and "{" not in str(inspect.signature(function))
    return once(function, checked) if plain else checked


_jaxtyped, jaxtyping.jaxtyped = jaxtyping.jaxtyped, jaxtyped
jaxtyping.install_import_hook(MODULES, f"{__name__}.check")
