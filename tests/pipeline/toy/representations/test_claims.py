"""The claims about representations follow from numbers."""

import copy
from pathlib import Path

from pipeline.toy.representations.claims import CLAIMS
from pipeline.toy.representations.relations import relations
from pipeline.toy.representations.words import PLURAL
from tests.pipeline.toy.mutations import check_claims, measured


def test_claims_follow_from_the_numbers(tmp_path: Path, tiny_model: Path) -> None:
    small = {  # too few steps to find anything
        "rows_steps": 5, "n_permutations": 19, "compression_steps": 5, "pictures": 20, "pictures_steps": 10,
        "memorise_steps": 10, "intensity_units": (1,), "intensity_steps": 5, "sizes_steps": 5, "regimes_steps": 5,
        "sizes_seeds": 40, "n_seeds": 40, "model": str(tiny_model),
    }  # fmt: skip
    numbers = measured("representations", tmp_path, **small)
    for part, drawn in (("qualities", "examples"), ("compression", "curves"), ("relations", "pairs")):
        del numbers[part][drawn]  # no claim looks at them, and they are most of what is mutated
    words = numbers["relations"] = relations("demo", 99)  # random weights have no relations
    layers = words["found"][PLURAL][:2]  # what a relation that holds looks like
    words["points"] = words["points"][:2]
    words["found"] = {PLURAL: layers} | {f"another, {i}": copy.deepcopy(layers) for i in range(4)}
    check_claims(CLAIMS, numbers, hints=(0.32, 0.68, 0.01, 4.0))
