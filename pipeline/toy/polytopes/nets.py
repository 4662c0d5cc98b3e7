"""ReLU networks that read digits, many side by side: their spline codes, and the affine map of each code.

    spline code s_l = 1[W_l a + b_l > 0];   on the polytope of a code the network is x → A x + c,
    A = W_L diag(s_{L-1}) W_{L-1} … diag(s_1) W_1

Source: Black et al. 2022, "Interpreting Neural Networks through the Polytope Lens".
"""

from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.toy.images import Images, load_images
from pipeline.toy.networks import Networks, minimise
from stores.manifest import seed_of

N_UNSEEN = 500  # test digits that are looked at
N_PLACES = 20  # that a path's boundaries are counted at
FACTORS = (0.1, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 10.0)  # that activations are scaled by: with each its reciprocal

Width = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0)]


class NetSettings(Config):
    """images: see load_images. widths: of the hidden layers. n_nets: seeds. n_paths: between two digits, of each net and
    kind. path_steps: that a path is cut into. n_segments: short ones at each distance. norms: of perturbations. factors:
    that activations are scaled by."""

    images: str = "digits"
    widths: tuple[Width, ...] = Field(default=(64, 64, 64), min_length=2)
    n_nets: int = Field(default=100, ge=1)
    train_steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=2e-2, gt=0)
    n_paths: int = Field(default=40, ge=1)
    path_steps: int = Field(default=200, ge=N_PLACES, multiple_of=N_PLACES)
    n_segments: int = Field(default=256, ge=2)
    slice_side: int = Field(default=200, ge=2)
    norms: tuple[Factor, ...] = Field(default=(0.25, 0.5, 1.0, 2.0), min_length=1)
    n_attacked: int = Field(default=50, ge=1)
    attack_steps: int = Field(default=10, ge=1)
    factors: tuple[Factor, ...] = Field(default=FACTORS, min_length=1)


class ReluNets(Networks):
    """n networks side by side. x is (batch, d_in), or (n, batch, d_in) where each has its own."""

    @property
    def widths(self) -> list[int]:
        """Of the hidden layers."""
        return [W.shape[2] for W in self.weights[:-1]]

    def pre_activations(self, x: Tensor, factor: float = 1.0) -> list[Tensor]:
        """(n, batch, d_l) of each layer; the last is the output. factor: what the first hidden layer is scaled by."""
        h = x if x.ndim == 3 else x.expand(len(self.weights[0]), *x.shape)
        pre = []
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            pre.append(torch.baddbmm(b, h, W))
            h = pre[-1].relu() * factor if i == 0 else pre[-1].relu()
        return pre

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, d_out)"""
        return self.pre_activations(x)[-1]

    def code(self, x: Tensor) -> Tensor:
        """(n, batch, Σ hidden widths), bool"""
        return code_of(self.pre_activations(x))

    def affine(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """code (n, batch, Σ hidden widths), of 0 and 1 or soft → A (n, batch, d_out, d_in) and c (n, batch, d_out)."""
        n, batch, _ = code.shape
        gates = code.to(self.weights[0].dtype).split(self.widths, dim=2)
        d_out = self.weights[-1].shape[2]
        A = self.weights[-1].mT[:, None].expand(n, batch, d_out, -1)
        c = self.biases[-1].expand(n, batch, -1)
        for W, b, s in reversed(
            list(zip(self.weights, self.biases, gates))
        ):  # from the output: its side is the narrow one
            A = A * s[:, :, None]
            c = c + torch.einsum("nbok,nk->nbo", A, b[:, 0])
            A = torch.bmm(A.flatten(1, 2), W.mT).unflatten(1, (batch, d_out))
        return A, c


def code_of(pre: list[Tensor]) -> Tensor:
    """(n, batch, Σ hidden widths) of the pre-activations of all layers."""
    return torch.cat([z > 0 for z in pre[:-1]], dim=2)


def drawn(settings: NetSettings, name: str = "digits nets", bias: bool = True) -> ReluNets:
    """The networks before training: weights and biases uniform in ±1/√d_in. bias: else biases are 0."""
    d_in = images_of(settings).train_x.shape[1]
    nets = ReluNets.drawn(
        settings.n_nets, (d_in, *settings.widths, 10), torch.Generator().manual_seed(seed_of("polytopes", name))
    )
    assert isinstance(nets, ReluNets)
    for b in nets.biases:
        b.requires_grad_(bias)
        if not bias:
            b.data.zero_()
    return nets


def trained(settings: NetSettings, bias: bool = True) -> ReluNets:
    """The same networks after training on digits, each on batches of its own."""
    nets = drawn(settings, bias=bias)
    classify(nets, images_of(settings), settings.train_steps, settings.batch_size, settings.lr)
    return nets.requires_grad_(False)


@torch.enable_grad()
def classify(nets: nn.Module, images: Images, n_steps: int, batch_size: int, lr: float, n: int | None = None) -> None:
    """Cross-entropy under Adam with a linear decay. nets: (n, batch, d_in) → (n, batch, classes). n: how many they are."""
    n = n or len(next(nets.parameters()))
    generator = torch.Generator().manual_seed(seed_of("digits batches"))

    def losses(_: int) -> Tensor:
        rows = torch.randint(len(images.train_x), (n, batch_size), generator=generator)
        out, labels = nets(images.train_x[rows]).flatten(0, 1), images.train_y[rows].flatten()
        return nn.functional.cross_entropy(out, labels, reduction="none").view(n, -1).mean(1)

    minimise([p for p in nets.parameters() if p.requires_grad], losses, n_steps, lr)


@cache
def _loaded(images: str) -> Images:
    return load_images(images)


def images_of(settings: NetSettings) -> Images:
    return _loaded(settings.images)


def unseen(settings: NetSettings) -> tuple[Tensor, Tensor]:
    """(n, d) and labels (n), of digits that no net was trained on."""
    images = images_of(settings)
    return images.test_x[:N_UNSEEN], images.test_y[:N_UNSEEN]


@torch.no_grad()
def accuracies(nets: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """Of each net."""
    return (nets(x).argmax(-1) == y).double().mean(1).tolist()


def pairs(settings: NetSettings, same: bool) -> tuple[Tensor, Tensor]:
    """Two digits of one class, or of two: (n_nets, n_paths, d) each, drawn for each net."""
    x, y = unseen(settings)
    generator = torch.Generator().manual_seed(seed_of("pairs", same))
    shape = (settings.n_nets, settings.n_paths)
    first = torch.randint(len(x), shape, generator=generator)
    allowed = (y[first][..., None] == y) == same
    allowed.scatter_(2, first[..., None], False)
    second = torch.multinomial(allowed.flatten(0, 1).float(), 1, generator=generator).view(shape)
    return x[first], x[second]
