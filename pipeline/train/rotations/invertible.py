"""Any invertible map in the place of a rotation, so that what a rotation cannot do can be measured."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pipeline.train.rotations.jacobians import Jacobians
from pipeline.train.rotations.objectives import OBJECTIVES


def solve_invertible(
    J: Jacobians,
    start_in: Float[Tensor, "d_in d_in"],
    start_out: Float[Tensor, "d_out d_out"],
    *,
    objective: str = "log",
    epsilon: float = 0.1,
    sides: tuple[str, ...] = ("in", "out"),
    barrier: float = 1.0,
    n_steps: int = 300,
    lr: float = 0.01,
) -> tuple[Float64[Tensor, "d_in d_in"], Float64[Tensor, "d_out d_out"]]:
    """D_in, D_out: G = D_out J D_inᵀ is sparse. All of J at once, by Adam.

    So that scale cannot cheat, rows of both keep unit length (derivatives along unit directions of the input, projections
    on unit directions of the output), and each input's G is measured in units of its own root mean square. So that
    directions cannot fall together, the loss has - barrier · log|det D| / d for each side: 0 for rotations, infinite for
    singular maps (the term of the likelihood in ICA; Amari, Cichocki, Yang 1996).
    """
    start = {"in": start_in.double(), "out": start_out.double()}
    free = {side: start[side].clone().requires_grad_() for side in sides}
    optimiser = torch.optim.Adam(free.values(), lr=lr, betas=(0.9, 0.99))
    for step in range(n_steps):
        unit = {side: torch.nn.functional.normalize(D) for side, D in free.items()}
        D = {**start, **unit}
        G = J.product(D["out"].to(J.dtype), D["in"].T.to(J.dtype))
        G = G / G.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-30)
        loss = OBJECTIVES[objective].of(G, epsilon).double()
        for side in sides:
            loss = loss - barrier * torch.linalg.slogdet(unit[side])[1] / len(unit[side])
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        optimiser.step()
    found = {**start, **{side: torch.nn.functional.normalize(D.detach()) for side, D in free.items()}}
    return found["in"], found["out"]
