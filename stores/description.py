"""What says what a store's numbers are: the model, the text, the positions, and how they are laid out and rounded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped

from stores import int8
from stores.manifest import digest

SCHEMA_VERSION = 4
Part = Literal["train", "heldout"]
# Where in a text the training and the held-out sequences go on, each by (document, passage in it, token in that).
TextPositions = tuple[tuple[int, int, int], tuple[int, int, int]]
# What lies in the arrays. Zarr has no bfloat16: a uint16 view. int8: see stores/int8.py.
DTYPES = {"float16": "float16", "float32": "float32", "bfloat16": "uint16", "int8": "int8"}


class StoreError(ValueError):
    """A store, or a part of one, is missing, unfinished or damaged."""


class OtherSchema(StoreError):
    """A store that another version wrote, whose description means something else."""


@dataclass(frozen=True)
class Description:
    """Everything that says what a store's numbers are. Saved as the group's attributes and part of the digest."""

    model: str
    model_revision: str | None
    model_digest: str
    tokenizer_digest: str
    weight_processing: str  # "none" | "folded"
    precision: str  # of the forward pass's matrix products: "float32" | "bfloat16"
    text: str
    text_digest: str | None
    context: int
    positions: tuple[int, ...]  # places in the context whose activations are kept
    bos: bool  # every sequence begins with BOS
    hook_points: tuple[str, ...]
    d: tuple[int, ...]  # per hook point
    dtype: str  # "float16" | "bfloat16" | "float32" | "int8"
    n_sequences: int
    heldout_fraction: float
    chunk_sequences: int
    shard_chunks: int
    n_rows_asked: int | None = None  # of the text, which may end before; None: no text was asked
    schema_version: int = SCHEMA_VERSION

    @property
    def n_positions(self) -> int:
        return len(self.positions)

    @property
    def n_rows(self) -> int:
        return self.n_sequences * self.n_positions

    @cached_property
    def identity(self) -> str:
        """sha256 of all but n_sequences, which is found to be less where the text ends."""
        return digest({k: v for k, v in asdict(self).items() if k != "n_sequences"})

    @property
    def chunk_rows(self) -> int:
        return self.chunk_sequences * self.n_positions

    @property
    def n_chunks(self) -> int:
        return -(-self.n_sequences // self.chunk_sequences)

    @property
    def ended_early(self) -> bool:
        """Whether the text ended before it gave the rows that were asked for."""
        return self.n_rows_asked is not None and self.n_rows < self.n_rows_asked

    @cached_property
    def _is_heldout(self) -> Bool[np.ndarray, " n_chunks"]:
        return is_heldout(self.n_chunks, self.heldout_fraction)

    def chunks(self, part: Part) -> Int64[np.ndarray, " n"]:
        """The numbers of the chunks that hold a part's rows, in their order. All are full but the store's last one."""
        return np.flatnonzero(self._is_heldout == (part == "heldout"))

    def part_sequences(self, part: Part) -> int:
        """How many sequences a part has."""
        chunks = self.chunks(part)
        short = self.n_chunks * self.chunk_sequences - self.n_sequences
        return len(chunks) * self.chunk_sequences - (short if self.n_chunks - 1 in chunks else 0)

    def shard_parts(self, shard: int) -> list[tuple[Part, int]]:
        """(whose it is, how many sequences it has) of each chunk in a shard."""
        start, stop = self.sequences(shard)
        firsts = range(start, stop, self.chunk_sequences)
        return [
            (
                "heldout" if self._is_heldout[first // self.chunk_sequences] else "train",
                min(self.chunk_sequences, stop - first),
            )
            for first in firsts
        ]

    @property
    def shard_sequences(self) -> int:
        return self.chunk_sequences * self.shard_chunks

    @property
    def n_shards(self) -> int:
        return -(-self.n_sequences // self.shard_sequences)

    def sequences(self, shard: int) -> tuple[int, int]:
        """[start, stop) of the sequences in a shard."""
        return shard * self.shard_sequences, min((shard + 1) * self.shard_sequences, self.n_sequences)

    def width(self, hook_point: str) -> int:
        """d at a hook point."""
        return self.d[self.hook_points.index(hook_point)]

    def stored_width(self, hook_point: str) -> int:
        """Numbers in a row of the array."""
        return stored_width(self.width(hook_point), self.dtype)


def is_heldout(n: int, fraction: float) -> Bool[np.ndarray, " {n}"]:
    """Which of the first n chunks hold held-out rows. A function of the chunk's number and the fraction alone.

    The rarer of the two parts has chunk 1, and of those that follow its share, evenly: any two chunks or more hold both.
    """
    rarer = min(fraction, 1 - fraction)
    n_before = np.floor((np.arange(n + 1) - 2) * rarer) + 1  # chunks of the rarer part before each chunk
    return (np.diff(n_before) > 0) == (fraction <= 0.5)


def stored_width(d: int, dtype: str) -> int:
    """Numbers in a row of an array that holds rows (n, d)."""
    return d + int8.STEP_BYTES if dtype == "int8" else d


def row_bytes(d: int, dtype: str) -> int:
    """Of a row (d) as it is stored."""
    return stored_width(d, dtype) * np.dtype(DTYPES[dtype]).itemsize


def to_stored(x: Shaped[np.ndarray, "n d"], dtype: str) -> Shaped[np.ndarray, "n d_stored"]:
    """float32 (n, d), or what is as stored already → what lies in the array; bfloat16 rounds to nearest even."""
    if x.dtype == DTYPES[dtype]:
        return x
    if dtype == "int8":
        return int8.encode(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):  # what overflows is found when it is written
            return x.astype(dtype)
    bits = x.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)  # the sum above carries a NaN's bits over into a number


def from_stored(x: Shaped[np.ndarray, "n d_stored"], dtype: str) -> Float[np.ndarray, "n d"]:
    """What lies in the array → floating-point numbers: float16 and float32 as they are, the others as float32."""
    if dtype == "int8":
        return int8.decode(torch.from_numpy(x)).numpy()
    return (x.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else x


def describe_nonfinite(found: Mapping[str, tuple[int, int, int]], dtype: str) -> str:
    """One line for people. found: per hook point (rows, sequence and position of the first)."""
    hook_point, (n, sequence, position) = next(iter(found.items()))
    others = f" (some at {', '.join(list(found)[1:])} too)" if len(found) > 1 else ""
    return (
        f"{n} activations at {hook_point} are not finite in {dtype}, the first at sequence {sequence}, position {position}"
        f"{others}"
    )
