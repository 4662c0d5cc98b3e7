"""Hook points of every layer."""

from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.extract.config import ExtractConfig, with_every_layer
from stores import ActivationStore
from tests.conftest import unmix


def expanded(*hook_points: str) -> tuple[str, ...]:
    return with_every_layer(ExtractConfig(hook_points=hook_points, n_rows=9), 3).hook_points


def test_a_star_is_every_layer_in_its_place() -> None:
    resid = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(3))
    assert expanded("blocks.*.hook_resid_post") == resid
    assert expanded("hook_embed", "blocks.*.hook_resid_post") == ("hook_embed", *resid)
    assert expanded("blocks.*.attn.hook_z.1")[2] == "blocks.2.attn.hook_z.1"


def test_a_layer_that_is_named_as_well_is_told() -> None:
    with pytest.raises(UserError, match="hook_points names one twice"):
        expanded("blocks.*.hook_resid_post", "blocks.1.hook_resid_post")


def test_the_store_has_plain_names(recipe: Path) -> None:
    sets = ["--set", 'extract.hook_points=["blocks.*.hook_resid_post"]', "--set", "extract.n_rows=700"]
    unmix("extract", "tiny.toml", *sets, cwd=recipe)
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    assert store.hook_points == ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    assert "nothing to do" in unmix("extract", "tiny.toml", *sets, cwd=recipe).stdout


def test_a_hook_point_that_no_layer_has_is_told(recipe: Path) -> None:
    sets = ["--set", 'extract.hook_points=["blocks.*.hook_resid_pots"]']
    done = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert done.returncode == 2
    assert "did you mean blocks.L.hook_resid_post" in done.stderr
