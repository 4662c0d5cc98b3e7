"""The claims of the known layer follow from numbers."""

from pathlib import Path

import pytest

from pipeline.toy.known_layer.claims import CLAIMS
from pipeline.toy.known_layer.dictionaries import FAMILIES
from tests.pipeline.toy.mutations import check_claims, measured

SMALL = {"n_inputs": 64, "n_iterations": 8, "n_polish": 5, "n_steps": 10, "exclusive_steps": 5, "shared_steps": 20}


@pytest.mark.slow
def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    numbers = measured("known-layer", tmp_path, n_seeds=2, dictionary_seeds=2, kept_steps=20, rule_rows=20_000, **SMALL)
    families = [numbers[name] for name in FAMILIES]
    for each in (*families, numbers["in_superposition"], numbers["control"]):  # drawn, and not decided on
        each.pop("mcs", None)
        each.pop("example")
    # as if there had been enough seeds and inputs for an interval to be narrow
    shared, one = numbers["shared"], numbers["one_dimension"]
    recovered = numbers["in_superposition"]["recovery"]
    matched = [row["matched"] for row in (*recovered.values(), *(family["rows"] for family in families))]
    chance = [recovered["jacobian, in"][key] for key in ("mmcs", "found", "floor_mmcs", "floor_found")]
    # as if the rotation had been the best one, and every layer a pair that errs where both features are present
    closest, axes = (numbers["in_superposition"][key] for key in ("bijective", "with_best"))
    closest["jacobian"], axes["jacobian"] = list(closest["truth"]), [1.0, 1.0]
    exclusive = shared["sweep"]["exclusive"]
    n = len(exclusive["antipodal"][0])
    exclusive |= {"antipodal": [[True] * n], "both": [[1 / 3] * n], "one": [[0.0] * n]}
    # as if the kept features had been counted after enough steps: least p last
    for key, m, beyond in (
        ("kept", "4", (0, 2, 8, 12)),
        ("kept", "16", (0, 0, 1, 3)),
        ("kept_of_more", "4", (0, 2, 16, 20)),
    ):
        shared[key]["kept"][m] = [[int(m) + k] * 2 for k in beyond]
    sweep = [shared["sweep"][key][-1] for key in ("trained", "antipodal")]
    for values in (*matched, *chance, *one["methods"].values(), *sweep):
        values *= 80 // len(values)
    shared["almost"]["drawn"] = [[round(n)] * 10 for n in shared["almost"]["theory"]]
    one["rule"]["n_rows"] *= 100
    shared["arithmetic"] |= {"n_rows": 1_000_000, "both": 2500, "errs": 2500}
    check_claims(CLAIMS, numbers, hints=(0.4, 2.0))
