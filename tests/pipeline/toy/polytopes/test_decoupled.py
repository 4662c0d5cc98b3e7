"""Codes and maps taken apart, and put together again."""

import torch

from pipeline.toy.polytopes.decoupled import Gated
from tests.pipeline.toy.polytopes.nets import inputs, random_nets


def test_a_networks_own_gates_and_maps_are_the_network() -> None:
    nets, x = random_nets((7, 20, 15, 4)), inputs(50, 7)
    assert torch.allclose(Gated(nets, nets)(x), nets(x), atol=1e-12)
    assert not torch.allclose(Gated(nets, None)(x), nets(x), atol=1e-2)


def test_without_gates_it_is_one_affine_map() -> None:
    one, x = Gated(random_nets((7, 20, 15, 4)), None), inputs(50, 7)
    middle = one((x[:-1] + x[1:]) / 2)
    assert torch.allclose(middle, (one(x)[:, :-1] + one(x)[:, 1:]) / 2, atol=1e-12)


def test_gates_are_not_trained() -> None:
    nets, gates = random_nets((7, 20, 4)).requires_grad_(), random_nets((7, 20, 4), bias=False).requires_grad_()
    gated = Gated(nets, gates)
    gated(inputs(5, 7)).sum().backward()
    assert len(list(gated.parameters())) == len(list(nets.parameters()))
    assert all(p.grad is None for p in gates.parameters())
    assert nets.weights[0].grad is not None
