"""The claims about representations follow from numbers."""

import copy
from pathlib import Path

import pytest

from pipeline.toy.representations.claims import CLAIMS
from pipeline.toy.representations.words import PLURAL
from tests.pipeline.toy.mutations import check_claims, measured


@pytest.mark.slow
def test_claims_follow_from_the_numbers(tmp_path: Path, tiny_model: Path) -> None:
    small = {  # too few steps to find anything
        "rows_steps": 5, "n_permutations": 19, "compression_steps": 5, "pictures": 40, "pictures_steps": 10,
        "memorise_steps": 10, "intensity_units": (1,), "intensity_steps": 5, "sizes_steps": 5, "regimes_steps": 5,
        "sizes_seeds": 40, "n_seeds": 40, "model": str(tiny_model),
    }  # fmt: skip
    numbers = measured("representations", tmp_path, **small)
    for part, drawn in (("qualities", "examples"), ("compression", "curves"), ("relations", "pairs")):
        del numbers[part][drawn]  # no claim looks at them, and they are most of what is mutated
    words = numbers["relations"]
    holds = words["found"][PLURAL][0]  # random weights have no relations: this is what one that holds looks like
    holds |= {"p": 0.001, "above_random": [0.95, 1.0] * 5, "rank": [1] * 10, "rank_without": [1, 2] * 5}
    words["points"] = words["points"][:2]
    words["found"] = {name: [copy.deepcopy(holds) for _ in range(2)] for name in (PLURAL, "b", "c", "d", "e")}
    regimes = numbers["regimes"]  # nets that learn, and take t apart as they do
    for key, fill in (("computed", True), ("r2", [0.95, 0.8]), ("r2_before", [0.6, 0.7])):
        regimes[key] = {name: [copy.copy(fill) for _ in range(40)] for name in regimes[key]}
    check_claims(CLAIMS, numbers, hints=(0.32, 0.68, 0.01, 4.0))
