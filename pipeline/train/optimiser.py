"""Adam, as all families have it."""

from typing import Any

import torch
from torch import Tensor

from pipeline.train import static


def adam(parameters: Any) -> torch.optim.Adam:
    """On CUDA it can be captured in a graph; that changes nothing of what it does."""
    parameters = list(parameters)
    return torch.optim.Adam(parameters, eps=6.25e-10, fused=True, capturable=parameters[0].device.type == "cuda")


def set_rate(optimiser: torch.optim.Adam, lr: float | Tensor) -> None:
    """lr: on a device a tensor that stays in its place."""
    group = optimiser.param_groups[0]
    if static.wanted(group["params"][0]) and not isinstance(lr, Tensor):
        lr = torch.full((), lr, device=group["params"][0].device)
    group["lr"] = lr
