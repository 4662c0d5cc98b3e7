from dataclasses import replace

import pytest
import torch

from pipeline.toy.images import load_images
from pipeline.toy.mnist_rotation.net import Net
from pipeline.toy.mnist_rotation.settings import ACTIVATIONS, Settings
from pipeline.toy.mnist_rotation.training import Regime, drawn, regimes, train_nets, training_loss
from stores.manifest import seed_of

SETTINGS = Settings(batch_size=32)


def alone(regime: Regime, k: int, n: int) -> Net:
    """The k-th of n nets, trained by itself with torch's layers."""
    images = load_images("digits")
    W, b = drawn(regime, images, n, SETTINGS.seed)
    layers: list[torch.nn.Module] = []
    for w, v in zip(W, b):
        linear = torch.nn.Linear(w.shape[1], w.shape[2])
        with torch.no_grad():
            linear.weight.copy_(w[k].T)
            linear.bias.copy_(v[k, 0])
        layers += [linear, {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "gelu": torch.nn.GELU}[regime.activation]()]
    model = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=SETTINGS.lr, weight_decay=regime.weight_decay)
    generator = torch.Generator().manual_seed(seed_of("mnist nets batches", SETTINGS.seed))
    for step in range(regime.n_steps):
        optimiser.param_groups[0]["lr"] = SETTINGS.lr * (1 - step / regime.n_steps)
        rows = torch.randint(len(images.train_x), (SETTINGS.batch_size,), generator=generator)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images.train_x[rows]), images.train_y[rows]).backward()
        optimiser.step()
    return Net.of([m.weight for m in model[::2]], [m.bias for m in model[::2]], regime.activation)  # pyright: ignore


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_net_beside_others_learns_as_if_it_were_alone(activation: str) -> None:
    regime = Regime(6, 3, activation, n_steps=20, weight_decay=1.0)
    images = load_images("digits")
    third = train_nets(SETTINGS, regime, images, 3)[2]
    torch.testing.assert_close(third(images.test_x), alone(regime, 2, 3)(images.test_x), atol=1e-4, rtol=1e-4)


def test_dropout_leaves_out_its_share_and_nothing_when_it_is_0() -> None:
    images, regime = load_images("digits"), Regime(24, n_steps=150)
    plain, again, dropped = (
        training_loss(train_nets(SETTINGS, r, images, 1)[0], images)
        for r in (regime, regime, replace(regime, dropout=0.7))
    )
    assert plain == again < 0.7 * dropped


def test_each_kind_differs_from_the_plain_one_in_one_thing() -> None:
    kinds = regimes(Settings())
    plain = vars(kinds.pop("plain"))
    assert all(sum(value != plain[key] for key, value in vars(kind).items()) == 1 for kind in kinds.values())


def test_nets_that_are_not_trained_are_as_drawn() -> None:
    images, regime = load_images("digits"), Regime(5, n_steps=0)
    net = train_nets(SETTINGS, regime, images, 2)[1]
    W, _ = drawn(regime, images, 2, SETTINGS.seed)
    assert all(torch.equal(w, drawn_w[1].T) for w, drawn_w in zip(net.W, W))
