"""Clusters, and the labels of what is in them."""

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.toy.polytopes.channels import ConvNets, side_of
from pipeline.toy.polytopes.clusters import clustered, distances, excess, shares


def test_planted_clusters_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(240) % 3
    x = 10 * rng.normal(size=(3, 6))[truth] + rng.normal(size=(240, 6))
    labels = clustered(x, 8, 2)
    assert shares(labels, truth) == [1.0, 1.0, 1.0]
    within, between = distances(x, labels)
    assert within is not None
    assert between is not None
    assert between > 3 * within
    assert clustered(x[:1], 8, 2).tolist() == [-1]


def test_a_share_is_told_beside_that_of_shuffled_labels() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], 200)
    y = np.where(labels < 0, 7, labels)
    own, over = excess(labels, y, rng)
    assert own == [1.0, 1.0, 1.0]
    assert over == pytest.approx([2 / 3] * 3, abs=0.05)  # of 200 of 600 rows a third, and a little, has the commonest
    own, over = excess(labels, rng.permutation(np.arange(800) % 2), rng)
    assert np.mean(over) == pytest.approx(0, abs=0.05)
    assert excess(np.full(5, -1), np.arange(5), rng) == ([], [])


def test_convolutional_nets_side_by_side_are_those_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    nets = ConvNets(3, (4, 6), 8, generator)
    x = torch.randn(3, 5, 64, generator=generator)
    found = nets.channels(x)
    assert found.shape == (3, 5, 6, 8, 8)
    for k in range(3):
        h = torch.nn.functional.conv2d(x[k].view(5, 1, 8, 8), nets.first[4 * k : 4 * k + 4], padding=1).relu()
        h = torch.nn.functional.conv2d(h, nets.second[6 * k : 6 * k + 6], padding=1).relu()
        assert torch.allclose(found[k], h, atol=1e-5)
        quarters = h.view(5, 6, 2, 4, 2, 4).mean((3, 5)).flatten(1)
        assert torch.allclose(nets(x)[k], quarters @ nets.head[k], atol=1e-5)


def test_pictures_that_are_no_square_are_refused() -> None:
    assert side_of(64) == 8
    with pytest.raises(UserError, match="65 pixels"):
        side_of(65)
