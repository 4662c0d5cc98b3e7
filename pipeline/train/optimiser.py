"""Adam, as all families have it."""

from typing import Any

import torch
from torch import Tensor

from pipeline.train import static


def adam(parameters: Any) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, eps=6.25e-10, fused=True)


def set_rate(optimiser: torch.optim.Adam, lr: float) -> None:
    """On a device the rate is a tensor that stays in its place."""
    group = optimiser.param_groups[0]
    if not static.wanted(group["params"][0]):
        group["lr"] = lr
    elif isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = torch.full((), lr, device=group["params"][0].device)
