"""jaxtyping's names for shapes in signatures. A dictionary is loaded without jaxtyping, too: then they mean nothing."""

from typing import TYPE_CHECKING

try:
    from jaxtyping import Float, Float32, Int, Int64
except ModuleNotFoundError:
    if not TYPE_CHECKING:

        class Float:
            def __class_getitem__(cls, item: tuple) -> type:
                return item[0]

        Float32 = Int = Int64 = Float

__all__ = ["Float", "Float32", "Int", "Int64"]
