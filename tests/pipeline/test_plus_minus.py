"""Numbers with their spread."""

import pytest

from pipeline.plus_minus import plus_minus


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
