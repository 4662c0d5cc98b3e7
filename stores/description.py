"""What says what a store's numbers are: the model, the text, the positions, and how they are laid out and rounded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

SCHEMA_VERSION = 1
DTYPES = {"float16": "float16", "float32": "float32", "bfloat16": "uint16"}  # Zarr has no bfloat16: a uint16 view


class StoreError(ValueError):
    """A store, or a part of one, is missing, unfinished or damaged."""


@dataclass(frozen=True)
class Description:
    """Everything that says what a store's numbers are. Saved as the group's attributes and part of the digest."""

    model: str
    model_revision: str | None
    model_digest: str
    tokenizer_digest: str
    weight_processing: str  # "none" | "folded"
    text: str
    text_digest: str | None
    context: int
    positions: tuple[int, ...]  # places in the context whose activations are kept
    bos: bool  # every sequence begins with BOS
    hook_points: tuple[str, ...]
    d: tuple[int, ...]  # per hook point
    dtype: str  # "float16" | "bfloat16" | "float32"
    n_sequences: int
    n_heldout_sequences: int  # the last ones, whole chunks: never trained on
    chunk_sequences: int
    shard_chunks: int
    schema_version: int = SCHEMA_VERSION

    @property
    def n_positions(self) -> int:
        return len(self.positions)

    @property
    def shard_sequences(self) -> int:
        return self.chunk_sequences * self.shard_chunks

    @property
    def n_shards(self) -> int:
        return -(-self.n_sequences // self.shard_sequences)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        values = dict(attributes)
        if values.get("schema_version") != SCHEMA_VERSION:
            raise StoreError(f"store schema {values.get('schema_version')}, this version reads {SCHEMA_VERSION}")
        return cls(**cast(Any, {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}))


def to_stored(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 (n, d) → what lies in the array; bfloat16 rounds to nearest even."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):  # what overflows is refused by name when it is written
            return x.astype(dtype)
    bits = x.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)  # the sum above carries a NaN's bits over into a number


def from_stored(x: np.ndarray, dtype: str) -> np.ndarray:
    """What lies in the array → floating-point numbers: float16 and float32 as they are, bfloat16 as float32."""
    return (x.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else x
