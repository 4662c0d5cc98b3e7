"""Two numbers in one, as the source has it."""

import math

import pytest
import torch

from pipeline.toy.networks import Networks
from pipeline.toy.representations.compression import (
    _linearity,
    came_back,
    compression,
    pack,
    pack_rounded,
    unpack,
    unpack_rounded,
)


def test_all_hundred_pairs_come_back() -> None:
    tenths = torch.arange(10, dtype=torch.double) / 10
    xy = torch.cartesian_prod(tenths, tenths)
    assert torch.allclose(torch.stack(unpack(pack(xy[:, 0], xy[:, 1])), 1), xy, atol=1e-9)


def test_on_the_sources_grid_the_code_is_linear_and_between_its_steps_it_is_not() -> None:
    tenths = torch.arange(10, dtype=torch.double) / 10
    x, y = torch.cartesian_prod(tenths, tenths).T
    assert torch.allclose(pack(x, y), x + y / 10, atol=1e-12)
    x = torch.tensor(0.35, dtype=torch.double)
    assert float(pack(x, torch.tensor(0.0))) == pytest.approx(0.3)


def test_a_second_number_of_one_or_more_spills_over() -> None:
    x, y = unpack(pack(torch.tensor(0.3), torch.tensor(1.2)))
    assert float(x) == pytest.approx(0.4)
    assert float(y) == pytest.approx(0.2, abs=1e-5)


def test_the_worked_example_of_the_source() -> None:
    assert [pack_rounded(0.3, 0.2, 1), pack_rounded(0.6, 0.8, 1)] == [0.32, 0.68]
    assert [unpack_rounded(0.32, 1), unpack_rounded(0.68, 1)] == [(0.3, 0.2), (0.6, 0.8)]


def test_the_sources_arithmetic_loses_the_pairs_whose_product_falls_below_a_whole_number() -> None:
    assert came_back(1) == (100, 100)
    assert 100 * 0.29 < 29  # in floats
    assert math.floor(100 * 0.29) == 28
    assert unpack_rounded(pack_rounded(0.29, 0.5, 2), 2) != (0.29, 0.5)
    good, of = came_back(2)
    assert of == 10_000
    assert 9_000 < good < 10_000


def test_a_linear_code_has_r2_of_one_and_a_folded_one_less() -> None:
    generator = torch.Generator().manual_seed(0)
    assert _linearity(Networks.drawn(3, (2, 2), generator)).tolist() == pytest.approx([1, 1, 1], abs=1e-9)
    W = torch.tensor([[[1.0, -1.0], [0.0, 0.0]]])
    folded = Networks([W, torch.ones(1, 2, 1)], [torch.tensor([[[-0.5, 0.5]]]), torch.zeros(1, 1, 1)])  # |x - ½|
    assert float(_linearity(folded)) < 0.1


def test_what_is_measured_of_the_maps_follows_from_closed_forms() -> None:
    found = compression(8, 20, 2)
    assert found["recovered"]["floor"] == [100]
    assert found["mse"]["floor"][0] < 1e-12
    # Half of the variance of the 100 pairs, averaged over two coordinates: 0.0825 / 2.
    assert found["mse"]["best linear"][0] == pytest.approx(0.04125, abs=1e-9)
    assert found["code_is_linear_by"] < 1e-12
