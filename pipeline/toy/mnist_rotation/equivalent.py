"""What a change of coordinates can and cannot change: attacks, and training that goes on."""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.images import Images, load_images
from pipeline.toy.mnist_rotation.net import Net, accuracy, layer_jacobians, rotated_forward
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import eye, solver, subjects
from pipeline.toy.mnist_rotation.training import small, train_nets
from pipeline.train.rotations.solvers import chain

STRENGTHS = (0.05, 0.1, 0.2)  # of a pixel, whose values lie in 0 … 1
RATES = {"sgd": 0.05, "adam": 1e-3}


def signs(net: Net, R: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The direction in which each pixel raises the loss of the net in rotated coordinates: -1, 0 or 1.

    Source: Goodfellow, Shlens, Szegedy 2015, the fast gradient sign method.
    """
    x = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(rotated_forward(net, R, x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0].sign()


def attacked(settings: Settings) -> dict[str, Any]:
    """Accuracy on test images, plain and moved by each of STRENGTHS along signs() of the net itself, of the net in neurons
    and in the rotated coordinates of the chain from the pixels; lists over nets. In float64."""
    images, nets = subjects(settings, settings.n_nets)
    x, y = images.test_x.double(), images.test_y
    found: dict[str, list[float]] = {}
    for s in nets:
        net = s.net.double()
        R = chain(s.fit, solver(settings), n_polish=settings.small_polish)
        for name, bases in (("neurons", [eye(len(r)) for r in R]), ("rotated", R)):
            direction = signs(net, bases, x, y)
            for strength in (0.0, *STRENGTHS):
                logits = rotated_forward(net, bases, (x + strength * direction).clamp(0, 1))
                found.setdefault(f"{name}_{strength:g}", []).append(float((logits.argmax(1) == y).double().mean()))
    return found


def finetuned(settings: Settings) -> dict[str, Any]:
    """Half-trained nets, trained on in neurons and in rotated coordinates: test accuracy and training loss at the end, by
    optimiser; lists over nets. In float64; the same batches."""
    images = load_images(settings.data, settings.seed)
    regime = small(settings)
    n_steps = regime.n_steps // 4
    half = train_nets(settings, type(regime)(regime.width, n_steps=n_steps), images, settings.descent_nets)
    found: dict[str, list[float]] = {}
    for net in half:
        fit = layer_jacobians(net, images.train_x[: settings.small_fit])
        R = chain(fit, solver(settings), n_polish=settings.small_polish)
        net.double()
        for name, bases in (("neurons", [eye(len(r)) for r in R]), ("rotated", R)):
            for kind, lr in RATES.items():
                score, loss = _train_on(settings, net, bases, images, kind, lr, n_steps)
                found.setdefault(f"{name}_{kind}_accuracy", []).append(score)
                found.setdefault(f"{name}_{kind}_loss", []).append(loss)
    return {"rates": dict(RATES), "n_steps": n_steps, **found}


def _train_on(
    settings: Settings, net: Net, R: list[Tensor], images: Images, kind: str, lr: float, n_steps: int
) -> tuple[float, float]:
    """Test accuracy, and the training loss. Free are V_l = W_l R_{l-1}ᵀ, by which a layer reads rotated activations, and
    the biases; R_l after the activation function stays."""
    V = [(W.detach() @ R[i].T).requires_grad_() for i, W in enumerate(net.W)]
    b = [v.detach().clone().requires_grad_() for v in net.b]
    optimiser = torch.optim.SGD([*V, *b], lr) if kind == "sgd" else torch.optim.Adam([*V, *b], lr)
    generator = torch.Generator().manual_seed(settings.seed)
    x, y = images.train_x.double(), images.train_y
    for _ in range(n_steps):
        rows = torch.randint(len(x), (settings.batch_size,), generator=generator)
        h = x[rows] @ R[0].T
        for i in range(len(V)):
            pre = h @ V[i].T + b[i]
            h = (pre if i == len(V) - 1 else net.activation(pre)) @ R[i + 1].T
        loss = torch.nn.functional.cross_entropy(h @ R[-1], y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    end = Net.of([v.detach() @ r for v, r in zip(V, R)], [v.detach() for v in b])
    end.activation = net.activation
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(end(images.train_x), y)
    return accuracy(end, images.test_x, images.test_y), float(loss)
