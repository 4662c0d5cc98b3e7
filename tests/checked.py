"""Types and shapes in signatures are checked at every call that the tests make: by beartype, as lenient as pyright is."""

from typing import Any, Self

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from jaxtyping import install_import_hook

PACKAGES = ["stores", "pipeline.train.rotations", "pipeline.models", "pipeline.score"]

# an int is a float; jaxtyping decorates methods, and not their class, where Self means nothing
check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=BeartypeHintOverrides({Self: Any})))

install_import_hook(PACKAGES, f"{__name__}.check")
