from functools import cache

import torch

from pipeline.toy.images import Images, load_images
from pipeline.toy.mnist_rotation.net import Net, accuracy, layer_jacobians, rotated_forward, train_net
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.train.rotations.orthogonal import random_rotation

SMALL = Settings(width=24, n_steps=300)


@cache
def trained() -> tuple[Images, Net]:
    images = load_images("digits")
    return images, train_net(SMALL, images)


def test_the_net_learns_and_its_rotated_form_says_the_same() -> None:
    images, net = trained()
    assert accuracy(net, images.test_x, images.test_y) > 0.9
    R = [random_rotation(d, d + i) for i, d in enumerate((64, 24, 24, 10))]
    torch.testing.assert_close(rotated_forward(net, R, images.test_x), net(images.test_x), atol=1e-4, rtol=1e-4)


def test_layer_jacobians_multiply_to_that_of_the_whole() -> None:
    images, net = trained()
    x = images.test_x[:5]
    first, second, third = (J.J for J in layer_jacobians(net, x))
    whole = torch.func.vmap(torch.func.jacrev(net))(x)
    torch.testing.assert_close(third @ second @ first, whole, atol=1e-5, rtol=1e-4)
