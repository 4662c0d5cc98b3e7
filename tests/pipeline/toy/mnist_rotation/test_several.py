"""Many nets: what their numbers keep whatever is found."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.toy.mnist_rotation.descent import LR
from pipeline.toy.mnist_rotation.equivalent import _train_on, signs
from pipeline.toy.mnist_rotation.maps import THRESHOLDS, by_rows, translated, zeros
from pipeline.toy.mnist_rotation.net import layer_jacobians
from pipeline.toy.mnist_rotation.settings import QUICK, Settings
from pipeline.toy.mnist_rotation.several import by_input, density, eye, subjects
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import measure
from pipeline.train.rotations.orthogonal import random_rotation

SETTINGS = Settings(**QUICK)


def test_rotations_change_no_logit(numbers: dict[str, Any]) -> None:
    assert 0 < max(numbers["chains"]["unchanged"]) < 1e-5
    assert min(numbers["chains"]["same"]) == 1


def test_the_first_layer_for_itself_is_that_of_the_chain(numbers: dict[str, Any]) -> None:
    found = numbers["chains"]
    assert found["own_first"] == {**found["turn_first"]}


def test_parts_that_are_measured_apart_have_the_same_rotations(numbers: dict[str, Any]) -> None:
    rows, turn = numbers["few_inputs"]["rows"], numbers["chains"]["turn_middle"]
    assert rows[-1]["n"] == SETTINGS.small_fit
    assert rows[-1]["heldout"] == pytest.approx(turn["gain"], rel=1e-4)
    assert numbers["maps"]["from_identity"] == pytest.approx(turn["after"], rel=1e-4)
    assert numbers["objectives"]["by"]["log"]["log"] == pytest.approx(turn["after"], rel=1e-4)


def test_one_input_is_fitted_better_than_many(numbers: dict[str, Any]) -> None:
    one, *_, every = numbers["few_inputs"]["rows"]
    assert np.mean(one["fitted"]) > np.mean(every["fitted"])


def test_gains_by_input_have_the_measures_mean() -> None:
    J = Dense(torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0)))
    R = random_rotation(5, 0), random_rotation(4, 1)
    assert float(by_input(SETTINGS, J, *R).mean()) == pytest.approx(measure(J, *R)["log"], rel=1e-5)


def test_a_random_rotation_is_as_dense_as_one_and_the_identity_is_not() -> None:
    assert density(SETTINGS, random_rotation(32, 5)) == pytest.approx(1, abs=0.05)
    assert density(SETTINGS, eye(32)) < 0.1


def test_zeros_are_counted() -> None:
    found = zeros(Dense(torch.eye(8).repeat(3, 1, 1)), eye(8), eye(8))
    assert found == {f"below_{t:g}": pytest.approx(7 / 8) for t in THRESHOLDS}


def test_no_scale_of_an_axis_changes_the_objective_by_rows() -> None:
    J = Dense(torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0)))
    R, D = random_rotation(5, 0), torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scaled = torch.tensor([0.1, 1.0, 3.0, 20.0]).double()[:, None] * D
    assert by_rows(SETTINGS, J, R, scaled) == pytest.approx(by_rows(SETTINGS, J, R, D), rel=1e-5)
    assert measure(J, R, scaled)["log"] != pytest.approx(measure(J, R, D)["log"], rel=0.01)


def test_a_translation_changes_no_jacobian_and_another_input_does() -> None:
    images, nets = subjects(SETTINGS, 2)
    net, x = nets[0].net, images.test_x[:6]
    J = layer_jacobians(net, x)[1].J
    h = net.hidden(x)[1]
    torch.testing.assert_close(translated(net, 1, h, 0), J, atol=1e-5, rtol=1e-5)
    assert (translated(net, 1, h + 1, 0) - J).abs().max() > 0.1


def test_attacks_on_the_rotated_net_are_those_on_the_net() -> None:
    images, nets = subjects(SETTINGS, 2)
    net, x, y = nets[0].net.double(), images.test_x[:50].double(), images.test_y[:50]
    R = [eye(64), random_rotation(12, 0), random_rotation(12, 1), random_rotation(10, 2)]
    free = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(net(free), y, reduction="sum"), free)
    found = signs(net, R, x, y)
    clear = slope.abs() > 1e-9 * slope.abs().max()
    assert torch.equal(found[clear], slope.sign()[clear])
    assert clear.double().mean() > 0.5


def test_gradient_descent_is_the_same_in_rotated_coordinates_and_adam_is_not() -> None:
    images, nets = subjects(SETTINGS, 2)
    net = nets[1].net.double()
    plain = [eye(64), eye(12), eye(12), eye(10)]
    turned = [eye(64), random_rotation(12, 0), random_rotation(12, 1), random_rotation(10, 2)]
    losses = {
        kind: [_train_on(SETTINGS, net, R, images, kind, lr, 20)[1] for R in (plain, turned)]
        for kind, lr in (("sgd", 0.05), ("adam", 3e-3))
    }
    assert losses["sgd"][0] == pytest.approx(losses["sgd"][1], rel=1e-6)
    assert abs(losses["adam"][0] / losses["adam"][1] - 1) > 1e-3


@pytest.mark.slow
def test_plain_descent_and_ours_begin_at_the_same_value(numbers: dict[str, Any]) -> None:
    by = numbers["descent"]["by"]
    assert LR == 1e-4
    for way in by.values():
        assert [c[0] for c in way["curve"]] == pytest.approx([c[0] for c in by["solver"]["curve"]], rel=1e-4)
