"""What is kept on disk, and how it is read: activation stores and feature dictionaries."""

from stores.activations import ActivationStore
from stores.description import StoreError
from stores.dictionary import FeatureDictionary, SparseCode
from stores.from_rows import write_store
from stores.loader import Batch, BatchLoader
from stores.order import Cursor, Layout, batch_rows

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
