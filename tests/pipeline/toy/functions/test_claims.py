"""The claims of the small functions follow from numbers."""

import math
from pathlib import Path
from typing import Any

from pipeline.toy.functions.claims import CLAIMS, slope
from pipeline.toy.functions.parity import LINEAR, SOURCE
from tests.pipeline.toy.mutations import check_claims, measured


def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    small = {  # nothing is found in so few steps
        "threshold_steps": 200,
        "adam_steps": 100,
        "minimum_seeds": 5,
        "minimum_epochs": 1,
        "square_steps": 10,
        "parity_steps": 5,
        "random_chains": 2,
        "variant_seeds": 5,
    }
    numbers = as_the_source_has_it(measured("functions", tmp_path, **small))
    # A threshold cannot be at 10 and at 9.5: the claim that it is at 10 gets numbers of its own.
    check_claims([claim for claim in CLAIMS if claim.name != "at-ten"], numbers, n_mutations=60)
    for rows in numbers["threshold"]["trained"].values():
        rows[-1][2] = 10.0
    check_claims([claim for claim in CLAIMS if claim.name == "at-ten"], numbers, n_mutations=60)


def as_the_source_has_it(numbers: dict[str, Any]) -> dict[str, Any]:
    """The same numbers with the findings of the source in them, of enough nets: claims are decided from there."""
    for found in (numbers["minimum"], *numbers["minimum_decay"].values(), *numbers["minimum_width"].values()):
        found.update(n=60, solved=60, printed=50, one_used=50, bend=[1.0])
        found["forms"] = {"short": 30, "mirror": 20, "symmetric": 5, "between": 5, "beyond": 0}
        found["by_side"] = {"same": [60, 60], "opposite": [0, 60]}
    for name, mean in ((SOURCE, 180), (LINEAR, 300)):
        numbers["parity_source"][name].update(error=[0.25] * mean + [0.5] * (300 - mean), right=[0] * 300)
    for part in ("parity_learning", "parity_wide"):
        for found in numbers[part].values():
            found.update(right=[1] * 60, right_before=[1] * 60)
    numbers["square"].update(n=60, solved=60, carries=60)
    for row in numbers["parity"]["table"]:
        row["relus"] = row["n"]
    return numbers


def test_the_slope_is_that_of_a_logarithm() -> None:
    rows = [[10.0**k, 3 + 2 * math.log(10.0**k)] for k in range(10)]
    assert abs(slope(rows, 3) - 2) < 1e-12
