"""The claims on polytopes follow from numbers."""

from pathlib import Path

import pytest

from pipeline.toy.polytopes.claims import CLAIMS
from tests.pipeline.toy.mutations import check_claims, measured


@pytest.mark.slow
def test_claims_follow_from_the_numbers(tiny_model: Path, tmp_path: Path) -> None:
    small = {
        "model": str(tiny_model),
        "hook_point": "blocks.0.mlp.hook_post",
        "n_sequences": 20,
        "min_cluster_size": 2,
        "n_nets": 8,
        "widths": (16, 16),
        "train_steps": 60,
        "n_conv_nets": 2,
        "n_pictures": 150,
        "factors": (0.01, 0.8, 1.25, 100.0),
        "validity_sequences": 3,
        "conv_steps": 2,
        "n_channels": (4, 4),
        "slice_side": 4,
        "n_compared": 6,
        "n_centres": (1, 4),
        "n_own": (1, 16),
        "rates": (0.02,),
        "path_steps": 40,
        "n_segments": 32,
        "norms": (0.5, 1.0),
    }
    check_claims(CLAIMS, measured("polytopes", tmp_path, **small), hints=(0.5, 10.0))
