"""Small networks side by side: as many instances as seeds, trained at once."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Elementwise = Callable[[Tensor], Tensor]
Optimiser = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]  # of the weights and the rate


class Networks(nn.Module):
    """n networks of the same widths side by side. weights: (n, d_in, d_out) each; biases: (n, 1, d_out) each.

    activation: between the layers. last: after the last one, by default nothing. skip: the last layer reads the network's
    input too, before the hidden units.
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        activation: Elementwise = torch.relu,
        last: Elementwise | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)
        self.activation, self.last, self.skip = activation, last, skip

    @classmethod
    def drawn(cls, n: int, widths: tuple[int, ...], generator: torch.Generator, **how: Any) -> "Networks":
        """Uniform in ±1/√d_in, as torch's Linear begins. widths: of the input, the hidden layers and the output."""
        weights, biases = [], []
        for i, (d_in, d_out) in enumerate(pairwise(widths)):
            if how.get("skip") and i == len(widths) - 2:
                d_in += widths[0]
            bound = d_in**-0.5
            weights.append((2 * torch.rand(n, d_in, d_out, generator=generator) - 1) * bound)
            biases.append((2 * torch.rand(n, 1, d_out, generator=generator) - 1) * bound)
        return cls(weights, biases, **how)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, d_in), or (n, batch, d_in) for inputs of each network's own → (n, batch, d_out)"""
        return self.layers(x)[-1]

    def layers(self, x: Tensor) -> list[Tensor]:
        """What each layer writes, after its activation: (n, batch, d) each."""
        x = h = x.expand(len(self.weights[0]), *x.shape[-2:])
        found = []
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True), start=1):
            is_last = i == len(self.weights)
            h = torch.baddbmm(b, torch.cat([x, h], dim=-1) if self.skip and is_last else h, W)
            if not is_last:
                h = self.activation(h)
            elif self.last:
                h = self.last(h)
            found.append(h)
        return found

    @property
    def n_parameters(self) -> int:
        """Of one of the networks."""
        return sum(p[0].numel() for p in self.parameters())


def adam(parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    """Adam as torch has it by default."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def minimise(
    parameters: Iterable[Tensor],
    losses: Callable[[int], Tensor],
    n_steps: int,
    lr: float,
    optimiser: Optimiser = adam,
    decay: bool = True,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Minimise each network's own loss. Returns the last ones, (n,).

    losses: step → (n,). decay: the rate falls to 0 in a line. noise: standard deviation of what is added to every weight
    before a step; it falls as the rate does.
    """
    parameters = list(parameters)
    method = optimiser(parameters, lr)
    found = torch.empty(0)
    for step in range(n_steps):
        left = 1 - step / n_steps if decay else 1.0
        method.param_groups[0]["lr"] = lr * left
        if noise:
            with torch.no_grad():
                for p in parameters:
                    p.add_(torch.randn(p.shape, generator=generator), alpha=noise * left)
        found = losses(step)
        method.zero_grad()
        found.sum().backward()
        method.step()
    return found.detach()


def fit(
    networks: Networks, sample: Callable[[int], tuple[Tensor, Tensor]], n_steps: int, lr: float, **how: Any
) -> Tensor:
    """minimise() of the squared error. sample: step → inputs (batch, d_in) and targets (batch), or each network's own,
    (n, batch, d_in) and (n, batch)."""

    def losses(step: int) -> Tensor:
        x, y = sample(step)
        return (networks(x)[..., 0] - y).square().mean(1)

    return minimise(networks.parameters(), losses, n_steps, lr, **how)
