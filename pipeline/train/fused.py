"""The optimiser's step on a device in one pass over each matrix, by the operators update and sparse_update."""

import torch
from torch import Tensor

from pipeline.train import operators, static
from pipeline.train.families.base import Family
from pipeline.train.kernels import bag
from pipeline.train.on_cpu import LARGEST_D


def holds(model: Family) -> bool:
    """Whether its step is this one; else it is projection, clipping, Adam and Family.constrain, one after another.

    Not of what is small enough to be trained in a stack, where it learns what it learns alone.
    """
    config, matrices = model.config, [p for p in model.parameters() if p.ndim == 2]
    return (
        static.wanted(model.W_dec)
        and not model.products.dense
        and not config.grad_clip  # it takes the norm of all gradients before the first step
        and config.frozen is None
        and type(model).constrain is Family.constrain
        and (len(model.d_writes) == 1 or not model.unit_decoder)  # a row's length is that of all its columns
        and all(p.shape[1] <= LARGEST_D and p.is_contiguous() for p in matrices)
    )


def defers(model: Family) -> bool:
    """Whether a backward pass leaves gradients that are sparse products to this step. Those that processes add up are made."""
    return holds(model) and not model.products.ranks.splits_rows


@torch.no_grad()
def take(model: Family, optimiser: torch.optim.Adam) -> None:
    """From the gradients, and those that were left, to the next weights. Vectors take PyTorch's fused Adam, of one pass too.

    Adam's state is PyTorch's, whoever wrote it last."""
    lr, unit = optimiser.param_groups[0]["lr"], model.W_dec if model.unit_decoder else None
    for parameter in model.parameters():
        left = model.products.deferred.of(parameter)
        if parameter.ndim != 2 or (parameter.grad is None and not left):
            continue
        mean, square, step = _state(optimiser, parameter)
        own = parameter.detach(), mean, square, step.add_(1), lr, parameter is unit
        if parameter.grad is None and len(left) == 1:
            code, table = left[0]
            operators.sparse_update(*code, table, *own)
        else:
            operators.update(_sum(parameter.grad, [bag(*product) for product in left]), *own)
        parameter.grad = None  # for Adam there is nothing left to do
    optimiser.step()


def _state(optimiser: torch.optim.Adam, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(exp_avg, exp_avg_sq, step), as torch.optim.Adam makes them at its first step."""
    state = optimiser.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state["exp_avg"], state["exp_avg_sq"], state["step"]


def _sum(gradient: Tensor | None, others: list[Tensor]) -> Tensor:
    for other in others:
        gradient = other if gradient is None else gradient.add_(other)
    assert gradient is not None
    return gradient
