"""What is made of codes: by their entries it is what all of W_dec makes."""

from typing import Any

import pytest
import torch

from pipeline.score.codes import Entries, decoded, reconstruct
from pipeline.score.measures import Rows
from pipeline.score.reconstruction import keep_largest
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.pipeline.score.made import dictionary

HOOK = "blocks.0.hook_resid_post"


def codes() -> torch.Tensor:
    """Of rows with 0, 1, …, 8 entries."""
    z = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    return z.tril(-1)


def test_a_code_is_its_entries() -> None:
    z, W = codes(), torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    found = Entries.of(z)
    assert found.l0.tolist() == list(range(9))
    torch.testing.assert_close(found.decode(W), z @ W)
    assert not Entries.of(torch.zeros(3, 8)).decode(W).any()


@pytest.mark.parametrize("kind", ["standard", "linear", "skip", "topk"])
def test_the_reconstruction_is_the_dictionarys(kind: str) -> None:
    weights: dict[str, Any] = {"W_skip": torch.randn(8, 6)} if kind == "skip" else {}
    if kind == "topk":
        made: FeatureDictionary = FeatureDictionary(
            Spec("topk", 8, 16, Site.at(HOOK), 3),
            torch.randn(8, 16),
            torch.randn(16),
            torch.randn(16, 8),
            torch.randn(8),
        )
    else:
        architecture = "linear" if kind == "linear" else "standard"
        made = dictionary({HOOK: 8}, {"blocks.0.hook_mlp_out": 6}, architecture=architecture, **weights)
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(reconstruct(made, x), made(x))
    rows = Rows(made, x[0], {}, made.encode(x[0]))
    torch.testing.assert_close(next(rows.made()), made(x[0]))


def test_parts_of_a_code_make_what_the_code_without_the_others_makes() -> None:
    made = dictionary({HOOK: 8}, {"blocks.0.hook_mlp_out": 6}, architecture="linear", W_skip=torch.randn(8, 6))
    x = torch.randn(7, 8)
    rows, z = Rows(made, x, {}, made.encode(x)), made.encode(x)
    first = [torch.cat([z[:, :k], torch.zeros(7, 16 - k)], 1) for k in (2, 5)]
    for found, kept in (
        (rows.made_of_largest([5, 2]), [keep_largest(z, k) for k in (5, 2)]),
        (rows.made_of_first([2, 5]), first),
    ):
        for y_hat, code in zip(found, kept, strict=True):
            torch.testing.assert_close(y_hat, made.decode(code) + x @ made.W_skip)


@pytest.mark.parametrize("n_active", [1, 16])
def test_few_entries_and_many_decode_alike(n_active: int) -> None:
    z = torch.zeros(5, 16)
    z[:, :n_active] = torch.randn(5, n_active)
    W = torch.randn(16, 4)
    torch.testing.assert_close(decoded(z, Entries.of(z), W), z @ W)
