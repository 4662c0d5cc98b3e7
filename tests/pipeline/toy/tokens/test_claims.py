"""The claims of the eight tokens follow from numbers."""

from pathlib import Path
from typing import Any

from pipeline.toy.tokens.claims import CLAIMS
from pipeline.toy.tokens.eight import ALL, READINGS
from pipeline.toy.tokens.experiment import NO_PENALTY, PENALTY, UNTRAINED
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
    source["cosines"] = {PENALTY: [1.0] * 39, UNTRAINED: [0.2] * 39}
    for found in numbers["variants"].values():
        fill(found, 1, 0.9)
    for part in ("relu_l1", "topk"):
        for name, found in numbers[part].items():
            fill(found, "untrained" not in name, 0.5)
    for row in numbers["grid_4"]["cells"].values():
        for cell in row.values():
            cell[ALL] = numbers["grid_4"]["n"]
    unit, free = numbers["unit_norms"], numbers["free_norms"]
    unit.update(only_features=[0] * 40, latents_token=[2] * 40, mean_code=[1.0] * 40, l0=[1.0] * 40)
    free.update(decoder_norm=[2.0] * 40, mean_code=[0.5] * 40, l0=[2.0] * 40)
    return numbers
