"""The two sparse products of kernels.py on a CUDA device, in Triton: nothing larger than what goes in and comes out.

Each program makes one row of the output, reads that row's entries one after another, and keeps its row in registers. The
order of the entries is the code's, so the sums are the same at every run. Triton's interpreter runs them on a CPU, for
tests (TRITON_INTERPRET=1).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LARGEST_BLOCK = 4096


@triton.jit
def _bag(values, indices, offsets, table, out, d: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < d
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    for entry in range(begin, end):
        value = tl.load(values + entry)
        index = tl.load(indices + entry)
        total += value * tl.load(table + index * d + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * d + columns, total, mask=inside)


@triton.jit
def _dots(a, indices, offsets, table, out, d: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    for entry in range(begin, end):
        index = tl.load(indices + entry)
        total = tl.zeros((BLOCK,), dtype=tl.float32)
        for start in range(0, d, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < d
            own = tl.load(a + row * d + columns, mask=inside, other=0.0).to(tl.float32)
            total += own * tl.load(table + index * d + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + entry, tl.sum(total, axis=0))


def bag(values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    """(n_rows, d) float32: row i is the sum of values[e] · table[indices[e]] over its entries. See kernels.bag."""
    n_rows, d = len(offsets) - 1, table.shape[1]
    out = torch.empty((n_rows, d), dtype=torch.float32, device=table.device)
    block = min(_LARGEST_BLOCK, triton.next_power_of_2(d))
    if n_rows:
        _bag[(n_rows, triton.cdiv(d, block))](values, indices, offsets, table.contiguous(), out, d, block)  # type: ignore
    return out


def dots(a: Tensor, table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """(n_entries,) float32: a[i] · table[indices[e]] for the entries e of row i. See kernels.dots."""
    out = torch.empty(len(indices), dtype=torch.float32, device=table.device)
    d = table.shape[1]
    block = min(_LARGEST_BLOCK, triton.next_power_of_2(d))
    if len(a):
        _dots[(len(a),)](a.contiguous(), indices, offsets, table.contiguous(), out, d, block)  # type: ignore
    return out
