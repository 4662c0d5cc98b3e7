"""The claims of the embedding's axes follow from numbers."""

from pathlib import Path

from pipeline.toy.embedding_basis.claims import CLAIMS
from tests.pipeline.toy.mutations import check_claims, measured


def test_claims_follow_from_the_numbers(tmp_path: Path) -> None:
    # of fewer than 73 draws a share of 0 has an interval that ends above .05
    numbers = measured("embedding-basis", tmp_path, n_rotations=3, n_files=10, n_draws=80, n_axes=3)
    for one in numbers["tokens"]["embeddings"].values():  # drawn, and not decided on
        for key in ("points", "shares", "axes"):
            one.pop(key)
    check_claims(CLAIMS, numbers)
