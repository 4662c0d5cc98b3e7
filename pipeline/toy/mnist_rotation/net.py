"""A fully connected net of three layers that reads digits, its layers' Jacobians, and its form in rotated coordinates.

Source: Baker 2022, who rotated such a net layer by layer, R_0 = I because pixels are a basis of their own. Each layer is
h_l = act(W_l h_{l-1} + b_l), the last without act; its Jacobian R_l J_l R_{l-1}ᵀ is to be sparse on average over inputs:
pipeline/toy/mnist_rotation/experiment.py.
"""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.toy.images import Images
from pipeline.train.rotations.jacobians import Dense, of_module
from pipeline.train.rotations.objectives import OBJECTIVES
from stores.manifest import seed_of

ACTIVATIONS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}


class MnistMlpConfig(Config):
    """data: see load_images. width: of both hidden
    layers. n_fit: with how many inputs rotations are fitted; the most are those of the one that is looked at. n_heldout:
    inputs that no fit and no training has seen, for the measures."""

    data: str = "digits"
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


class Net(nn.Module):
    """widths: (d_0, …, d_L)."""

    def __init__(self, widths: tuple[int, ...], activation: str = "relu", seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed_of("mnist_mlp", seed))
        self.activation = ACTIVATIONS[activation]
        self.W = nn.ParameterList(torch.randn(b, a, generator=generator) * (2 / a) ** 0.5 for a, b in pairwise(widths))
        self.b = nn.ParameterList(torch.zeros(b) for b in widths[1:])

    @property
    def n_layers(self) -> int:
        return len(self.W)

    def layer(self, i: int, h: Tensor) -> Tensor:
        """h (…, d_i) → (…, d_{i+1})."""
        pre = h @ self.W[i].T + self.b[i]
        return pre if i == self.n_layers - 1 else self.activation(pre)

    def hidden(self, x: Tensor) -> list[Tensor]:
        """[x, h_1, …, h_L]."""
        h = [x]
        for i in range(self.n_layers):
            h.append(self.layer(i, h[-1]))
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x)[-1]


def train_net(config: MnistMlpConfig, images: Images) -> Net:
    """Cross-entropy, Adam, rate falling to 0."""
    net = Net((images.train_x.shape[1], config.width, config.width, 10), config.activation, config.seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=config.lr)
    generator = torch.Generator().manual_seed(seed_of("mnist_mlp batches", config.seed))
    for step in range(config.n_steps):
        rows = torch.randint(len(images.train_x), (config.batch_size,), generator=generator)
        loss = torch.nn.functional.cross_entropy(net(images.train_x[rows]), images.train_y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / config.n_steps)
        optimiser.step()
    return net.requires_grad_(False)


@torch.no_grad()
def rotated_forward(net: Net, R: list[Tensor], x: Tensor) -> Tensor:
    """net(x), computed with every layer in the coordinates of its rotations: R_l act(W_l R_{l-1}ᵀ h + b)."""
    h = x @ R[0].T.to(x)
    for i in range(net.n_layers):
        h = net.layer(i, h @ R[i].to(x)) @ R[i + 1].T.to(x)
    return h @ R[-1].to(x)


def layer_jacobians(net: Net, x: Tensor) -> list[Dense]:
    """(n, d_{i+1}, d_i) for each layer i at the inputs x (n, pixels): n d_{i+1} d_i numbers are held."""
    h = net.hidden(x)
    return [of_module(lambda row, i=i: net.layer(i, row), h[i]) for i in range(net.n_layers)]


@torch.no_grad()
def accuracy(net: Net, x: Tensor, y: Tensor) -> float:
    """Share of the inputs whose largest logit is the label's."""
    return float((net(x).argmax(-1) == y).double().mean())
