"""Pictures of circles and triangles, and what is measured of nets that see them."""

import math

import pytest
import torch

from pipeline.toy.representations import shapes
from pipeline.toy.representations.qualities import (
    KINDS,
    best_units,
    by_chance,
    first_component,
    interaction,
    memorised,
    qualities,
)
from pipeline.toy.representations.shapes import Pictures


def painted(triangle: bool, radius: float = 3.0) -> torch.Tensor:
    n = torch.ones(1)
    red = torch.tensor([shapes.GROUNDS["red"]])
    middle = torch.tensor([[5.5, 5.5]])
    return shapes.paint(red, torch.tensor([triangle]), middle, radius * n, n, n)[0]


@pytest.mark.parametrize("triangle", [False, True])
def test_both_shapes_have_the_area_of_the_circle_and_the_ground_its_colour(triangle: bool) -> None:
    picture = painted(triangle, 2.5)
    # On red of shade 1, what is not red is the shape: grey 1.
    assert float(picture[1].sum()) == pytest.approx(math.pi * 2.5**2, rel=0.05)
    assert picture[:, 0, 0].tolist() == [1, 0, 0]


def test_a_triangle_points_up_and_a_circle_looks_the_same_upside_down() -> None:
    triangle, circle = painted(True)[1], painted(False)[1]
    assert torch.allclose(circle, circle.flip(0), atol=1e-5)
    assert float(triangle[:6].sum()) < 0.8 * float(triangle[6:].sum())
    assert torch.allclose(triangle, triangle.flip(1), atol=1e-5)


def test_pictures_have_the_grounds_that_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    found = shapes.draw(2, 50, ("red", "blue"), generator)
    corner = found.x.view(2, 50, 3, 12, 12)[..., 0, 11] + 0.25
    assert torch.equal(corner[..., 2] > corner[..., 0], found.blue)
    assert set(found.classes.flatten().tolist()) == {0, 1, 2, 3}
    purple = shapes.draw(1, 5, ("purple",), generator).x.view(5, 3, 12, 12)[..., 0, 11] + 0.25
    assert torch.allclose(purple[:, 0], purple[:, 2])


def test_interaction_is_nothing_for_a_sum_and_all_for_a_product() -> None:
    classes = torch.arange(4).repeat(1, 5)
    ground, shape = 2.0 * (classes // 2) - 1, 2.0 * (classes % 2) - 1
    summed = torch.stack([ground, 3 * shape], -1)
    assert float(interaction(summed, classes)) == pytest.approx(0, abs=1e-12)
    assert float(interaction((ground * shape)[..., None], classes)) == pytest.approx(1)


def test_a_line_has_one_component_and_a_circle_two() -> None:
    t = torch.linspace(0, 2 * math.pi, 101)[:-1]
    line = torch.stack([t, -2 * t], 1)[None]
    circle = torch.stack([t.cos(), t.sin()], 1)[None]
    assert float(first_component(line)) == pytest.approx(1, abs=1e-5)
    assert float(first_component(circle)) == pytest.approx(0.5, abs=1e-5)


def test_the_best_units_are_those_that_carry_the_qualities() -> None:
    blue, triangle = torch.tensor([[0, 0, 1, 1]]).bool(), torch.tensor([[0, 1, 0, 1]]).bool()
    layer = torch.stack([triangle, ~blue, blue, ~triangle], -1).double()
    unit, found = best_units(layer, Pictures(layer, blue, triangle))
    assert dict(zip(KINDS, unit[0].tolist())) == {"red": 1, "blue": 2, "circle": 3, "triangle": 0}
    assert found.tolist() == [[1, 1, 1, 1]]


def test_agreement_by_chance_is_that_of_shuffled_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(4, (1, 20_000), generator=generator), torch.randint(2, (1, 20_000), generator=generator)
    a = a.clamp_max(2)  # 1/4, 1/4, 1/2, 0 against 1/2, 1/2, 0, 0
    shuffled = b[:, torch.randperm(20_000, generator=generator)]
    assert float(by_chance(a, b)) == pytest.approx(1 / 4, abs=0.01)
    assert float((a == shuffled).double().mean()) == pytest.approx(float(by_chance(a, b)), abs=0.015)


@pytest.mark.slow
def test_nets_learn_the_pictures_and_memorise_random_labels() -> None:
    found, other = qualities(40, 200, 2), memorised(40, 200, 2)
    assert min(found["fitted"]) > 0.95
    assert min(other["fitted"]) > 0.95
    assert min(found["net"]["ground_new"]) > 0.95
    # The probe's accuracy on the same new pictures is another for nets of true and of random labels, the pictures are not.
    assert found["probe"] != other["probe"]
