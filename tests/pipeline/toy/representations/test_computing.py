"""Computing on two numbers that share one."""

import pytest
import torch

from pipeline.toy.representations.computing import (
    FUNCTIONS,
    OTHER,
    by_hand,
    computed,
    grid,
    hinges,
    regimes,
    runs,
    sizes,
    value,
)


def test_the_grid_is_the_sources_hundred_pairs_and_the_code_rises_along_it() -> None:
    x, y, t = grid(10)
    assert torch.allclose(t, torch.arange(100, dtype=torch.double) / 100, atol=1e-9)
    assert torch.allclose(x + y / 10, t, atol=1e-9)
    assert int(value("x > y", x, y).sum()) == 45  # of 100 pairs of digits


def test_the_fine_grid_has_the_coarse_one_in_it() -> None:
    _, y, t = grid(4)
    _, fine_y, fine_t = grid(4, 91)
    every_tenth = torch.cat([torch.arange(91 * i, 91 * (i + 1), 10) for i in range(4)])
    assert torch.allclose(fine_t[every_tenth], t, atol=1e-9)
    assert torch.allclose(fine_y[every_tenth], y, atol=1e-9)


@pytest.mark.parametrize("name", [*FUNCTIONS, OTHER])
def test_a_layer_of_hinges_is_the_function_at_all_points(name: str) -> None:
    x, y, t = grid(7)
    f = value(name, x, y, 7)
    at, weight, start = hinges(t, f)
    assert torch.allclose(start + (t[:, None] - at).relu() @ weight, f, atol=1e-9)


def test_turns_are_counted() -> None:
    assert runs(torch.tensor([0.0, 1, 2, 1, 1, 0, 5])) == 2
    assert runs(torch.tensor([0.0, 1, 2])) == 0


def test_the_sum_takes_two_units_a_tooth() -> None:
    found = by_hand((2, 10))["found"]["x + y"]
    # 10 rising pieces and 9 falls: 18 turns, and one unit for the first slope.
    assert [row[0] for row in found] == [3, 19]
    assert [row[2] for row in found] == [2, 18]


def test_a_net_computes_when_it_is_right_everywhere() -> None:
    right = torch.tensor([[0.0, 1.0]])
    assert computed("x + y", torch.tensor([[0.04, 0.96]]), right).tolist() == [True]
    assert computed("x + y", torch.tensor([[0.04, 0.94]]), right).tolist() == [False]
    assert computed("x > y", torch.tensor([[0.4, 0.6]]), right).tolist() == [True]


@pytest.mark.slow
def test_small_codes_are_learned_from_one_number_and_linear_ones_from_the_pair() -> None:
    found = sizes((2,), (32, 32), 600, 3)
    assert sum(found["code"]["2"]["x + y"]) >= 2
    assert all(found["linear"]["2"]["x + y"])


def test_the_sum_takes_the_code_apart_and_another_function_of_it_does_not() -> None:
    found = regimes(2, (16, 16), 500, 4)
    # t = x + y / 2, x in {0, 1/2}: R² = (Var y / 4) / (1/16 + Var y / 4), with Var y = .069
    assert found["r2_of_t"] == pytest.approx(0.216, abs=0.02)
    after = {name: sum(r2[0] for r2 in rows) / 4 for name, rows in found["r2"].items()}
    assert after["x + y"] > 0.95
    assert after["x + y"] > after[OTHER] + 0.05
