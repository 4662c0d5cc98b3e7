"""The search over all networks of one or two ReLUs: what it excludes, and that it excludes no more."""

import numpy as np
import pytest
import torch

from pipeline.toy.functions.necessary import _possible, can_tell, most_told
from pipeline.toy.functions.parity import folding_chain, random_chain, right_around


@pytest.mark.parametrize("n_relus", [1, 2])
def test_the_bound_is_reached_by_the_wired_net_and_lies_below_a_power_of_two(n_relus: int) -> None:
    first, last = right_around(folding_chain(n_relus), 2 ** (n_relus - 1))
    assert most_told(n_relus) == last - first + 1 < 2 ** (n_relus + 1)
    assert not can_tell(2 ** (n_relus + 1), n_relus)


def test_a_line_tells_two_integers_and_not_three() -> None:
    assert _possible(2, -1, (False, False), 1, (1, 1))
    assert not _possible(3, -1, (False, False, False), 1, (1, 1))


@pytest.mark.parametrize("n_relus", [1, 2])
def test_no_random_net_tells_more(n_relus: int) -> None:
    """Independent of the programs: how often the answers at the integers alternate about some threshold."""
    rng = np.random.default_rng(0)
    most, longest = most_told(n_relus), 0
    for _ in range(300):
        x = torch.arange(-4, 5, dtype=torch.double) * rng.choice([0.2, 1.0])
        out = random_chain(n_relus, rng)(x)
        for threshold in out.unique():
            run = length = 1
            for one, next_one in zip(out[:-1] > threshold, out[1:] > threshold, strict=True):
                run = run + 1 if one != next_one else 1
                length = max(length, run)
            longest = max(longest, length)
    assert 2 <= longest <= most
