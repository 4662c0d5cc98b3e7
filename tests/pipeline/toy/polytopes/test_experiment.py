"""The polytope lens: the affine map of a code is the network, exactly."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipeline.config import UserError
from pipeline.toy.polytopes.experiment import (
    QUICK,
    ReLUNet,
    Settings,
    codes,
    density,
    flips,
    inputs,
    scaling,
    soft_code,
)
from pipeline.train.rotations.jacobians import gelu_slope
from tests.conftest import make_store

SMALL = Settings(**QUICK)


def random_net(widths: tuple[int, ...], bias: bool) -> ReLUNet:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(b, a, generator=generator) / a**0.5 for a, b in pairwise(widths)]
    return ReLUNet(weights, [torch.randn(b, generator=generator) * bias for b in widths[1:]])


def test_the_affine_map_of_a_code_is_the_network() -> None:
    net = random_net((7, 20, 15, 11, 4), bias=True)
    x = torch.randn(200, 7, generator=torch.Generator().manual_seed(1))
    out, code = net.run(x)
    assert code.shape == (200, 46)
    for row, value, s in zip(x, out, code, strict=True):
        A, c = net.affine(s)
        assert torch.allclose(A @ row + c, value, atol=1e-4)
        jacobian = torch.autograd.functional.jacobian(lambda v: net(v[None])[0], row)
        assert torch.allclose(A, jacobian, atol=1e-5)


def test_without_biases_codes_do_not_depend_on_the_scale() -> None:
    x = torch.randn(500, 7, generator=torch.Generator().manual_seed(1))
    for bias in (False, True):
        net = random_net((7, 20, 15, 11, 4), bias)
        changed = [int((net.run(x, factor)[1] != net.run(x)[1]).sum()) for factor in (0.25, 4.0)]
        assert (changed == [0, 0]) is not bias


def test_flips_are_counted_along_the_path() -> None:
    """One layer of known boundaries at 1, 2, 3 on the first axis."""
    net = ReLUNet([torch.tensor([[1.0, 0.0]]).expand(3, 2), torch.ones(1, 3)], [-torch.arange(1.0, 4), torch.zeros(1)])
    start, stop = torch.tensor([[0.0, 5], [0, 0]]), torch.tensor([[4.0, 5], [1.5, 0]])
    assert flips(net, start, stop, 101).sum(1).tolist() == [3, 1]


def test_the_soft_code_of_gelu_and_its_slope() -> None:
    h = torch.linspace(-6, 6, 500, dtype=torch.double, requires_grad=True)
    value = torch.nn.functional.gelu(h, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), h)
    assert torch.allclose(h * soft_code(h), value, atol=1e-12)
    assert torch.allclose(gelu_slope(h), slope, atol=1e-12)
    assert bool(((soft_code(h) >= 0) & (soft_code(h) <= 1)).all())
    assert float(gelu_slope(h.detach()).max()) > 1.1  # which is why the slope is no code


def test_the_digits_net() -> None:
    found = codes(SMALL)
    assert found["accuracy"] > 0.9
    assert found["greatest_error"] < 1e-4
    paths = density(Settings(**{**QUICK, "train_steps": 600, "n_paths": 300}))["paths"]
    within, between = paths["within a class"], paths["between classes"]
    assert between["density"] - within["density"] > 2 * (within["standard_error"] + between["standard_error"])
    rows = scaling(SMALL)
    assert all(flipped == 0 for _, flipped, _, _ in rows["without biases"]["curve"])
    assert rows["with biases"]["curve"][0][1] > 0


def test_a_store_without_the_hook_point_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr")
    for settings, message in (
        (
            {"store": str(tmp_path / "s.zarr")},
            "'blocks.1.mlp.hook_post' is not in the store .* has blocks.0.hook_resid_post",
        ),
        ({"store": str(tmp_path / "none.zarr")}, "no activation store at"),
        ({"hook_point": "blocks.9.mlp.hook_post"}, "out of range"),
        ({"images": str(tmp_path)}, "has no file train-images"),
    ):
        with pytest.raises(UserError, match=message):
            inputs(Settings(**settings))
