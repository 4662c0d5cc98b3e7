"""GELU's soft code, and its map as an expectation over codes."""

import itertools

import pytest
import torch

from pipeline.models.activation_functions import gelu_new_slope
from pipeline.toy.polytopes.gelu import GeluNets, all_codes, gate, layers, one_layer, probabilities, soft_code
from tests.pipeline.toy.polytopes.nets import inputs, random_nets


def test_the_soft_code_of_gelu_and_its_slope() -> None:
    h = torch.linspace(-6, 6, 500, dtype=torch.double, requires_grad=True)
    value = torch.nn.functional.gelu(h, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), h)
    assert torch.allclose(h * soft_code(h), value, atol=1e-12)
    assert torch.allclose(gelu_new_slope(h), slope, atol=1e-12)
    assert bool(((soft_code(h) >= 0) & (soft_code(h) <= 1)).all())
    assert float(gelu_new_slope(h.detach()).max()) > 1.1  # which is why the slope is no code
    assert max(gate()["value_error"], gate()["slope_error"]) < 1e-12


def test_codes_and_their_probabilities_are_all_there_are() -> None:
    codes, q = all_codes(4), torch.tensor([[0.1, 0.5, 0.9, 0.3]]).double()
    assert {tuple(map(int, code)) for code in codes} == set(itertools.product((0, 1), repeat=4))
    p = probabilities(q, codes)
    assert float(p.sum()) == pytest.approx(1)
    assert torch.allclose(p @ codes, q)


def test_the_expectation_over_all_codes_is_the_gelu_layer() -> None:
    """Independently of the toy's own sum: code by code, of one network."""
    nets, x = random_nets((5, 6, 3), n=1, kind=GeluNets), inputs(1, 5)
    W1, b1, W2, b2 = nets.weights[0][0], nets.biases[0][0], nets.weights[1][0], nets.biases[1][0]
    h = (x @ W1 + b1)[0]
    on = soft_code(h)
    expected = torch.zeros(3).double()
    for code in itertools.product((0.0, 1.0), repeat=6):
        s = torch.tensor(code).double()
        expected += (on * s + (1 - on) * (1 - s)).prod() * ((h * s) @ W2 + b2[0])
    gelu = torch.nn.functional.gelu(h, approximate="tanh") @ W2 + b2[0]
    assert torch.allclose(expected, gelu, atol=1e-12)
    found = one_layer(20)
    assert max(found["map_error"], found["value_error"]) < 1e-6


def test_over_several_layers_probabilities_sum_to_one_and_one_layer_has_one_reading() -> None:
    one, two = layers(1, 20), layers(2, 20)
    assert max(one["total"], two["total"], one["held"], two["held"], *one["followed"]) < 1e-12
    assert min(two["followed"]) > 1e-6
