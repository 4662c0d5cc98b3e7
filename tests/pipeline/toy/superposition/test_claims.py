"""The claims of the toy models of superposition follow from numbers."""

from pathlib import Path

import pytest

from pipeline.toy.superposition.claims import CLAIMS
from tests.pipeline.toy.mutations import check_claims, measured


@pytest.mark.slow
def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    small = {  # enough seeds for an interval to be narrow, too few steps to find anything
        "n": 20,
        "m": 3,
        "n_steps": 50,
        "importance_steps": 50,
        "pentagon_seeds": 60,
        "pentagon_steps": 60,
        "grid_steps": 50,
        "pair_steps": 50,
    }
    check_claims(CLAIMS, measured("superposition", tmp_path, **small), hints=(0.4, 0.5, 5.0))
