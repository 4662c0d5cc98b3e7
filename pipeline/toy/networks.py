"""Small networks side by side: as many instances as seeds, trained at once."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Networks(nn.Module):
    """n networks of the same widths side by side, ReLU between the layers. weights: (n, d_in, d_out) each."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)

    @classmethod
    def drawn(cls, n: int, widths: tuple[int, ...], generator: torch.Generator) -> "Networks":
        """Uniform in ±1/√d_in, as torch's Linear begins."""
        weights, biases = [], []
        for d_in, d_out in pairwise(widths):
            bound = d_in**-0.5
            weights.append((2 * torch.rand(n, d_in, d_out, generator=generator) - 1) * bound)
            biases.append((2 * torch.rand(n, 1, d_out, generator=generator) - 1) * bound)
        return cls(weights, biases)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, d_in) → (n, batch, d_out)"""
        h = x.expand(len(self.weights[0]), *x.shape)
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(b, h if i == 0 else h.relu(), W)
        return h

    @property
    def n_parameters(self) -> int:
        """Of one of the networks."""
        return sum(p[0].numel() for p in self.parameters())


def fit(networks: Networks, sample: Callable[[], tuple[Tensor, Tensor]], n_steps: int, lr: float) -> Tensor:
    """Minimise the squared error under Adam with a linear decay. Returns each network's last error, (n,)."""
    optimiser = torch.optim.Adam(networks.parameters(), lr=lr, fused=True)
    error = torch.empty(0)
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        x, y = sample()
        error = (networks(x)[..., 0] - y).square().mean(1)
        optimiser.zero_grad()
        error.sum().backward()
        optimiser.step()
    return error.detach()
