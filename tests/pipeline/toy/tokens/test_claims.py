"""The claims of the eight tokens follow from numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.toy.tokens.claims import CLAIMS
from pipeline.toy.tokens.eight import ALL, READINGS, begin
from pipeline.toy.tokens.experiment import NO_PENALTY, PENALTY, UNTRAINED, Settings, grid
from tests.pipeline.toy.mutations import check_claims, measured


def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    small = {  # too few steps to find anything
        "n_steps": 3,
        "n_seeds": 8,
        "grid_d_sae": [4],
        "grid_w": [0.0, 0.1],
        "grid_steps": [0, 3],
        "family_steps": 2,
        "family_seeds": 3,
        "binary_steps": 3,
    }
    check_claims(CLAIMS, as_the_source_has_it(measured("tokens", tmp_path, **small)), hints=(0.05, 0.5, 40.0, 1.5))


def as_the_source_has_it(numbers: dict[str, Any]) -> dict[str, Any]:
    """The same numbers with every finding of the source in them, of 40 seeds: claims are decided from there."""

    def fill(found: dict[str, Any], share: float, named: float) -> None:
        for name in (*READINGS, ALL):
            found[name] = [int(i < share * 40) for i in range(40)]
        found.update(named=[named] * 40, sets=[5] * 40)

    source = numbers["source"]
    fill(source[PENALTY], 0.8, 0.5)
    fill(source[NO_PENALTY], 0, 0.1)
    fill(source[UNTRAINED], 0, 0.1)
    source[NO_PENALTY]["sets"] = source[UNTRAINED]["sets"] = [3] * 40
    source["agreement"] = {
        key: {"pairs": [c] * 20, "shuffled": [0.2] * 20} for key, c in ((PENALTY, 1.0), (UNTRAINED, 0.2))
    }
    for found in numbers["variants"].values():
        fill(found, 1, 0.9)
    for part in ("relu_l1", "topk"):
        for name, found in numbers[part].items():
            fill(found, "untrained" not in name, 0.5)
    numbers["grid_4"].update(n=40, again={"steps": 3, "w": 0.1, "chosen_by": 40, "count": 40})
    unit, free = numbers["unit_norms"], numbers["free_norms"]
    unit.update(only_features=[0] * 40, latents_token=[2] * 40, mean_code=[1.0] * 40, l0=[1.0] * 40)
    free.update(decoder_norm=[2.0] * 40, mean_code=[0.5] * 40, l0=[2.0] * 40)
    return numbers


def test_the_best_cell_is_measured_again_from_other_beginnings() -> None:
    settings = Settings(grid_w=(0.0, 0.1), grid_steps=(0, 3), grid_seeds=100)
    found = grid(settings, 20)
    again, cell = found["again"], found["cells"]["3"]["0.1"]
    assert (again["steps"], again["w"], again["chosen_by"]) == (3, 0.1, cell[ALL])
    assert not torch.equal(begin(2, 1, 20).weights[0], begin(2, 1, 20, "again").weights[0])
    assert again["count"] / 100 == pytest.approx(cell[ALL] / 100, abs=0.2)
    assert grid(settings.model_copy(update={"grid_w": (0.0,)}), 4)["again"] is None
