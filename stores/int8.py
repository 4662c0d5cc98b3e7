"""Rows as int8, each with a step of its own: a float32 in the four bytes behind the row's codes.

x ≈ step · code, step = max|x| / 127, code = round(x / step). So no coordinate is off by more than half its row's step. The
step is part of the row: whoever copies, checks or gathers rows of codes has their steps with them.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

STEP_BYTES = 4
_LARGEST = 127


def encode(x: Float[Tensor, "*n d"]) -> Int8[Tensor, "*n d_stored"]:
    """(…, d) → (…, d + 4). A row that is not finite has a step that is not."""
    x = x.float()
    step = x.abs().amax(-1, keepdim=True) / _LARGEST
    codes = (x / torch.where(step > 0, step, 1.0)).nan_to_num(0.0)  # inf / inf
    codes = codes.round_().clamp_(-_LARGEST, _LARGEST)  # the smallest steps are rounded themselves
    return torch.cat([codes.to(torch.int8), step.view(torch.int8)], dim=-1)


def decode(x: Int8[Tensor, "*n d_stored"]) -> Float[Tensor, "*n d"]:
    """encode's inverse up to half a step: (…, d + 4) → (…, d) float32. A row whose step is not finite is NaN."""
    step = x[..., -STEP_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return x[..., :-STEP_BYTES] * torch.where(step.isfinite(), step, torch.nan)
