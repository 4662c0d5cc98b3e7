"""The affine map of a code is the network, exactly."""

import numpy as np
import torch

from pipeline.toy.polytopes.experiment import QUICK, Settings
from pipeline.toy.polytopes.gelu import GeluNets
from pipeline.toy.polytopes.nets import accuracies, code_of, pairs, trained, unseen
from pipeline.toy.polytopes.scaling import scaling
from tests.pipeline.toy.polytopes.nets import inputs, random_nets

SMALL = Settings(**{**QUICK, "n_nets": 3, "factors": (0.25, 4.0)})


def test_the_affine_map_of_a_code_is_the_network() -> None:
    nets, x = random_nets((7, 20, 15, 11, 4)), inputs(100, 7)
    pre = nets.pre_activations(x)
    code = code_of(pre)
    assert code.shape == (2, 100, 46)
    A, c = nets.affine(code)
    assert torch.allclose((A @ x[..., None])[..., 0] + c, pre[-1], atol=1e-12)
    for k in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v, k=k: nets(v[None])[k, 0], x[0])
        assert torch.allclose(A[k, 0], jacobian, atol=1e-12)


def test_a_net_among_others_is_the_net_alone() -> None:
    nets, x = random_nets((7, 20, 15, 4), n=3), inputs(3 * 10, 7).view(3, 10, 7)
    for k in range(3):
        h = x[k]
        for i, (W, b) in enumerate(zip(nets.weights, nets.biases, strict=True)):
            h = (h if i == 0 else h.relu()) @ W[k] + b[k]
        assert torch.allclose(nets(x)[k], h, atol=1e-12)
        assert torch.allclose(nets(x[k])[k], h, atol=1e-12)


def test_the_soft_code_of_a_gelu_network_gives_its_output() -> None:
    nets, x = random_nets((7, 20, 15, 4), kind=GeluNets), inputs(50, 7)
    assert isinstance(nets, GeluNets)
    A, c = nets.affine(nets.soft_codes(x))
    h = x.expand(2, -1, -1)
    for i, (W, b) in enumerate(zip(nets.weights, nets.biases, strict=True)):
        h = (h if i == 0 else torch.nn.functional.gelu(h, approximate="tanh")) @ W + b
    assert torch.allclose((A @ x[..., None])[..., 0] + c, h, atol=1e-12)


def test_without_biases_codes_do_not_depend_on_the_scale() -> None:
    x = inputs(500, 7)
    for bias in (False, True):
        nets = random_nets((7, 20, 15, 11, 4), bias=bias)
        code = nets.code(x)
        changed = [int((code_of(nets.pre_activations(x, factor)) != code).sum()) for factor in (0.25, 4.0)]
        assert (changed == [0, 0]) is not bias


def test_pairs_are_of_one_class_or_of_two() -> None:
    x, y = unseen(SMALL)
    for same in (True, False):
        a, b = pairs(SMALL, same)
        assert a.shape == (SMALL.n_nets, SMALL.n_paths, x.shape[1])
        assert not bool((a == b).all(2).any())
        of = [y[(x == row).all(1).nonzero()[:, 0]] for row in torch.cat([a, b]).flatten(0, 1)]
        half = len(of) // 2
        assert all(bool((p[:, None] == q).any()) is same for p, q in zip(of[:half], of[half:], strict=True))


def test_nets_learn_to_read_digits_each_its_own_way() -> None:
    nets, (x, y) = trained(SMALL), unseen(SMALL)
    assert min(accuracies(nets, x, y)) > 0.85
    assert not torch.equal(nets.weights[0][0], nets.weights[0][1])
    found = scaling(SMALL)
    assert np.max(found["without biases"]["flipped"]) == 0
    assert np.min(found["with biases"]["flipped"]) > 0
