"""How rows of entries are cut, so that a row of thousands is no longer a tail of one program.

A row's entries [begin, end) are cut into parts of PART entries. Its program sums the first part. The later ones belong to
tiles: tile t, which is named by the entry t · PART, has the part t - begin // PART of the row that holds this entry. So there
are as many tiles as n_entries / PART, a number that the host knows without a look at the offsets, and each later part has
exactly one tile. The parts, and the order in which they are added, are a function of the row's own length: the sums
have the same bits at every run, whatever the other rows are. All positions are int64.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

PART = 64  # entries of one part
AT_ONCE = 8  # entries whose loads are in flight together, each of eight accumulators takes every eighth entry


def n_tiles(n_entries: int) -> int:
    return triton.cdiv(n_entries, PART)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int, **constants: int) -> None:
    """Nothing where there is nothing to do: a grid must not be empty."""
    if all(grid):
        kernel[grid](*arguments, **constants)


@triton.jit
def row_of(offsets, n_rows, entry):
    """The row that holds an entry: the last one that begins at or before it."""
    low = entry * 0
    high = low + n_rows
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(offsets + middle) <= entry
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def part_of_tile(offsets, n_rows, tile, PART: tl.constexpr):
    """(row, first entry, end): the later part that is a tile's; first = end without one."""
    row = row_of(offsets, n_rows, tile * PART)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    first = begin + (tile - begin // PART) * PART
    return row, tl.where((first > begin) & (first < end), first, end), tl.minimum(first + PART, end)


@triton.jit
def sum_of_entries(
    values, indices, table, first, end, columns, d: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr
):
    """(BLOCK,) float32: Σ values[e] · table[indices[e], columns] over the entries [first, end)."""
    inside = columns < d
    each = tl.arange(0, AT_ONCE).to(tl.int64)
    total = tl.zeros((AT_ONCE, BLOCK), dtype=tl.float32)
    for start in range(first, end, AT_ONCE):
        entry = start + each
        there = entry < end
        value = tl.load(values + entry, mask=there, other=0.0)
        index = tl.load(indices + entry, mask=there, other=0).to(tl.int64)
        rows = table + index[:, None] * d + columns[None, :]
        own = tl.load(rows, mask=there[:, None] & inside[None, :], other=0.0)
        total += value[:, None] * own.to(tl.float32)
    return tl.sum(total, axis=0)


@triton.jit
def sum_of_row(
    values, indices, table, later, begin, end, columns,
    d: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """(BLOCK,) float32: the sum over a row's entries, of which later (n_tiles, d) has the parts after the first."""
    first_end = tl.minimum(begin + PART, end)
    own = sum_of_entries(values, indices, table, begin, first_end, columns, d, BLOCK, AT_ONCE)
    if end > first_end:
        each = tl.arange(0, AT_ONCE).to(tl.int64)
        tile = begin // PART + 1
        tiles_end = tile + (end - first_end + PART - 1) // PART
        total = tl.zeros((AT_ONCE, BLOCK), dtype=tl.float32)
        for start in range(tile, tiles_end, AT_ONCE):
            there = start + each < tiles_end
            rows = later + (start + each)[:, None] * d + columns[None, :]
            total += tl.load(rows, mask=there[:, None] & (columns < d)[None, :], other=0.0)
        own += tl.sum(total, axis=0)
    return own
