from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.names import check_name


@pytest.mark.parametrize(
    "name",
    ["blocks.0.hook_resid_post", "ln_final.hook_normalized", "topk k=64 seed 1", "überdeckt", "a..b", "commits2"],
)
def test_ordinary_names_pass(name: str) -> None:
    assert check_name(name, "hook point") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc",
        "a/b",
        "a//b",
        "a/../../b",
        "a\\b",
        "C:\\x",
        "\x00",
        "a\nb",
        ".git",
        "\ud800",
        "x" * 201,
        "commits",
        "tokens",
        "attempts",
        "leases",
        "text",
        "Tokens",
        "zarr.json",
        "manifest.json",
        "plan.json",
        "sums.npz",
    ],
)
def test_others_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match="^score.dictionaries ") as error:
        check_name(name, "score.dictionaries")
    assert str(error.value).isprintable()


@given(st.text(max_size=40) | st.text("./\\ac\0", max_size=6))
def test_what_passes_stays_in_its_folder(name: str) -> None:
    try:
        check_name(name, "hook point")
    except ValueError:
        return
    folder = Path("/somewhere/store")
    assert (folder / name).resolve().parent == folder
