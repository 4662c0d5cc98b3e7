"""Adam over a matrix whose rows are features, in one pass: weight, gradient and both moments are read and written once.

With `unit` the rows keep length 1: the part of the gradient along the row is taken away first, and the row is divided by
its length after the step. The gradient is given, or made here of the code's entries and the dense rows that it weighs (see
bag.py), so that it is never written.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.train.on_cpu import BETAS, EPS, LARGEST_D, SHORTEST
from pipeline.train.triton.bag import sum_later_parts
from pipeline.train.triton.parts import PART, launch, sum_of_row

AT_ONCE = 4  # entries: a whole row of columns each, beside the row's own numbers
_BETA1, _BETA2 = tl.constexpr(BETAS[0]), tl.constexpr(BETAS[1])
_LOG_BETA1, _LOG_BETA2 = tl.constexpr(math.log(BETAS[0])), tl.constexpr(math.log(BETAS[1]))
_EPS, _SHORT = tl.constexpr(EPS), tl.constexpr(SHORTEST)


@triton.jit
def update_row(gradient, weight, mean, square, step, lr, at, inside, UNIT: tl.constexpr):
    """gradient: a row's numbers; the others are pointers."""
    w = tl.load(weight + at, mask=inside, other=0.0)
    m = tl.load(mean + at, mask=inside, other=0.0)
    v = tl.load(square + at, mask=inside, other=0.0)
    if UNIT:
        gradient -= tl.sum(gradient * w, axis=0) * w
    # In float64: 1 - .999 in float32 has lost four digits.
    t = tl.load(step).to(tl.float64)
    rate = (tl.load(lr).to(tl.float64) / (1.0 - tl.exp(t * _LOG_BETA1))).to(tl.float32)
    correction = tl.sqrt(1.0 - tl.exp(t * _LOG_BETA2)).to(tl.float32)
    m += (gradient - m) * (1.0 - _BETA1)
    v = v * _BETA2 + gradient * gradient * (1.0 - _BETA2)
    w -= rate * m / (tl.sqrt(v) / correction + _EPS)
    if UNIT:
        w = w / tl.maximum(tl.sqrt(tl.sum(w * w, axis=0)), _SHORT)
    tl.store(weight + at, w, mask=inside)
    tl.store(mean + at, m, mask=inside)
    tl.store(square + at, v, mask=inside)


@triton.jit
def dense(gradient, weight, mean, square, step, lr, d: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside, at = columns < d, tl.program_id(0).to(tl.int64) * d + columns
    own = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    update_row(own, weight, mean, square, step, lr, at, inside, UNIT)


@triton.jit
def sparse(
    values, indices, offsets, table, later, weight, mean, square, step, lr,
    d: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    own = sum_of_row(values, indices, table, later, begin, end, columns, d, BLOCK, PART, AT_ONCE)
    update_row(own, weight, mean, square, step, lr, row * d + columns, columns < d, UNIT)


def block_of(d: int) -> tuple[int, int]:
    """(columns of one program, its warps): four columns a thread, eight in the longest rows."""
    block = max(32, triton.next_power_of_2(d))
    return block, min(32, max(1, block // 128))


def update(
    gradient: Tensor, weight: Tensor, mean: Tensor, square: Tensor, step: Tensor, lr: Tensor, unit: bool
) -> None:
    check(weight, mean, square)
    n, d = weight.shape
    block, warps = block_of(d)
    launch(
        dense, (n,),
        gradient.contiguous(), weight, mean, square, step, lr,
        d=d, BLOCK=block, UNIT=unit, num_warps=warps,
    )  # fmt: skip


def sparse_update(
    values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor,
    weight: Tensor, mean: Tensor, square: Tensor, step: Tensor, lr: Tensor, unit: bool,
) -> None:  # fmt: skip
    check(weight, mean, square)
    n, d = weight.shape
    block, warps = block_of(d)
    table = table.contiguous()
    later = sum_later_parts(values, indices, offsets, table)
    launch(
        sparse, (n,),
        values, indices, offsets, table, later, weight, mean, square, step, lr,
        d=d, BLOCK=block, PART=PART, AT_ONCE=AT_ONCE, UNIT=unit, num_warps=warps,
    )  # fmt: skip


def check(weight: Tensor, *alike: Tensor) -> None:
    """Raises ValueError: what is written in place does not lie as one matrix, or its rows are too long."""
    if weight.shape[1] > LARGEST_D:
        raise ValueError(f"rows of {weight.shape[1]} columns: the fused update takes {LARGEST_D:,} at most")
    if not all(t.is_contiguous() and t.dtype == torch.float32 for t in (weight, *alike)):
        raise ValueError("the fused update writes contiguous float32 matrices in place")
