"""What the digits net's rotations are measured with."""

from typing import Annotated, Any

import torch
from pydantic import Field

from pipeline.config import Config
from pipeline.train.rotations.objectives import OBJECTIVES

ACTIVATIONS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}


class Settings(Config):
    """data: see load_images. The net that is looked at: width of both hidden layers, and how it is trained. model: a file
    with a net to look at in its place (saved.py), whose hidden layers have the activation given. n_fit: with how
    many inputs its rotations are fitted; the most are those of the one that is looked at. n_heldout: inputs that no fit and
    no training has seen. n_iterations, n_polish: steps of the solver.

    small_*: of the nets over which claims are decided. n_nets: how many. *_nets: how many where one costs more.
    """

    data: str = "digits"
    model: str = ""
    width: int = Field(default=64, ge=2)
    activation: str = Field(default="relu", pattern=f"^({'|'.join(ACTIVATIONS)})$")
    n_steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    n_fit: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 8, 64, 256), min_length=1)
    n_heldout: int = Field(default=256, ge=1)
    objective: str = Field(default="log", pattern=f"^({'|'.join(OBJECTIVES)})$")
    n_iterations: int = Field(default=25, ge=1)
    n_polish: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)

    small_width: int = Field(default=32, ge=4)
    small_steps: int = Field(default=500, ge=10)
    small_fit: int = Field(default=64, ge=1)
    small_iterations: int = Field(default=15, ge=1)
    small_polish: int = Field(default=40, ge=0)
    n_nets: int = Field(default=32, ge=2)
    descent_nets: int = Field(default=8, ge=2)
    descent_steps: int = Field(default=600, ge=10)
    bound_nets: int = Field(default=8, ge=2)
    bound_steps: int = Field(default=100, ge=0)
    few_nets: int = Field(default=8, ge=2)
    regime_nets: int = Field(default=8, ge=2)


QUICK: dict[str, Any] = {
    "width": 24, "n_steps": 300, "n_fit": (1, 64), "n_heldout": 64, "n_iterations": 10, "n_polish": 20,
    "small_width": 12, "small_steps": 60, "small_fit": 24, "small_iterations": 4, "small_polish": 6, "n_nets": 3,
    "descent_nets": 2, "descent_steps": 100, "bound_nets": 2, "bound_steps": 2, "few_nets": 2, "regime_nets": 2,
}  # fmt: skip
