"""Clusters of channel vectors: what a small convolutional network holds at one place of its picture.

Source: Black et al. 2022, discussion: of InceptionV1 "the vectors corresponding to all the channel dimensions for a single
fixed spatial dimension" were clustered, one vector of each picture.
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.toy.polytopes.clusters import ClusterSettings, clustered, excess
from pipeline.toy.polytopes.nets import NetSettings, accuracies, classify, images_of, unseen
from stores.manifest import seed_of


class ChannelSettings(NetSettings, ClusterSettings):
    """n_channels: of both convolutional layers. n_conv_nets: seeds. n_pictures: whose vectors are
    clustered, at most. place: row and column of the picture that is looked
    at."""

    n_channels: tuple[int, int] = (16, 32)
    n_conv_nets: int = Field(default=8, ge=1)
    conv_steps: int = Field(default=200, ge=1)
    n_pictures: int = Field(default=2000, ge=2)
    place: tuple[int, int] = (3, 3)


def side_of(n_pixels: int) -> int:
    """Of a square picture. Raises UserError: it is none."""
    side = round(n_pixels**0.5)
    if side**2 != n_pixels:
        raise UserError(f"polytopes.images: pictures have {n_pixels} pixels, expected a square of them")
    return side


class ConvNets(nn.Module):
    """n networks side by side: two 3 × 3 convolutions with ReLU, the mean over places, a linear map to ten classes."""

    def __init__(self, n: int, n_channels: tuple[int, int], side: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n, self.side = n, side
        first, second = n_channels

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) * (3 / fan_in) ** 0.5)

        self.first = uniform(n * first, 1, 3, 3, fan_in=9)
        self.second = uniform(n * second, first, 3, 3, fan_in=9 * first)
        self.first_b, self.second_b = nn.Parameter(torch.zeros(n * first)), nn.Parameter(torch.zeros(n * second))
        self.head = uniform(n, second * 4, 10, fan_in=second * 4)

    def channels(self, x: Tensor) -> Tensor:
        """(n, batch, pixels) or (batch, pixels) → (n, batch, channels of the second layer, side, side)"""
        x = x if x.ndim == 3 else x.expand(self.n, *x.shape)
        pictures = x.transpose(0, 1).unflatten(2, (self.side, self.side))
        h = nn.functional.conv2d(pictures, self.first, self.first_b, padding=1, groups=self.n).relu()
        h = nn.functional.conv2d(h, self.second, self.second_b, padding=1, groups=self.n).relu()
        return h.unflatten(1, (self.n, -1)).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, 10)"""
        h = self.channels(x)
        pooled = nn.functional.adaptive_avg_pool2d(h.flatten(0, 1), 2).unflatten(0, h.shape[:2]).flatten(2)
        return pooled @ self.head


def channels(settings: ChannelSettings) -> dict[str, Any]:
    """HDBSCAN of the channel vectors at one place, one of each picture, of networks before and after training.

    Of each net: n_clusters, noise, share: mean over its clusters of the commonest digit's share; excess: that over what
    clusters of the same sizes have when the digits are shuffled.
    """
    images = images_of(settings)
    n = settings.n_pictures
    x, y = torch.cat([images.train_x, images.test_x])[:n], torch.cat([images.train_y, images.test_y])[:n]
    side = side_of(x.shape[1])
    row, column = settings.place
    generator = torch.Generator().manual_seed(seed_of("channels"))
    nets = ConvNets(settings.n_conv_nets, settings.n_channels, side, generator)
    rng = np.random.default_rng(seed_of("shuffled digits"))
    found: dict[str, Any] = {
        "place": [row, column],
        "side": side,
        "n_rows": len(x),
        "n_channels": settings.n_channels[1],
    }
    for state in ("untrained", "trained"):
        if state == "trained":
            classify(nets, images, settings.conv_steps, settings.batch_size, settings.lr, settings.n_conv_nets)
        with torch.no_grad():
            vectors = nets.channels(x)[..., row, column].numpy()
        rows: dict[str, list[float]] = {"n_clusters": [], "noise": [], "share": [], "excess": []}
        for own in vectors:
            labels = clustered(own, settings.min_cluster_size, settings.min_samples)
            shares, over = excess(labels, y.numpy(), rng)
            rows["n_clusters"].append(len(shares))
            rows["noise"].append(float((labels < 0).mean()))
            rows["share"].append(float(np.mean(shares)) if shares else 0.0)
            rows["excess"].append(float(np.mean(over)) if over else 0.0)
        found[state] = {**rows, "accuracy": accuracies(nets, *unseen(settings))}
    return found
