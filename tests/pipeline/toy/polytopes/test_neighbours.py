"""Across a boundary."""

import pytest
import torch

from pipeline.toy.polytopes.neighbours import after, relative_difference, scaled, single
from pipeline.toy.polytopes.nets import ReluNets
from tests.pipeline.toy.polytopes.nets import inputs, random_nets

WIDTHS = (7, 20, 15, 4)


def two_sides(nets: ReluNets, layer: int, unit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A code of each of 30 inputs with the unit off, and on: (n, 30, units)."""
    off = nets.code(inputs(30, WIDTHS[0])).double()
    off[..., sum(WIDTHS[1 : layer + 1]) + unit] = 0
    on = off.clone()
    on[..., sum(WIDTHS[1 : layer + 1]) + unit] = 1
    return off, on


@pytest.mark.parametrize(("layer", "unit"), [(0, 3), (1, 8)])
def test_neighbours_maps_differ_by_what_the_neuron_reads_and_writes(layer: int, unit: int) -> None:
    nets = random_nets(WIDTHS)
    off, on = two_sides(nets, layer, unit)
    difference = nets.affine(on)[0] - nets.affine(off)[0]
    s1, s2 = off.split(WIDTHS[1:3], dim=2)
    W1, W2, W3 = nets.weights
    reads = W1[:, None, :, unit] if layer == 0 else (W1[:, None] * s1[:, :, None]) @ W2[:, None, :, unit, None]
    writes = (W2[:, None, unit] * s2) @ W3 if layer == 0 else W3[:, None, unit]
    closed = writes.expand(2, 30, -1)[..., None] * reads.reshape(2, -1, WIDTHS[0]).expand(2, 30, -1)[..., None, :]
    assert torch.allclose(difference, closed, atol=1e-12)
    assert bool((torch.linalg.matrix_rank(difference, rtol=1e-9) <= 1).all())


def test_the_relative_difference_does_not_grow_with_the_weights() -> None:
    nets = random_nets(WIDTHS)
    large = scaled(nets, 10.0)
    x = inputs(30, WIDTHS[0])
    assert torch.equal(nets.code(x), large.code(x))
    (A, B), (A10, B10) = ([n.affine(s)[0] for s in two_sides(nets, 0, 3)] for n in (nets, large))
    assert torch.allclose(relative_difference(A10, B10), relative_difference(A, B), atol=1e-12)
    assert torch.allclose((A10 - B10).norm(dim=(2, 3)), 1000 * (A - B).norm(dim=(2, 3)), rtol=1e-9)


def test_the_relative_difference_is_bounded_however_large_one_neuron_is() -> None:
    nets = random_nets(WIDTHS)
    nets.weights[0].data[:, :, 3] *= 1e6
    A, B = (nets.affine(s)[0] for s in two_sides(nets, 0, 3))
    assert float((A - B).norm(dim=(2, 3)).max()) > 1e4
    assert float(relative_difference(A, B).max()) <= 2
    assert float(relative_difference(A, -A).max()) == pytest.approx(2)
    eye = torch.eye(2)
    assert float(relative_difference(eye, eye.roll(1, 0))) == pytest.approx(2**0.5)  # orthogonal, of one norm


def test_steps_across_one_boundary_and_across_several() -> None:
    """Units turn in the steps 0: {0}, 1: none, 2: {1, 2}, 3: {3}."""
    path = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    codes = torch.stack([path, path[[0, 0, 0, 3, 3]]])[None]
    here, there, unit = single(codes, torch.Generator().manual_seed(0))
    assert int(unit[0, 0]) in (0, 3)
    assert (here[0, 0] != there[0, 0]).nonzero()[:, 0].tolist() == [int(unit[0, 0])]
    assert int(unit[0, 1]) == -1  # all its boundaries are crossed in one step
    for n, place in ((1, 1), (2, 3), (3, 3), (4, 4)):
        code, reached = after(codes, n)
        assert code[0, 0].tolist() == path[place].tolist()
        assert reached[0].tolist() == [True, n <= 3]
    assert not bool(after(codes, 5)[1].any())
