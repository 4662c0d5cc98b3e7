"""The claims of the small functions follow from numbers."""

import math
from pathlib import Path

from pipeline.toy.functions.claims import CLAIMS, slope
from tests.pipeline.toy.mutations import check_claims, measured


def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    small = {  # nothing is found in so few steps
        "threshold_steps": 200,
        "adam_steps": 100,
        "minimum_epochs": 1,
        "square_steps": 10,
        "parity_steps": 5,
        "random_chains": 2,
    }
    numbers = measured("functions", tmp_path, **small)
    # Nets of a long run, enough of them for a narrow interval.
    for found in (numbers["minimum"], *numbers["minimum_decay"].values()):
        found.update(n=60, solved=60, printed=20, bend=[1.0])
        found["forms"] = {"short": 25, "mirror": 15, "symmetric": 5, "between": 15, "beyond": 0}
        found["by_side"] = {"same": [60, 60], "opposite": [0, 60]}
    for part in ("parity_source", "parity_learning", "parity_wide"):
        for found in numbers[part].values():
            found.update({key: found[key] * 6 for key in ("error", "right")})
    check_claims(CLAIMS, numbers, hints=(0.25, 0.5, 9.5, 10.0, 60.0))


def test_the_slope_is_that_of_a_logarithm() -> None:
    rows = [[10.0**k, 3 + 2 * math.log(10.0**k)] for k in range(10)]
    assert abs(slope(rows, 3) - 2) < 1e-12
