"""What is kept on disk, and how it is read: activation stores and feature dictionaries."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stores.activations import ActivationStore
    from stores.description import StoreError
    from stores.dictionary import FeatureDictionary, SparseCode
    from stores.from_rows import write_store
    from stores.loader import Batch, BatchLoader
    from stores.order import Cursor, Layout, batch_rows

_FILES = {
    "ActivationStore": "activations",
    "Batch": "loader",
    "BatchLoader": "loader",
    "Cursor": "order",
    "FeatureDictionary": "dictionary",
    "Layout": "order",
    "SparseCode": "dictionary",
    "StoreError": "description",
    "batch_rows": "order",
    "write_store": "from_rows",
}
__all__ = [
    "ActivationStore",
    "Batch",
    "BatchLoader",
    "Cursor",
    "FeatureDictionary",
    "Layout",
    "SparseCode",
    "StoreError",
    "batch_rows",
    "write_store",
]


def __getattr__(name: str) -> Any:
    """A file is imported when one of its names is first asked for: a dictionary needs nothing of Zarr."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
