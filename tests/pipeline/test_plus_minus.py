"""Numbers with their spread."""

import pytest

from pipeline.plus_minus import difference_cells, plus_minus


@pytest.mark.parametrize(
    ("value", "std", "digits", "expected"),
    [
        (0.1174, 0.0021, 3, "0.117 ± .002"),
        (0.1174, None, 3, "0.117"),
        (0.1174, 0.00021, 3, "0.117 ± .0002"),
        (-0.0001, 0.0, 3, "0.000 ± .000"),
        (12.0, 1.4142, 1, "12.0 ± 1.4"),
        (3, 0.0, 0, "3 ± 0"),
    ],
)
def test_a_number_is_printed_with_its_spread(value: float, std: float | None, digits: int, expected: str) -> None:
    assert plus_minus(value, std, digits) == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(-0.0123, ["~-0.012", "-0.020 to +0.010"]), (0.00042, ["~+0.0004", "-0.0200 to +0.0100"])],
)
def test_a_difference_that_would_be_nothing_has_one_digit_more(difference: float, expected: list[str]) -> None:
    one = {"a": [0.1], "b": [0.1], "apart": False, "difference": difference, "low": -0.02, "high": 0.01}
    assert difference_cells(one)[2:] == expected
