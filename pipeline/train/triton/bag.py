"""Sums over rows of entries: what a code decodes to, and the gradients of both weights."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.train.triton.parts import AT_ONCE, PART, launch, n_tiles, part_of_tile, sum_of_entries, sum_of_row

_LARGEST_BLOCK = (
    256  # columns of one program: the table's slice of so many columns stays in the L2 cache, and 768 is 3 of it
)


@triton.jit
def later_parts(
    values, indices, offsets, table, later, n_rows,
    d: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0).to(tl.int64)
    _, first, end = part_of_tile(offsets, n_rows, tile, PART)
    if first < end:
        columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        total = sum_of_entries(values, indices, table, first, end, columns, d, BLOCK, AT_ONCE)
        tl.store(later + tile * d + columns, total, mask=columns < d)


@triton.jit
def rows(
    values, indices, offsets, table, later, out,
    d: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    total = sum_of_row(values, indices, table, later, begin, end, columns, d, BLOCK, PART, AT_ONCE)
    tl.store(out + row * d + columns, total, mask=columns < d)


def block_of(d: int) -> tuple[int, int]:
    """(columns of one program, its warps): four columns a thread."""
    block = min(_LARGEST_BLOCK, max(32, triton.next_power_of_2(d)))
    return block, max(1, block // 128)


def sum_later_parts(values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    """(n_tiles, d) float32: the sums over the parts after each row's first; undefined where a tile has none."""
    d, n_rows = table.shape[1], len(offsets) - 1
    later = torch.empty((n_tiles(len(indices)), d), dtype=torch.float32, device=table.device)
    block, warps = block_of(d)
    launch(
        later_parts, (len(later) if n_rows else 0, triton.cdiv(d, block)),
        values, indices, offsets, table, later, n_rows,
        d=d, BLOCK=block, PART=PART, AT_ONCE=AT_ONCE, num_warps=warps,
    )  # fmt: skip
    return later


def bag(values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    table, n_rows, d = table.contiguous(), len(offsets) - 1, table.shape[1]
    out = torch.empty((n_rows, d), dtype=torch.float32, device=table.device)
    later = sum_later_parts(values, indices, offsets, table)
    block, warps = block_of(d)
    launch(
        rows, (n_rows, triton.cdiv(d, block)),
        values, indices, offsets, table, later, out,
        d=d, BLOCK=block, PART=PART, AT_ONCE=AT_ONCE, num_warps=warps,
    )  # fmt: skip
    return out
