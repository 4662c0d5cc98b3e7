"""Two exclusive features in one number: the rule, and what counts as finding them."""

import pytest
import torch
from scipy import stats

from pipeline.toy.known_layer.exclusive import FAMILIES, _trained, decode, finds, hand_made, methods, sample

OFFSET = 6.0


def test_the_rule_gives_back_what_was_put_in() -> None:
    z, first, number = sample(10_000, OFFSET, torch.Generator().manual_seed(0))
    event, value = decode(z[:, 0], OFFSET)
    assert torch.equal(event, first)
    assert torch.allclose(value, number, atol=1e-12)
    assert float(z.mean()) == pytest.approx(0, abs=4 * 6.1 / 100)
    assert float(z.square().mean()) == pytest.approx(1 + OFFSET**2, rel=0.02)  # mean 0: the second moment


def test_the_rule_errs_as_often_as_the_normal_distribution_says() -> None:
    found = hand_made(1.0, 200_000)
    expected = float(stats.norm.sf(1.0))
    assert found["theory"] == expected
    assert found["wrong"] / 200_000 == pytest.approx(expected, abs=5 * (expected / 200_000) ** 0.5)


def test_what_counts_as_found() -> None:
    z, first, number = sample(5000, OFFSET, torch.Generator().manual_seed(0))
    rays = torch.cat([z, -z], 1).relu()
    assert finds(rays, first, number) == (2, 1.0)
    assert finds(rays[:, :1], first, number) == (1, -1.0)  # on for the first alone, off for the other
    assert finds(z, first, number) == (0, 0.0)  # a signed axis is on for both
    indicator = (rays > 0).double()  # tells them apart, and does not follow the number
    indicator[0] *= 1.001
    assert finds(indicator, first, number)[0] == 0


def test_each_method_has_a_row() -> None:
    found = methods(OFFSET, (8,), 4, 10, 32)
    assert {len(seeds) for seeds in found.values()} == {4}
    assert {f"{name}, 8 latents" for name in FAMILIES} < set(found)
    assert all(k == 0 for name in ("rotation", "pca", "ica") for k, _ in found[name])
    assert all(k == 2 for k, _ in found["rotation, its two ends apart"])


def test_topk_finds_both() -> None:
    assert [k for k, _ in _trained("topk", 8, OFFSET, 4, 200, 128)] == [2] * 4
