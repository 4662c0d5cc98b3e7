"""Networks side by side do what torch's own do one by one."""

import pytest
import torch
from torch import nn

from pipeline.toy.networks import Networks, fit


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("last", [None, torch.relu])
def test_each_network_is_torchs(skip: bool, last) -> None:
    generator = torch.Generator().manual_seed(0)
    nets = Networks.drawn(3, (2, 5, 4, 1), generator, activation=torch.sin, last=last, skip=skip)
    x = torch.randn(7, 2, generator=generator)
    out = nets(x)
    for i in range(3):
        h = x
        for k, (W, b) in enumerate(zip(nets.weights, nets.biases, strict=True)):
            h = torch.sin(h) if k else h
            h = torch.cat([x, h], 1) if skip and k == 2 else h
            layer = nn.Linear(*W.shape[1:])
            assert float(W[i].detach().abs().max()) <= layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.copy_(W[i].T)
                layer.bias.copy_(b[i, 0])
            h = layer(h)
        h = last(h) if last else h
        assert torch.allclose(out[i], h, atol=1e-6)
    own = torch.randn(3, 7, 2, generator=generator)  # inputs of each network's own
    for i in range(3):
        assert torch.allclose(nets(own)[i], nets(own[i])[i], atol=1e-6)


def test_a_network_learns_as_it_would_alone() -> None:
    def trained(rows: slice) -> torch.Tensor:
        nets = Networks.drawn(3, (1, 4, 1), torch.Generator().manual_seed(0))
        own = Networks(
            [w.detach()[rows].clone() for w in nets.weights], [b.detach()[rows].clone() for b in nets.biases]
        )
        x = torch.linspace(-1, 1, 9)[:, None]
        return fit(own, lambda step: (x, x[:, 0].abs()), 50, 1e-2, optimiser=lambda p, lr: torch.optim.SGD(p, lr=lr))

    assert torch.allclose(trained(slice(None))[1:2], trained(slice(1, 2)), atol=1e-6)


def test_noise_moves_the_weights_and_falls_to_nothing() -> None:
    def trained(noise: float) -> Networks:
        nets = Networks.drawn(2, (1, 2, 1), torch.Generator().manual_seed(0))
        x = torch.ones(1, 1)
        fit(nets, lambda step: (x, nets(x)[0, :, 0].detach()), 2, 1e-12, noise=noise, generator=torch.Generator())
        return nets

    still, moved = trained(0.0), trained(0.1)
    change = torch.cat([(a - b).flatten() for a, b in zip(still.parameters(), moved.parameters(), strict=True)])
    assert 0.03 < float(change.detach().std()) < 0.3
