"""Types and shapes in signatures are checked at every call that the tests make, in modules that have shapes: by beartype, as
lenient as pyright is."""

import re
from pathlib import Path
from typing import Any, Self

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from jaxtyping import install_import_hook

_ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for package in ("stores", "pipeline")
    for path in sorted((_ROOT / package).rglob("*.py"))
    if re.search("from (jaxtyping|stores.shapes) import", path.read_text(encoding="utf-8"))
]

# an int is a float; jaxtyping decorates methods, and not their class, where Self means nothing
check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=BeartypeHintOverrides({Self: Any})))

install_import_hook(MODULES, f"{__name__}.check")
