"""Which units a pattern asks for."""

import pytest

from pipeline.config import UserError
from pipeline.only import Only

SITES = ["blocks.1.mlp.hook_post", "blocks.2.hook_resid_post", "blocks.2.ln2--blocks.2.hook_mlp_out"]
PLACES = [f"{site}/{name}" for site in SITES for name in ("topk-d8-s0", "topk-d8-s1", "pca")]


@pytest.mark.parametrize(
    ("patterns", "asked"),
    [
        ([], PLACES),
        (["blocks.2*/topk-*"], [PLACES[3], PLACES[4], PLACES[6], PLACES[7]]),
        (["blocks.2.hook_resid_post"], PLACES[3:6]),
        (["pca"], PLACES[2::3]),
        (["*-s[1-9]"], PLACES[1::3]),
        (["*--*/pca", "blocks.1*/*-s0"], [PLACES[0], PLACES[8]]),
        (["*"], PLACES),
        (["*post/pca"], [PLACES[2], PLACES[5]]),  # * does not reach over the slash
    ],
)
def test_a_pattern_fits_by_site_and_name(patterns: list[str], asked: list[str]) -> None:
    only = Only(tuple(patterns))
    only.check(PLACES)
    assert [place for place in PLACES if only.has(place)] == asked


def test_a_unit_is_known_by_each_of_its_names() -> None:
    assert Only((SITES[1],)).has(PLACES[6], PLACES[3])


@pytest.mark.parametrize("pattern", ["", "/", "topk", "blocks.1*/", "/pca", "BLOCKS*", "*/*/*", "pca/blocks.1*"])
def test_each_pattern_that_fits_nothing_is_told(pattern: str) -> None:
    with pytest.raises(UserError) as told:
        Only(("*", pattern), "unmix status r.toml").check(PLACES)
    assert str(told.value).startswith(f"--only {pattern!r} fits no dictionary; there are blocks.")
    assert str(told.value).endswith(" and 6 more: `unmix status r.toml` lists them")


def test_what_is_shown_is_what_is_nearest() -> None:
    with pytest.raises(UserError, match=r"there are blocks\.1\.mlp\.hook_post/topk-d8-s1, .* and 6 more"):
        Only(("blocks.1.mlp.hook_post/topk-d8-s11",)).check(PLACES)
