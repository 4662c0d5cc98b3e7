"""Products of pairs of rows, one for each entry of a code: the decoder's gradient to the code."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.train.triton.parts import AT_ONCE, PART, launch, n_tiles, part_of_tile

_LARGEST_BLOCK = 128


@triton.jit
def pairs(
    a, indices, offsets, table, out, n_rows, n_tiles,
    d: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    if program < n_tiles:
        row, first, end = part_of_tile(offsets, n_rows, program, PART)
    else:
        row = program - n_tiles
        first = tl.load(offsets + row)
        end = tl.minimum(first + PART, tl.load(offsets + row + 1))
    each = tl.arange(0, AT_ONCE).to(tl.int64)
    for start in range(first, end, AT_ONCE):
        entry = start + each
        there = entry < end
        index = tl.load(indices + entry, mask=there, other=0).to(tl.int64)
        total = tl.zeros((AT_ONCE, BLOCK), dtype=tl.float32)
        for column in range(0, d, BLOCK):
            columns = column + tl.arange(0, BLOCK)
            inside = columns < d
            own = tl.load(a + row * d + columns, mask=inside, other=0.0).to(tl.float32)
            rows = table + index[:, None] * d + columns[None, :]
            other = tl.load(rows, mask=there[:, None] & inside[None, :], other=0.0)
            total += own[None, :] * other.to(tl.float32)
        tl.store(out + entry, tl.sum(total, axis=1), mask=there)


def block_of(d: int) -> tuple[int, int]:
    """(columns of one turn, warps of a program): each warp has four of eight entries, a thread four columns of each."""
    return min(_LARGEST_BLOCK, max(32, triton.next_power_of_2(d))), 2


def dots(a: Tensor, table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    d, tiles = table.shape[1], n_tiles(len(indices))
    out = torch.empty(len(indices), dtype=torch.float32, device=table.device)
    block, warps = block_of(d)
    launch(
        pairs, (tiles + len(a) if tiles else 0,),
        a.contiguous(), indices, offsets, table.contiguous(), out, len(a), tiles,
        d=d, BLOCK=block, PART=PART, AT_ONCE=AT_ONCE, num_warps=warps,
    )  # fmt: skip
    return out
