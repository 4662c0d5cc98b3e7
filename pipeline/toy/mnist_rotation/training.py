"""Digits nets of one kind, side by side: as many as there are seeds, trained at once in one batched model."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.toy.images import Images
from pipeline.toy.mnist_rotation.net import Net
from pipeline.toy.mnist_rotation.settings import ACTIVATIONS, Settings
from stores.manifest import seed_of


@dataclass(frozen=True)
class Regime:
    """How a net is made. n_steps: of Adam at Settings.lr, which falls to 0; 0 leaves the net as it was drawn.
    weight_decay: decoupled, AdamW's (Loshchilov and Hutter 2019). dropout: the share of hidden activations set to 0 in
    training."""

    width: int = 32
    n_hidden: int = 2
    activation: str = "relu"
    n_steps: int = 500
    weight_decay: float = 0.0
    dropout: float = 0.0


def small(settings: Settings) -> Regime:
    """Of the nets over which claims are decided."""
    return Regime(settings.small_width, n_steps=settings.small_steps)


def regimes(settings: Settings) -> dict[str, Regime]:
    """The kinds of nets that are compared: the small one, and what differs from it in one thing."""
    base = small(settings)
    return {
        "plain": base,
        "untrained": replace(base, n_steps=0),
        "short": replace(base, n_steps=base.n_steps // 10),
        "long": replace(base, n_steps=6 * base.n_steps),
        "decay_0.5": replace(base, weight_decay=0.5),
        "decay_2": replace(base, weight_decay=2.0),
        "dropout_0.2": replace(base, dropout=0.2),
        "dropout_0.5": replace(base, dropout=0.5),
        "half_width": replace(base, width=base.width // 2),
        "double_width": replace(base, width=2 * base.width),
        "gelu": replace(base, activation="gelu"),
        "tanh": replace(base, activation="tanh"),
        "3_hidden": replace(base, n_hidden=3),
        "4_hidden": replace(base, n_hidden=4),
    }


def drawn(regime: Regime, images: Images, n: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (n, d_in, d_out) as He et al. 2015 draw them, and biases (n, 1, d_out) of 0, layer by layer."""
    generator = torch.Generator().manual_seed(seed_of("mnist nets", seed))
    widths = (images.train_x.shape[1], *[regime.width] * regime.n_hidden, 10)
    W = [torch.randn(n, a, b, generator=generator) * (2 / a) ** 0.5 for a, b in pairwise(widths)]
    return W, [torch.zeros(n, 1, b) for b in widths[1:]]


def train_nets(settings: Settings, regime: Regime, images: Images, n: int) -> list[Net]:
    """n nets that differ in what they began with and in what dropout left out; their batches are the same."""
    W, b = drawn(regime, images, n, settings.seed)
    parameters = [p.requires_grad_() for p in (*W, *b)]
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=regime.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed_of("mnist nets batches", settings.seed))
    act = ACTIVATIONS[regime.activation]
    for step in range(regime.n_steps):
        optimiser.param_groups[0]["lr"] = settings.lr * (1 - step / regime.n_steps)
        rows = torch.randint(len(images.train_x), (settings.batch_size,), generator=generator)
        h, y = images.train_x[rows].expand(n, -1, -1), images.train_y[rows]
        for i in range(len(W)):
            h = torch.baddbmm(b[i], h, W[i])
            if i < len(W) - 1:
                h = act(h)
                if regime.dropout:
                    kept = torch.rand(h.shape, generator=generator) >= regime.dropout
                    h = h * kept / (1 - regime.dropout)
        loss = torch.nn.functional.cross_entropy(h.flatten(0, 1), y.repeat(n))
        optimiser.zero_grad()
        (n * loss).backward()  # the sum over nets: each learns as if it were alone
        optimiser.step()
    return [Net.of([w[k].mT for w in W], [v[k, 0] for v in b], regime.activation) for k in range(n)]


@torch.no_grad()
def training_loss(net: Net, images: Images) -> float:
    """Mean cross-entropy over all training inputs, in nats."""
    return float(torch.nn.functional.cross_entropy(net(images.train_x), images.train_y))
