"""The polytope lens: a ReLU network is affine on each polytope of its input space, and the polytopes carry meaning.

    spline code s_l = 1[W_l a + b_l > 0];   on the polytope of a code the network is x → A x + c,
    A = W_L diag(s_{L-1}) W_{L-1} … diag(s_1) W_1

Source: Black et al. 2022, "Interpreting Neural Networks through the Polytope Lens".
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.toy.images import load_images
from pipeline.toy.polytopes.language import LanguageSettings, language
from pipeline.train.rotations.jacobians import gelu_slope
from stores.activations import ActivationStore
from stores.manifest import seed_of
from stores.writer import StoreWriter


class Settings(LanguageSettings):
    """images: see load_images. widths: of the hidden layers of the net that reads them."""

    images: str = "digits"
    widths: tuple[int, ...] = (64, 64, 64)
    train_steps: int = Field(default=600, ge=1)
    n_paths: int = Field(default=300, ge=1)
    path_points: int = Field(default=400, ge=2)
    slice_side: int = Field(default=200, ge=2)


QUICK: dict[str, Any] = {
    "train_steps": 150, "n_paths": 30, "path_points": 100, "slice_side": 60, "n_sequences": 60, "validity_sequences": 1,
    "factors": (0.5, 1.0, 2.0),
}  # fmt: skip


_N_UNSEEN = 500


@dataclass(frozen=True)
class ReLUNet:
    """weights[l]: (d_l+1, d_l); biases[l]: (d_l+1). ReLU between the layers."""

    weights: list[Tensor]
    biases: list[Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)"""
        return self.run(x)[0]

    def run(self, x: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Output and spline code (n, Σ hidden widths). factor: what the first hidden layer's activations are scaled by."""
        codes = []
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ W.T + b
            if i < len(self.weights) - 1:
                codes.append(x > 0)
                x = x.relu() * (factor if i == 0 else 1.0)
        return x, torch.cat(codes, dim=1)

    def affine(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """code (Σ hidden widths) → A (d_out, d_in) and c (d_out): what the network is on that polytope, exactly."""
        A, c = self.weights[0], self.biases[0]
        for s, W, b in zip(
            code.to(A.dtype).split([len(W) for W in self.weights[:-1]]), self.weights[1:], self.biases[1:], strict=True
        ):
            A, c = W @ (s[:, None] * A), W @ (s * c) + b
        return A, c


def soft_code(h: Tensor) -> Tensor:
    """GPT-2's GELU as a gate: gelu(h) = h q, q = ½ (1 + tanh u), u = √(2/π) (h + 0.044715 h³). Not its slope."""
    return 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))


def trained_net(settings: Settings, bias: bool = True) -> tuple[ReLUNet, float]:
    """A net that reads digits, and its accuracy on those it has not seen."""
    images = load_images(settings.images)
    x, y = images.train_x, images.train_y
    generator = torch.Generator().manual_seed(seed_of("digits net"))
    widths = (x.shape[1], *settings.widths, 10)
    weights = [(torch.randn(b, a, generator=generator) * (2 / a) ** 0.5).requires_grad_() for a, b in pairwise(widths)]
    biases = [torch.zeros(b, requires_grad=bias) for b in widths[1:]]
    net = ReLUNet(weights, biases)
    optimiser = torch.optim.Adam([p for p in (*weights, *biases) if p.requires_grad], lr=1e-3, fused=True)
    for _ in range(settings.train_steps):
        batch = torch.randint(0, len(x), (256,), generator=generator)
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net = ReLUNet([W.detach() for W in weights], [b.detach() for b in biases])
    return net, float((net(images.test_x).argmax(1) == images.test_y).double().mean())


def _unseen(settings: Settings) -> tuple[Tensor, Tensor]:
    """(n, d) and labels, of digits that the net was not trained on."""
    images = load_images(settings.images)
    return images.test_x[:_N_UNSEEN], images.test_y[:_N_UNSEEN]


def flips(net: ReLUNet, start: Tensor, stop: Tensor, n_points: int) -> Tensor:
    """Boundaries crossed on the straight paths from start to stop (n, d): (n, n_points - 1) code flips by step."""
    t = torch.linspace(0, 1, n_points)[:, None, None]
    x = start + t * (stop - start)
    code = net.run(x.flatten(0, 1))[1].view(n_points, len(start), -1)
    return (code[1:] != code[:-1]).sum(-1).T


def codes(settings: Settings) -> dict[str, Any]:
    """The affine maps of test digits' polytopes, and a plane cut through three digits."""
    net, accuracy = trained_net(settings)
    x, y = _unseen(settings)
    out, code = net.run(x)
    off = 0.0
    for row, value, s in zip(x, out, code, strict=True):
        A, c = net.affine(s)
        off = max(off, float((A @ row + c - value).abs().max()))
    a, b, c = (x[y == digit][0] for digit in (0, 1, 7))
    side = settings.slice_side
    u, v = torch.meshgrid(torch.linspace(-0.3, 1.3, side), torch.linspace(-0.3, 1.3, side), indexing="xy")
    plane = a + u.flatten()[:, None] * (b - a) + v.flatten()[:, None] * (c - a)
    answer, sliced = net.run(plane)
    _, polytope = torch.unique(sliced, dim=0, return_inverse=True)
    return {
        "accuracy": accuracy,
        "greatest_error": off,
        "n_units": code.shape[1],
        "n_codes": len(torch.unique(code, dim=0)),
        "n_rows": len(code),
        "side": side,
        "polytopes": polytope.tolist(),
        "n_polytopes": int(polytope.max()) + 1,
        "answers": answer.argmax(1).tolist(),
    }


def density(settings: Settings) -> dict[str, Any]:
    """Boundaries crossed a unit of length: between digits of one class, of two classes, and outwards from the mean."""
    net, _ = trained_net(settings)
    x, y = _unseen(settings)
    rng = np.random.default_rng(seed_of("paths"))
    found: dict[str, Any] = {}
    for name in ("within a class", "between classes"):
        pairs = []
        while len(pairs) < settings.n_paths:
            i, j = rng.choice(len(x), 2, replace=False)
            if bool(y[i] == y[j]) == (name == "within a class"):
                pairs.append((i, j))
        a, b = (x[[p[side] for p in pairs]] for side in (0, 1))
        crossed, length = flips(net, a, b, settings.path_points), (b - a).norm(dim=1)
        rate = crossed.sum(1) / length
        profile = crossed.double().view(len(pairs), -1)[:, : 20 * ((settings.path_points - 1) // 20)]
        profile = profile.view(len(pairs), 20, -1).sum(-1) * 20 / length[:, None]
        found[name] = {
            "density": float(rate.mean()),
            "standard_error": float(rate.std() / len(pairs) ** 0.5),
            "along": profile.mean(0).tolist(),
        }
    direction = nn.functional.normalize(x[: settings.n_paths] - x.mean(0), dim=1)
    radius = 4 * float((x - x.mean(0)).norm(dim=1).mean())
    crossed = flips(net, x.mean(0).expand_as(direction), x.mean(0) + radius * direction, settings.path_points)
    bins = np.array_split(crossed.double().mean(0).numpy(), 24)
    step = radius / (settings.path_points - 1)
    return {
        "paths": found,
        "radius": [radius * (i + 0.5) / 24 for i in range(24)],
        "radial": [float(b.mean() / step) for b in bins],
        "data_radius": radius / 4,
    }


def scaling(settings: Settings) -> dict[str, Any]:
    """The first hidden layer of the digits net scaled: how many later codes flip, and what becomes of the output."""
    rows = {}
    for name, bias in (("with biases", True), ("without biases", False)):
        net, accuracy = trained_net(settings, bias)
        x, y = _unseen(settings)
        clean, code = net.run(x)
        log_p = clean.log_softmax(1)
        curve = []
        for factor in settings.factors:
            out, changed = net.run(x, factor)
            log_q = out.log_softmax(1)
            kl = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
            right = float((out.argmax(1) == y).double().mean())
            curve.append([factor, float((changed != code).double().mean()), kl, right])
        rows[name] = {"accuracy": accuracy, "curve": curve}
    return rows


def gelu(settings: Settings) -> dict[str, Any]:
    """q and the slope of GPT-2's GELU, against torch's."""
    h = torch.linspace(-5, 5, 401, dtype=torch.double, requires_grad=True)
    value = nn.functional.gelu(h, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), h)
    with torch.no_grad():
        q, own = soft_code(h), gelu_slope(h)
        return {
            "h": h.tolist(),
            "q": q.tolist(),
            "slope": own.tolist(),
            "value_error": float((h * q - value).abs().max()),
            "slope_error": float((own - slope).abs().max()),
            "slope_range": [float(own.min()), float(own.max())],
        }


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such images; no such store, or one without the hook point; no such model, or a model without
    it."""
    found = load_images(settings.images)
    if missing := set(range(10)) - set(found.test_y[:_N_UNSEEN].tolist()):
        raise UserError(f"polytopes.images: among the first {_N_UNSEEN} test images none shows {min(missing)}")
    images = {"images": found.digest}
    if settings.store is None:
        files = ModelFiles.find(settings.model)
        files.d(settings.hook_point)
        return {**images, "model_digest": files.digest}
    if not StoreWriter.exists(settings.store):
        raise UserError(f"polytopes.store: no activation store at {settings.store}")
    store = ActivationStore.open(settings.store)
    if settings.hook_point not in store.hook_points:
        raise UserError(
            f"polytopes.hook_point: {settings.hook_point!r} is not in the store {settings.store}, which has "
            f"{', '.join(store.hook_points)}: set polytopes.hook_point to one of them"
        )
    return {**images, "store_digest": store.digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "language": lambda: language(settings, folder),
        **{part.__name__: partial(part, settings) for part in (codes, density, scaling, gelu)},
    }
