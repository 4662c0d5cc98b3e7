"""What the toy refuses before it writes."""

from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.toy.polytopes.experiment import Settings, inputs
from tests.conftest import make_store


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr")
    for settings, message in (
        (
            {"store": str(tmp_path / "s.zarr")},
            "'blocks.1.mlp.hook_post' is not in the store .* has blocks.0.hook_resid_post",
        ),
        ({"store": str(tmp_path / "none.zarr")}, "no activation store at"),
        ({"hook_point": "blocks.9.mlp.hook_post"}, "out of range"),
        ({"images": str(tmp_path)}, "has no file train-images"),
        ({"place": (3, 8)}, r"polytopes.place: \(3, 8\) is outside of pictures of 8 by 8"),
        ({"n_own": (1, 5000)}, "polytopes.n_own: .* expected 1 to 1297 each"),
        ({"n_centres": (0, 5)}, "polytopes.n_centres: .* expected 1 to 1297 each"),
    ):
        with pytest.raises(UserError, match=message):
            inputs(Settings(**settings))


def test_what_fits_is_told_by_its_digests() -> None:
    assert set(inputs(Settings())) == {"images", "model_digest"}
