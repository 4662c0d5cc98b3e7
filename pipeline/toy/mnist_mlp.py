"""A fully connected net of three layers that reads digits, its layers' Jacobians, and its form in rotated coordinates.

Source: Baker 2022, who rotated such a net layer by layer, R_0 = I because pixels are a basis of their own. Each layer is
h_l = act(W_l h_{l-1} + b_l), the last without act; its Jacobian R_l J_l R_{l-1}ᵀ is to be sparse on average over inputs:
pipeline/toy/mnist_rotation.py.
"""

import gzip
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config, UserError
from pipeline.train.rotations.jacobians import Dense, of_module
from pipeline.train.rotations.objectives import OBJECTIVES
from stores.manifest import seed_of

ACTIVATIONS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}


class MnistMlpConfig(Config):
    """data: "digits" (scikit-learn's, 8 × 8), "hub" (ylecun/mnist), or a folder with MNIST's idx files. width: of both hidden
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


@dataclass(frozen=True)
class Images:
    """x (n, pixels) float32 in [0, 1], y (n) int64; test: of which training has seen none."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_images(data: str, seed: int = 0) -> Images:
    """See MnistMlpConfig.data. Raises UserError: not there, or not idx files."""
    if data == "digits":
        from sklearn.datasets import load_digits  # imported late: it takes a second

        found: Any = load_digits()
        order = np.random.default_rng(seed_of("digits", seed)).permutation(len(found.data))
        x, y = found.data[order] / 16, found.target[order]
        return _images(x[:-500], y[:-500], x[-500:], y[-500:])
    if data == "hub":
        from datasets import load_dataset

        try:
            loaded: Any = load_dataset("ylecun/mnist")
        except OSError as error:  # what the library raises where there is no net, and no copy
            raise UserError(
                "data = 'hub': ylecun/mnist cannot be had from the hub; take 'digits' or a folder"
            ) from error
        parts = [loaded[s].with_format("numpy") for s in ("train", "test")]
        arrays = [a for p in parts for a in (np.stack(list(p["image"])) / 255, np.asarray(p["label"]))]
        return _images(*arrays)
    folder = Path(data)
    names = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    arrays = [read_idx(_find(folder, name)) for name in names]
    return _images(arrays[0] / 255, arrays[1], arrays[2] / 255, arrays[3])


def _images(train_x: Any, train_y: Any, test_x: Any, test_y: Any) -> Images:
    x = [torch.from_numpy(a.reshape(len(a), -1)).float() for a in (train_x, test_x)]
    y = [torch.from_numpy(a.astype(np.int64)) for a in (train_y, test_y)]
    return Images(x[0], y[0], x[1], y[1])


def _find(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"{name}*"))
    if not found:
        raise UserError(f"{folder} has no file {name}…: expected the four idx files of MNIST, or data = 'digits'")
    return found[0]


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the idx format (LeCun, Cortes, Burges: two zeros, type 8, number of axes, sizes big-endian).

    Raises UserError: another type, or not as long as it says.
    """
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an idx file of bytes: it begins with {raw[:4].hex()}, expected 000008")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if len(data) != sizes.prod(dtype=np.int64):
        raise UserError(f"{path} has {len(data)} bytes of data, its header says {sizes.tolist()}")
    return data.reshape(sizes)


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
