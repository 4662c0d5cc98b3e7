"""Pre-activations, and beside them the largest of each group of latents, made while they are at hand.

The k-th largest of a row's group maxima bounds its k largest pre-activations from below, and they lie in the k groups
of the largest maxima: a top-k looks at k · GROUP numbers of a row instead of all (GROUP = 64, k = 32: 2,048 of 24,576).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.train import on_cpu
from pipeline.train.on_cpu import GROUP
from pipeline.train.triton.parts import launch

# Of a program's tile, and of one turn of its sum. 256 latents spill 1,168 bytes a thread on sm_90 with Triton 3.7.1, which
# PyTorch 2.13 brings, 1,160 with 3.6.0, none with 3.9.0; 128 spill none with any of them, on sm_80, 90 and 100.
ROWS, LATENTS, COLUMNS, WARPS, STAGES = 128, 128, 64, 8, 3
TILES_ABREAST = 8  # tiles of rows that run beside each other, so that they read the same weights from the L2 cache


@triton.jit
def products(
    x, W, b, pre, maxima, n_rows, n_latents,
    d: tl.constexpr, ROWS: tl.constexpr, LATENTS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
    ABREAST: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(n_rows, ROWS)
    width = tl.cdiv(n_latents, LATENTS).to(tl.int64) * ABREAST
    first = program // width * ABREAST
    abreast = tl.minimum(tiles - first, ABREAST)
    # Of a tile the first row and latent are counted in 64 bits, those in it in 32: registers are what a tile is short of.
    row0, latent0 = (first + program % width % abreast) * ROWS, program % width // abreast * LATENTS
    row, latent = tl.arange(0, ROWS), tl.arange(0, LATENTS)
    last_row, last_latent = (n_rows - 1 - row0).to(tl.int32), (n_latents - 1 - latent0).to(tl.int32)
    # What lies outside is read as what lies at the edge, and written nowhere.
    of_x = x + row0 * d + tl.minimum(row, last_row)[:, None] * d
    of_W = W + latent0 * d + tl.minimum(latent, last_latent)[None, :] * d
    total = tl.zeros((ROWS, LATENTS), dtype=tl.float32)
    for start in range(0, d, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < d
        own = tl.load(of_x + column[None, :], mask=inside[None, :], other=0.0)
        weights = tl.load(of_W + column[:, None], mask=inside[:, None], other=0.0)
        total = tl.dot(own, weights, total)
    there = latent <= last_latent
    bias = tl.load(b + latent0 + latent, mask=there, other=0.0).to(tl.float32)
    made = (total + bias[None, :]).to(pre.dtype.element_ty)
    at = pre + row0 * n_latents + latent0 + row[:, None] * n_latents + latent[None, :]
    tl.store(at, made, mask=(row <= last_row)[:, None] & there[None, :])
    of_group = tl.where(there[None, :], made, -float("inf"))
    largest = tl.max(tl.reshape(of_group, (ROWS, LATENTS // GROUP, GROUP)), axis=2)
    group, n_groups = tl.arange(0, LATENTS // GROUP), (n_latents + GROUP - 1) // GROUP
    at = maxima + row0 * n_groups + latent0 // GROUP + row[:, None] * n_groups + group[None, :]
    tl.store(at, largest, mask=(row <= last_row)[:, None] & (group * GROUP <= last_latent)[None, :])


def encode(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.bfloat16:  # a tile of float32 has no room in shared memory, and would be multiplied as TF32
        return on_cpu.encode(x, W, b)
    return tiled(x, W, b)


def tiled(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    (n_rows, d), n_latents = x.shape, len(W)
    pre = torch.empty((n_rows, n_latents), dtype=x.dtype, device=x.device)
    maxima = torch.empty((n_rows, triton.cdiv(n_latents, GROUP)), dtype=x.dtype, device=x.device)
    launch(
        products, (triton.cdiv(n_rows, ROWS) * triton.cdiv(n_latents, LATENTS),),
        x.contiguous(), W.contiguous(), b.contiguous(), pre, maxima, n_rows, n_latents,
        d=d, ROWS=ROWS, LATENTS=LATENTS, COLUMNS=COLUMNS, GROUP=GROUP, ABREAST=TILES_ABREAST,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return pre, maxima
