"""A fully connected net of three layers that reads digits, its layers' Jacobians, and its form in rotated coordinates.

Source: Baker 2022, who rotated such a net layer by layer, R_0 = I because pixels are a basis of their own. Each layer is
h_l = act(W_l h_{l-1} + b_l), the last without act; its Jacobian R_l J_l R_{l-1}ᵀ is to be sparse on average over inputs:
pipeline/toy/mnist_rotation/experiment.py.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.toy.images import Images
from pipeline.toy.mnist_rotation.settings import ACTIVATIONS, Settings
from pipeline.train.rotations.jacobians import Dense, of_module
from stores.manifest import seed_of


class Net(nn.Module):
    """widths: (d_0, …, d_L)."""

    def __init__(self, widths: tuple[int, ...], activation: str = "relu", seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed_of("mnist_mlp", seed))
        self.activation = ACTIVATIONS[activation]
        self.W = nn.ParameterList(torch.randn(b, a, generator=generator) * (2 / a) ** 0.5 for a, b in pairwise(widths))
        self.b = nn.ParameterList(torch.zeros(b) for b in widths[1:])

    @classmethod
    def of(cls, W: list[Tensor], b: list[Tensor], activation: str = "relu") -> "Net":
        """A net of these weights, (d_out, d_in) each, and biases, (d_out,), which are copied."""
        net = cls((W[0].shape[1], *(len(w) for w in W)), activation)
        with torch.no_grad():
            for own, given in zip((*net.W, *net.b), (*W, *b), strict=True):
                own.copy_(given)
        return net.requires_grad_(False)

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


def train_net(config: Settings, images: Images) -> Net:
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
